"""BERT: Devlin, Chang, Lee & Toutanova 2019, "BERT: Pre-training of Deep Bidirectional Transformers"; small sizes from
Turc et al. 2019, "Well-Read Students Learn Better".

Leave out 15 % of the tokens of a sentence pair, restore them seeing both sides; and say whether B follows A.

Where the paper and the released code differ, this follows the code: pairs are random a little more often than half;
the masking budget counts special symbols; a random replacement may be any symbol; Adam has no bias correction, with
eps 1e-6 outside the square root; the learning rate drops by the share of warm-up when warm-up ends (`Linear.kink`).
GELU is the exact one, as in the released weights. The paper trains 90 % of its steps at length 128, the rest at 512
with up to 77 targets: pretrain, then continue with `--segmenter.max-length 512 --noise.max-targets 77 --init-from RUN`.

One departure: the released code writes ten passes to disk and repeats their masks in every epoch after; here masks
never repeat.
"""

import dataclasses

from elision.data.noise import TokenMask
from elision.data.segment import SentencePairs
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM, NextSentence
from elision.recipe import Recipe
from elision.text.tokenizer import WordPiece
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128: 4.4 M parameters."""
    return _bert("bert-tiny", num_layers=2, hidden_size=128)


def mini() -> Recipe:
    """4 layers of width 256: 11 M parameters."""
    return _bert("bert-mini", num_layers=4, hidden_size=256)


def small() -> Recipe:
    """4 layers of width 512: 29 M parameters."""
    return _bert("bert-small", num_layers=4, hidden_size=512)


def medium() -> Recipe:
    """8 layers of width 512: 41 M parameters."""
    return _bert("bert-medium", num_layers=8, hidden_size=512)


def base() -> Recipe:
    """12 layers of width 768: 110 M parameters."""
    return _bert("bert-base", num_layers=12, hidden_size=768)


def large() -> Recipe:
    """24 layers of width 1024: 336 M parameters."""
    return _bert("bert-large", num_layers=24, hidden_size=1024)


def tiny_whole_word() -> Recipe:
    """`tiny` masking whole words."""
    return _whole_word(tiny())


def base_whole_word() -> Recipe:
    """`base` masking whole words, as in the authors' release of May 2019."""
    return _whole_word(base())


def large_whole_word() -> Recipe:
    """`large` masking whole words, as in the authors' release of May 2019."""
    return _whole_word(large())


def _bert(name: str, num_layers: int, hidden_size: int) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=WordPiece(vocab_size=30522, lowercase=True),
        segmenter=SentencePairs(max_length=128, short_probability=0.1, random_probability=0.5, passes=10),
        noise=TokenMask(rate=0.15, max_targets=20, mask_share=0.8, random_share=0.1),
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
            embedding_norm=True,
            pooler=True,
            norm_eps=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02, truncated=True),
        ),
        objectives=(MaskedLM(), NextSentence()),
        train=Train(
            batch_size=256,
            steps=1_000_000,
            optimizer=AdamW(learning_rate=1e-4, eps=1e-6, weight_decay=0.01, bias_correction=False, clip_norm=1.0),
            schedule=Linear(warmup=0.01, kink=True),
        ),
    )


def _whole_word(recipe: Recipe) -> Recipe:
    noise = dataclasses.replace(recipe.noise, whole_words=True)
    return dataclasses.replace(recipe, name=f"{recipe.name}-whole-word", noise=noise)
