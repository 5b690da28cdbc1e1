"""mT5: Xue, Constant, Roberts, Kale, Al-Rfou, Siddhant, Barua & Raffel 2021, "mT5: A Massively Multilingual Pre-trained
Text-to-Text Transformer".

T5 v1.1 in 101 languages: the same spans left out and written, in texts of 1024 tokens to read, each in one language, with
a vocabulary of 250,000 and languages drawn with p ∝ q^0.3.

Departures are those of T5. Documents must declare their language (`elision prepare en=FILE ko=FILE ...`).
"""

import dataclasses

from elision.data.mixing import LanguageMix
from elision.data.segment import Chunks
from elision.recipe import Recipe
from elision.recipes import t5_v1_1
from elision.text.tokenizer import Unigram


def tiny() -> Recipe:
    """Ours, for small machines: 2 + 2 layers of width 128, 128 tokens to read."""
    return dataclasses.replace(t5_v1_1.tiny(), name="mt5-tiny", mixing=LanguageMix(alpha=0.3))


def small() -> Recipe:
    """300 M parameters, 256 M of them in two tables of tokens: 8 + 8 layers of width 512."""
    return _mt5("mt5-small", t5_v1_1.small())


def base() -> Recipe:
    """582 M parameters: 12 + 12 layers of width 768."""
    return _mt5("mt5-base", t5_v1_1.base())


def large() -> Recipe:
    """1.23 G parameters: 24 + 24 layers of width 1024."""
    return _mt5("mt5-large", t5_v1_1.large())


def xl() -> Recipe:
    """3.74 G parameters: 24 + 24 layers of width 2048."""
    return _mt5("mt5-xl", t5_v1_1.xl())


def xxl() -> Recipe:
    """12.9 G parameters: 24 + 24 layers of width 4096."""
    return _mt5("mt5-xxl", t5_v1_1.xxl())


def _mt5(name: str, like: Recipe) -> Recipe:
    return dataclasses.replace(
        like,
        name=name,
        tokenizer=Unigram(vocab_size=250_100, layout="t5", num_sentinels=100),
        segmenter=Chunks(max_length=1137, separated=False),
        mixing=LanguageMix(alpha=0.3),
        train=dataclasses.replace(like.train, batch_size=1024),
    )
