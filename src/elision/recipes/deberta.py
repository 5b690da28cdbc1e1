"""DeBERTa: He, Liu, Gao & Chen 2020, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention".

Content and relative position are kept apart and score one another; absolute position enters only where a masked token
is predicted, in a decoder that runs the last layer twice over the states below it.

What it changes in BERT: no position or segment is added to the embeddings; every layer projects one table of 1,024
relative positions; three terms are scored (content to content, content to position, position to content) and divided
by the square root of three times the head's width; runs of whole words are masked; no next sentences. Its byte-level
BPE is GPT-2's with special symbols. Ablations: `--backbone.no-content-to-position`,
`--backbone.no-position-to-content`, `--backbone.no-mask-decoder`.

Where the paper and the released code differ, this follows the code: both relative terms of a pair of tokens are taken
from the same row of the table, keys have no bias, every run of masked words has a context six times its length to
itself and the budget is spent on them from left to right, which leaves the last 30 or so of 512 tokens without targets
(`--noise.randomise-survivors` does not). One departure: the mask decoder draws the dropout of relative positions
once for both its runs. Batch, steps and rates of `base` and `large` are the paper's.
"""

from elision.data.noise import ContextNgramMask
from elision.data.segment import FullSentences
from elision.model.deberta import Deberta
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.objectives import MaskedLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128, 8,192 symbols, length 128: 1.7 M parameters."""
    return _deberta(
        "deberta-tiny",
        _encoder(num_layers=2, hidden_size=128, num_heads=2),
        _training(batch_size=256, steps=20_000, warmup=0.01, learning_rate=1e-3),
        vocab_size=8192,
        length=128,
    )


def base() -> Recipe:
    """12 layers of width 768: 140 M parameters."""
    return _deberta(
        "deberta-base",
        _encoder(num_layers=12, hidden_size=768, num_heads=12),
        _training(batch_size=2048, steps=1_000_000, warmup=0.01, learning_rate=2e-4),
    )


def large() -> Recipe:
    """24 layers of width 1024: 407 M parameters."""
    return _deberta(
        "deberta-large",
        _encoder(num_layers=24, hidden_size=1024, num_heads=16),
        _training(batch_size=2048, steps=1_000_000, warmup=0.01, learning_rate=2e-4),
    )


def _encoder(num_layers: int, hidden_size: int, num_heads: int) -> Deberta:
    return Deberta(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        feedforward_size=4 * hidden_size,
        max_distance=512,
        num_buckets=None,
        share_projections=False,
        distance_norm=False,
        key_bias=False,
        convolution=0,
        mask_decoder=True,
        positions=LearnedPositions(512),
        activation="gelu",
        frame="roberta",
        classifier="gelu",
        norm_eps=1e-7,
        dropout=0.1,
        attention_dropout=0.1,
        init=NormalInit(std=0.02),
    )


def _training(batch_size: int, steps: int, warmup: float, learning_rate: float) -> Train:
    return Train(
        batch_size=batch_size,
        steps=steps,
        optimizer=AdamW(learning_rate=learning_rate, eps=1e-6, weight_decay=0.01, bias_correction=False, clip_norm=1.0),
        schedule=Linear(warmup=warmup),
    )


def _deberta(name: str, backbone: Deberta, train: Train, vocab_size: int = 50265, length: int = 512) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size, layout="roberta"),
        segmenter=FullSentences(max_length=length, cross_documents=True),
        noise=ContextNgramMask(rate=0.15, max_targets=80, max_words=3, mask_share=0.8, random_share=0.1),
        backbone=backbone,
        objectives=(MaskedLM(),),
        train=train,
    )
