"""One place of what is shown."""

import dataclasses
import enum
from typing import Literal


class Fate(enum.Enum):
    """What the noise did to a token."""

    UNTOUCHED = "untouched"
    MASKED = "mask"
    REPLACED = "random"
    KEPT = "kept"

    @property
    def meaning(self) -> str:
        """What the word stands for."""
        return {
            Fate.UNTOUCHED: "as it stood in the text",
            Fate.MASKED: "left out, a mask stands in its place",
            Fate.REPLACED: "left out, another token stands in its place",
            Fate.KEPT: "as it stood in the text, and still to be predicted",
        }[self]


@dataclasses.dataclass(frozen=True)
class Token:
    """One place of the row: what the model reads there, what stood there, what it must say there."""

    piece: str
    original: tuple[str, ...]
    """the pieces that stood here before the noise: one, several when a span was joined, none when it was inserted"""
    dropped: tuple[str, ...]
    """the pieces before this place that the noise removed without a trace"""
    target: str | None
    fate: Fate
    special: bool
    position: int
    document: int
    example: int
    segment: int | None
    language: int | None = None
    order: int | None = None
    """its place in a permutation: it sees what has no higher one"""
    sampled: str | None = None
    """what a generator puts in this place before the model reads it"""
    predicted: str | None = None
    """what a model says here"""
    side: Literal["", "reads", "writes"] = ""
    """whether an encoder reads it or a decoder writes here; "" = there is one row only"""
    came_from: int | None = None
    """the place in the text where it stood, where that can be told"""
    moved: bool = False
    """it does not stand in the order of the text"""
    unseen: bool = False
    """whoever writes may not look at it"""
    prefix: bool | None = None
    """whether all of its document sees it, in a row that is read first and then written on"""
    left_out: bool = False
    """what is to be said here stands nowhere in what is read"""
