"""ELECTRA: Clark, Luong, Le & Manning 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
Generators".

Leave out 15 % of the tokens, have a small masked language model fill them in, and say of every token whether it is the
one that stood there. Every token teaches, not one in seven; after pretraining the small model is left behind.

Where the paper and the released code differ, this follows the code: places are drawn with replacement, so a little less
than 15 % are hit; 15 % of them keep their token; the warm-up and the decay of the learning rate are factors that are
multiplied; Adam has no bias correction, with eps 1e-6 outside the square root. The two models share all embeddings and
their norm; each brings them to its own width.

Departures, none of which the paper speaks of: a place that is drawn twice gets one sample and one loss (the code's
average of two token numbers is a third token); A is always before B in the text. The generator of `small` has a quarter
of the width; the weights released as "small" (here `small_plus_plus`) have one as wide as the discriminator.

Ablations of section 3.4, at the tiny size: `tiny_all_tokens` predicts every token instead of judging it, `tiny_replace`
only those that had been left out, and `tiny_masked_only` judges only those ("ELECTRA 15 %").
"""

import dataclasses

from elision.data.noise import ElectraMask
from elision.data.segment import TwoSegments
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import ReplacedMLM, ReplacedTokens
from elision.objectives.generator import Generator
from elision.recipe import Recipe
from elision.text.tokenizer import WordPiece
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128 and a generator of width 64: 4.5 M parameters, 4.4 M without the generator."""
    return _electra("electra-tiny", num_layers=2, hidden_size=128, generator=Generator(width=0.5))


def small() -> Recipe:
    """12 layers of width 256: 13.5 M parameters without heads and generator."""
    return _electra("electra-small", num_layers=12, hidden_size=256, embedding_size=128)


def small_plus_plus() -> Recipe:
    """`small` at length 512 with a generator of full width, as released under the name of small."""
    return _electra(
        "electra-small-plus-plus",
        num_layers=12,
        hidden_size=256,
        embedding_size=128,
        generator=Generator(width=1.0),
        max_length=512,
    )


def base() -> Recipe:
    """12 layers of width 768: 109 M parameters without heads and generator."""
    return _electra(
        "electra-base",
        num_layers=12,
        hidden_size=768,
        generator=Generator(width=1 / 3),
        max_length=512,
        batch_size=256,
        steps=766_000,
        learning_rate=2e-4,
    )


def large() -> Recipe:
    """24 layers of width 1024: 334 M parameters without heads and generator."""
    return _electra(
        "electra-large",
        num_layers=24,
        hidden_size=1024,
        rate=0.25,
        max_length=512,
        batch_size=2048,
        steps=400_000,
        learning_rate=2e-4,
    )


def tiny_all_tokens() -> Recipe:
    """`tiny` predicting what stood at every place, with a way to copy: "All-Tokens MLM"."""
    return _ablation("all-tokens", ReplacedMLM(Generator(width=0.5), over="all"))


def tiny_replace() -> Recipe:
    """`tiny` restoring what had been left out from a text with samples in place of masks: "Replace MLM"."""
    return _ablation("replace", ReplacedMLM(Generator(width=0.5), over="masked", copies=False))


def tiny_masked_only() -> Recipe:
    """`tiny` judging only the tokens that had been left out: "ELECTRA 15 %"."""
    return _ablation("masked-only", ReplacedTokens(Generator(width=0.5), over="masked"))


def _electra(
    name: str,
    num_layers: int,
    hidden_size: int,
    embedding_size: int | None = None,
    generator: Generator = Generator(width=0.25),
    rate: float = 0.15,
    max_length: int = 128,
    batch_size: int = 128,
    steps: int = 1_000_000,
    learning_rate: float = 5e-4,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=WordPiece(vocab_size=30522, lowercase=True),
        segmenter=TwoSegments(max_length=max_length, short_probability=0.05, single_probability=0.1),
        noise=ElectraMask(rate=rate, with_replacement=True, mask_share=0.85),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=hidden_size // 64,
            feedforward_size=4 * hidden_size,
            visibility="bidirectional",
            norm="post",
            activation="gelu",
            positions=LearnedPositions(512),
            num_types=2,
            embedding_size=embedding_size,
            embedding_norm=True,
            classifier="gelu",
            norm_eps=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02, truncated=True),
        ),
        objectives=(ReplacedTokens(generator, weight=50.0),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=AdamW(
                learning_rate=learning_rate, eps=1e-6, weight_decay=0.01, bias_correction=False, clip_norm=1.0
            ),
            # 10,000 steps of warm-up, as a share so that shorter runs have theirs.
            schedule=Linear(warmup=10_000 / steps, product=True),
        ),
    )


def _ablation(what: str, objective: ReplacedTokens | ReplacedMLM) -> Recipe:
    return dataclasses.replace(tiny(), name=f"electra-tiny-{what}", objectives=(objective,))
