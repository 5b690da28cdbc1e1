"""RoBERTa: Liu, Ott, Goyal et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach".

Leave out 15 % of all places of full-length text, drawn anew each time, and restore them; no next sentences, longer.

What it changes in BERT: masks that never repeat, whole sentences packed across documents instead of sentence pairs, no
segments and no pooler, a byte-level BPE of 50,265 symbols, large batches. Where the paper and the released code
differ, this follows the code: the number of masked places is rounded up or down at random, <s> and </s> may be masked,
random tokens are never special symbols, weights start from an untruncated normal distribution, weight decay acts on
every parameter, gradients are not clipped. `base` has the rate, batch and steps of the code's published command;
`large` those of the paper (there, base takes 6e-4 with a batch of 8k for 500k steps).

Positions count from 2 (`LearnedPositions.offset`), as in all of fairseq's models. DOC-SENTENCES, the variant that the
paper found slightly better and did not use, is `--segmenter.no-cross-documents`.
"""

from elision.data.noise import DynamicMask
from elision.data.segment import FullSentences
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128, 8,192 symbols, length 128: 1.5 M parameters."""
    return _roberta(
        "roberta-tiny",
        encoder(num_layers=2, hidden_size=128, num_heads=2),
        training(batch_size=64, steps=20_000, warmup=0.06, learning_rate=1e-3),
        vocab_size=8192,
        length=128,
    )


def base() -> Recipe:
    """12 layers of width 768: 125 M parameters."""
    return _roberta(
        "roberta-base",
        encoder(num_layers=12, hidden_size=768, num_heads=12),
        training(batch_size=2048, steps=125_000, warmup=10_000 / 125_000, learning_rate=5e-4),
    )


def large() -> Recipe:
    """24 layers of width 1024: 356 M parameters."""
    return _roberta(
        "roberta-large",
        encoder(num_layers=24, hidden_size=1024, num_heads=16),
        training(batch_size=8192, steps=500_000, warmup=30_000 / 500_000, learning_rate=4e-4),
    )


def encoder(num_layers: int, hidden_size: int, num_heads: int) -> Transformer:
    """Return the backbone, which XLM-R has too."""
    return Transformer(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        feedforward_size=4 * hidden_size,
        visibility="bidirectional",
        norm="post",
        activation="gelu",
        positions=LearnedPositions(512, offset=2),
        num_types=0,
        embedding_norm=True,
        pooler=False,
        frame="roberta",
        classifier="tanh",
        norm_eps=1e-5,
        dropout=0.1,
        attention_dropout=0.1,
        init=NormalInit(std=0.02),
    )


def training(batch_size: int, steps: int, warmup: float, learning_rate: float) -> Train:
    """Return how it is optimised; XLM-R is too. warmup: share of the steps."""
    return Train(
        batch_size=batch_size,
        steps=steps,
        optimizer=AdamW(
            learning_rate=learning_rate, beta2=0.98, eps=1e-6, weight_decay=0.01, decay_all=True, clip_norm=0.0
        ),
        schedule=Linear(warmup=warmup),
    )


def _roberta(name: str, backbone: Transformer, train: Train, vocab_size: int = 50265, length: int = 512) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size, layout="roberta"),
        segmenter=FullSentences(max_length=length, cross_documents=True),
        noise=DynamicMask(rate=0.15, mask_share=0.8, random_share=0.1),
        backbone=backbone,
        objectives=(MaskedLM(),),
        train=train,
    )
