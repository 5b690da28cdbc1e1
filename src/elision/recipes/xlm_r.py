"""XLM-R: Conneau, Khandelwal, Goyal et al. 2020, "Unsupervised Cross-lingual Representation Learning at Scale".

RoBERTa on the text of a hundred languages at once, small ones read more often than they occur; nothing tells languages.

One vocabulary of 250,002 Unigram pieces is shared by all languages. There are no language embeddings and no parallel
text. A language with the share q of the examples is read with probability p ∝ q^0.3 (`mixing`). All else is RoBERTa's.
The paper does not state the learning rates; these are RoBERTa's. Its Unicode form is SentencePiece's NFKC, here NFC,
which leaves full-width letters and lone Korean ones as they are written: `normal_form="nfkc"` gives the other.

XL and XXL (Goyal et al. 2021) are left out: they put layer norm before each sublayer, and Hugging Face has another
class for them.
"""

from elision.data.mixing import LanguageMix
from elision.data.noise import DynamicMask
from elision.data.segment import FullSentences
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM
from elision.recipe import Recipe
from elision.recipes.roberta import encoder, training
from elision.text.tokenizer import Unigram
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128, 16,384 symbols, length 128: 2.6 M parameters."""
    return _xlm_r(
        "xlm-r-tiny",
        encoder(num_layers=2, hidden_size=128, num_heads=2),
        training(batch_size=64, steps=20_000, warmup=0.06, learning_rate=1e-3),
        vocab_size=16384,
        length=128,
    )


def base() -> Recipe:
    """12 layers of width 768: 278 M parameters, 192 M of them the token table."""
    return _xlm_r(
        "xlm-r-base",
        encoder(num_layers=12, hidden_size=768, num_heads=12),
        training(batch_size=8192, steps=1_500_000, warmup=24_000 / 1_500_000, learning_rate=6e-4),
    )


def large() -> Recipe:
    """24 layers of width 1024: 560 M parameters, 256 M of them the token table."""
    return _xlm_r(
        "xlm-r-large",
        encoder(num_layers=24, hidden_size=1024, num_heads=16),
        training(batch_size=8192, steps=1_500_000, warmup=30_000 / 1_500_000, learning_rate=4e-4),
    )


def _xlm_r(name: str, backbone: Transformer, train: Train, vocab_size: int = 250_002, length: int = 512) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=vocab_size, layout="xlm-r"),
        segmenter=FullSentences(max_length=length, cross_documents=True),
        noise=DynamicMask(rate=0.15, mask_share=0.8, random_share=0.1),
        backbone=backbone,
        objectives=(MaskedLM(),),
        train=train,
        mixing=LanguageMix(alpha=0.3),
    )
