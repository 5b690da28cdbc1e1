"""Stretches of one endless stream of text in their order, for causal models that remember: Transformer-XL's."""

import dataclasses
from typing import ClassVar

from elision.data.segment.chunks import ChunkPlan, Chunks
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Streams:
    """Transformer-XL's examples: the chunks of `Chunks`, each of which goes on where the one before it ends.

    The split is cut into as many streams as a batch has rows; row r of the next step goes on with row r of this one, so that
    what a model remembers is what came right before (Dai et al. 2019, section 3.2). Nothing is shuffled. The end-of-text
    symbol stands before each document, and a document remembers the ones before it: where it begins is for the model to
    see.

    A worked example: documents 10 11 and 12 13 14 with separator 0, length 2 and two rows make the stream 0 10 11 0 12 13 14,
    whose chunks are 0 10 | 11 0 | 12 13; step 0 reads the first of them and, in the second row, the one where the second of
    the two streams begins.
    """

    max_length: int = 512
    """tokens in an example: how far gradients reach back"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"eos"})
    num_labels: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()
    num_types: ClassVar[int] = 0
    contiguous: ClassVar[bool] = True
    # All of an example goes into the memory.
    reuse_length: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise InputError(f"max_length is {self.max_length}: it must be at least 1")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "StreamPlan":
        """Count the chunks; `lookahead` more tokens than `max_length` are handed over, shared with the next chunk."""
        return StreamPlan(Chunks(self.max_length), split, vocabulary.require("eos"), lookahead)


class StreamPlan(ChunkPlan):
    """The chunks, to be read in their order."""

    contiguous = True
