"""How a text or a pair of texts is framed by special symbols: each family has its own way."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from elision.data.example import Example
from elision.text.vocabulary import Vocabulary

FrameName = Literal["bert", "roberta", "xlnet", "causal", "elmo", "bare"]


@dataclasses.dataclass(frozen=True)
class Frame:
    """The roles of the symbols before a text, between two texts, and after the last; where the summary token stands."""

    before: tuple[str, ...]
    between: tuple[str, ...]
    after: tuple[str, ...]
    summary: Literal["first", "last"]

    @property
    def roles(self) -> frozenset[str]:
        """Every role that a vocabulary must have for it."""
        return frozenset({*self.before, *self.between, *self.after})

    def num_symbols(self, pair: bool) -> int:
        """Return how many symbols frame a text, or a pair."""
        return len(self.before) + len(self.after) + (len(self.between) if pair else 0)

    def __call__(
        self, vocabulary: Vocabulary, first: np.ndarray, second: np.ndarray | None = None, num_types: int = 0
    ) -> Example:
        """Return the example for the ids of a text, or of a pair; nothing is cut.

        With types, what follows the first separator is of type 1; a third type is that of a summary token at the end
        (XLNet's <cls>).
        """

        def ids(roles: Sequence[str]) -> np.ndarray:
            return np.array([vocabulary.require(role) for role in roles], np.int64)

        parts = [ids(self.before), first]
        framing = [True, False]
        if second is not None:
            parts += [ids(self.between), second]
            framing += [True, False]
        parts.append(ids(self.after))
        framing.append(True)
        inputs = np.concatenate(parts).astype(np.int64)
        special = np.repeat(framing, [len(part) for part in parts])
        type_ids = None
        if num_types >= 2:
            size_first = len(self.before) + len(first) + len(self.between if second is not None else self.after)
            type_ids = (np.arange(len(inputs)) >= size_first).astype(np.int64)
            if self.summary == "last" and num_types >= 3:
                type_ids[-1] = 2
                if second is None:
                    type_ids[:-1] = 0
        return Example(inputs, special, type_ids=type_ids, summary=0 if self.summary == "first" else len(inputs) - 1)


FRAMES: dict[str, Frame] = {
    # [CLS] A [SEP] B [SEP]; also XLM, whose vocabulary has one symbol for both roles.
    "bert": Frame(("cls",), ("sep",), ("sep",), "first"),
    # <s> A </s></s> B </s>
    "roberta": Frame(("cls",), ("sep", "sep"), ("sep",), "first"),
    # A <sep> B <sep> <cls>
    "xlnet": Frame((), ("sep",), ("sep", "cls"), "last"),
    # A eos B eos: the last token alone has seen everything. Also either side of T5, Marian and BlenderBot.
    "causal": Frame((), ("eos",), ("eos",), "last"),
    # <S> A </S> <S> B </S>
    "elmo": Frame(("bos",), ("eos", "bos"), ("eos",), "first"),
    # A B: what many classifiers over causal models of others were trained on.
    "bare": Frame((), (), (), "last"),
}
