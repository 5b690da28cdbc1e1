"""ALBERT: Lan, Chen, Goodman et al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations".

Leave out 15 % of the tokens of a sentence pair, in runs of up to three words, and restore them; and say whether the two
halves were swapped. All layers share one set of weights, and the token table is narrower than the states.

What it changes in BERT: embeddings of width 128 with a linear layer up to the states (30,000 x 128 instead of 30,000 x
768 numbers); one block applied L times (`Transformer.sharing`; "attention", "feedforward" and "none" are the paper's
ablations); sentence order instead of next sentences; runs of words as masks; LAMB with batches of 4096. `*_v2` are
the authors' second release: no dropout, longer training.

Where the paper and the released code differ, this follows the code: a sentence that fills an example alone is paired
with another document and labelled 1 (`SwappedPairs.lone_sentences`); an example has at most 20 targets, even at length
512; LAMB corrects no bias, and leaves biases and norms without decay and without a trust ratio; the learning rate
drops by the share of warm-up when warm-up ends. xlarge has the 16 heads of the released configuration (the rule of
one head for 64 channels would give 32).

Departures: masks never repeat (the released code writes forty passes to disk); punctuation belongs to the word before it
unless the tokenizer splits it off, while the released code counts every mark as a word.
"""

import dataclasses

from elision.data.noise import NgramMask
from elision.data.segment import SwappedPairs
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM, SentenceOrder
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
from elision.train.lamb import Lamb
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """4 layers of width 256 sharing one block, 8,192 symbols, length 128: 1.4 M parameters."""
    recipe = _albert("albert-tiny", num_layers=4, hidden_size=256, num_heads=4, dropout=0.0)
    return dataclasses.replace(
        recipe,
        tokenizer=dataclasses.replace(recipe.tokenizer, vocab_size=8192),
        segmenter=SwappedPairs(max_length=128),
        backbone=dataclasses.replace(recipe.backbone, positions=LearnedPositions(128), embedding_size=64),
        train=dataclasses.replace(
            recipe.train,
            batch_size=256,
            steps=20_000,
            optimizer=dataclasses.replace(recipe.train.optimizer, learning_rate=TINY_RATE),
            schedule=Linear(warmup=0.05),
        ),
    )


def base() -> Recipe:
    """12 layers of width 768: 12 M parameters."""
    return _albert("albert-base", num_layers=12, hidden_size=768, num_heads=12)


def large() -> Recipe:
    """24 layers of width 1024: 18 M parameters."""
    return _albert("albert-large", num_layers=24, hidden_size=1024, num_heads=16)


def xlarge() -> Recipe:
    """24 layers of width 2048: 59 M parameters."""
    return _albert("albert-xlarge", num_layers=24, hidden_size=2048, num_heads=16)


def xxlarge() -> Recipe:
    """12 layers of width 4096, without dropout: 223 M parameters."""
    return _albert("albert-xxlarge", num_layers=12, hidden_size=4096, num_heads=64, dropout=0.0)


def base_v2() -> Recipe:
    """`base` without dropout, for ten million steps."""
    return _second(base(), steps=10_000_000)


def large_v2() -> Recipe:
    """`large` without dropout, for three million steps."""
    return _second(large(), steps=3_000_000)


def xlarge_v2() -> Recipe:
    """`xlarge` without dropout, for three million steps."""
    return _second(xlarge(), steps=3_000_000)


def xxlarge_v2() -> Recipe:
    """`xxlarge` for three million steps."""
    return _second(xxlarge(), steps=3_000_000)


# LAMB's rate is the share of a tensor's own length that it moves: a run of a thousand steps wants longer ones than one of
# 125,000. After 150 steps of 16 examples 6e-3 and 2e-2 were alike, and ahead of 2e-3 by half a nat.
TINY_RATE = 5e-3


def _albert(name: str, num_layers: int, hidden_size: int, num_heads: int, dropout: float = 0.1) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=30_000, layout="albert", lowercase=True),
        segmenter=SwappedPairs(max_length=512, short_probability=0.1, swap_probability=0.5, passes=40),
        noise=NgramMask(rate=0.15, max_targets=20, max_words=3, mask_share=0.8, random_share=0.1),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility="bidirectional",
            norm="post",
            activation="gelu_tanh",
            positions=LearnedPositions(512),
            num_types=2,
            embedding_size=128,
            sharing="all",
            num_groups=1,
            embedding_norm=True,
            pooler=True,
            norm_eps=1e-12,
            dropout=dropout,
            attention_dropout=dropout,
            init=NormalInit(std=0.02, truncated=True),
        ),
        objectives=(MaskedLM(), SentenceOrder()),
        train=Train(
            batch_size=4096,
            steps=125_000,
            optimizer=Lamb(learning_rate=0.00176, eps=1e-6, weight_decay=0.01, clip_norm=1.0),
            schedule=Linear(warmup=3125 / 125_000, kink=True),
        ),
    )


def _second(recipe: Recipe, steps: int) -> Recipe:
    return dataclasses.replace(
        recipe,
        name=f"{recipe.name}-v2",
        backbone=dataclasses.replace(recipe.backbone, dropout=0.0, attention_dropout=0.0),
        train=dataclasses.replace(recipe.train, steps=steps),
    )
