"""One sentence to an example: what models of translation are pretrained on."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.frame import FRAMES, FrameName
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class SingleSentences:
    """Every sentence by itself, framed; longer ones are left out (MASS, as XLM's code for single sentences).

    A worked example, with </s> 1 on both sides and a length of 5: of the sentences 10 11, 12 13 14 15 and 16 the first and
    the last become 1 10 11 1 and 1 16 1.
    """

    max_length: int = 102
    """tokens in an example, special symbols included"""
    frame: FrameName = "bert"
    """how a sentence is framed: "bert" is [CLS] A [SEP], or XLM's </s> A </s>"""

    num_labels: ClassVar[int] = 0
    num_types: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        least = FRAMES[self.frame].num_symbols(pair=False) + 1
        if self.max_length < least:
            raise InputError(f"max_length is {self.max_length}: a token and what frames it need {least}")

    @property
    def needs_roles(self) -> frozenset[str]:
        """The symbols that frame a sentence."""
        return FRAMES[self.frame].roles

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "SingleSentencesPlan":
        """Plan the sentences that are short enough; with `lookahead` they may be that much longer."""
        return SingleSentencesPlan(self, split, vocabulary, lookahead)


class SingleSentencesPlan:
    """The sentences of a split that are short enough: 8 bytes an example."""

    contiguous = False

    def __init__(self, settings: SingleSentences, split: Split, vocabulary: Vocabulary, lookahead: int):
        self._split, self._vocabulary, self._frame = split, vocabulary, FRAMES[settings.frame]
        for role in sorted(self._frame.roles):
            vocabulary.require(role)
        room = settings.max_length - self._frame.num_symbols(pair=False) + lookahead
        sizes = np.diff(split.sentence_starts)
        self._sentences = np.flatnonzero((sizes > 0) & (sizes <= room))
        if not len(self):
            what = f"holds no sentence of at most {room} tokens" if split.num_sentences else "holds no text"
            raise InputError(f"split {split.name!r} of the store {what}: raise max_length, or prepare a larger corpus")

    def __len__(self) -> int:
        return len(self._sentences)

    def example(self, index: int) -> Example:
        """Build example `index`."""
        begin, end = self._split.sentence_starts[self._sentences[index] : self._sentences[index] + 2]
        return self._frame(self._vocabulary, self._split.tokens(int(begin), int(end)))
