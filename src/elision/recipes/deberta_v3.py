"""DeBERTa-v3: He, Gao & Chen 2021, "DeBERTaV3: Improving DeBERTa using ELECTRA-Style Pre-Training with
Gradient-Disentangled Embedding Sharing".

A DeBERTa of half the depth fills in masked tokens, and the DeBERTa that is kept says of every token whether it was
replaced; its token table is the generator's plus a difference, and its loss moves only the difference.

What it changes in ELECTRA: both models are DeBERTas (version 2 without its convolution), the generator as wide as the
other and with the mask decoder, every left-out token is masked, the summary token's state is added to each token's before
it is judged, and no gradient of the judge reaches the generator's embeddings. Exports and fine-tuning take the sum of
the two tables.

Where the paper and the released code differ, this follows the code: the judge's loss weighs 10 (the paper: 50). One
departure: the code by default updates generator and judge by two optimisers, one after the other, each clipped by
itself; here one optimiser updates both, so the weight matters for clipping, though little else under Adam. Batch, steps
and rates are the paper's; it gives none for `small` and `xsmall`, which take those of `base`. `multilingual_base` is
mDeBERTa: the base model with 251,000 pieces over the text of 100 languages.
"""

from elision.data.noise import ContextNgramMask
from elision.data.segment import FullSentences
from elision.model.deberta import Deberta
from elision.objectives import ReplacedTokens
from elision.objectives.generator import Generator
from elision.recipe import Recipe
from elision.recipes.deberta_v2 import encoder, training
from elision.text.tokenizer import Unigram
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128 and a generator of 1, 8,192 symbols, length 128: 2.9 M parameters."""
    return _deberta_v3(
        "deberta-v3-tiny",
        encoder(num_layers=2, hidden_size=128, num_heads=2, mask_decoder=False),
        training(batch_size=256, steps=20_000, warmup=0.02, learning_rate=1e-3, beta2=0.98),
        vocab_size=8192,
        length=128,
    )


def xsmall() -> Recipe:
    """12 layers of width 384: 71 M parameters, and a generator of 6 layers."""
    return _deberta_v3(
        "deberta-v3-xsmall",
        encoder(num_layers=12, hidden_size=384, num_heads=6, mask_decoder=False),
        training(batch_size=8192, steps=500_000, warmup=0.02, learning_rate=6e-4, beta2=0.98),
    )


def small() -> Recipe:
    """6 layers of width 768: 141 M parameters, and a generator of 3 layers."""
    return _deberta_v3(
        "deberta-v3-small",
        encoder(num_layers=6, hidden_size=768, num_heads=12, mask_decoder=False),
        training(batch_size=8192, steps=500_000, warmup=0.02, learning_rate=6e-4, beta2=0.98),
    )


def base() -> Recipe:
    """12 layers of width 768: 184 M parameters, and a generator of 6 layers."""
    return _deberta_v3(
        "deberta-v3-base",
        encoder(num_layers=12, hidden_size=768, num_heads=12, mask_decoder=False),
        training(batch_size=8192, steps=500_000, warmup=0.02, learning_rate=6e-4, beta2=0.98),
    )


def large() -> Recipe:
    """24 layers of width 1024: 434 M parameters, and a generator of 12 layers."""
    return _deberta_v3(
        "deberta-v3-large",
        encoder(num_layers=24, hidden_size=1024, num_heads=16, mask_decoder=False),
        training(batch_size=8192, steps=500_000, warmup=0.02, learning_rate=3e-4, beta2=0.98),
    )


def multilingual_base() -> Recipe:
    """`base` with 251,000 pieces: 278 M parameters, and a generator of 6 layers."""
    return _deberta_v3(
        "deberta-v3-multilingual-base",
        encoder(num_layers=12, hidden_size=768, num_heads=12, mask_decoder=False),
        training(batch_size=8192, steps=500_000, warmup=0.02, learning_rate=6e-4, beta2=0.98),
        vocab_size=251_000,
    )


def _deberta_v3(name: str, backbone: Deberta, train: Train, vocab_size: int = 128_100, length: int = 512) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=vocab_size, layout="albert"),
        segmenter=FullSentences(max_length=length, cross_documents=True),
        noise=ContextNgramMask(rate=0.15, max_targets=80, max_words=1, mask_share=1.0, random_share=0.0),
        backbone=backbone,
        objectives=(
            ReplacedTokens(
                generator=Generator(width=1.0, depth=0.5, sharing="disentangled"), weight=10.0, reads_summary=True
            ),
        ),
        train=train,
    )
