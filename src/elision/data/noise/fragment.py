"""A fragment of a sentence left out, which the decoder restores from what is around it: MASS's noise."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.noise.settings import check_fates, check_share
from elision.data.noise.tokens import rewrite_tokens
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def fragment_length(length: int, rate: float) -> int:
    """Return how many of `length` tokens are left out: at least one, and never the first of all."""
    return min(max(1, round(rate * length)), max(length - 1, 0))


def draw_start(length: int, size: int, edge_share: float, rng: np.random.Generator) -> int:
    """Return where a fragment of `size` tokens begins: at the first place that may be left out (1) with probability
    `edge_share`, as late as it fits with the same, else anywhere between, both ends included.
    """
    fate, last = rng.random(), length - size
    if fate < edge_share:
        return 1
    return last if fate < 2 * edge_share else int(rng.integers(1, last + 1))


@dataclasses.dataclass(frozen=True)
class Fragment:
    """MASS's noise: one fragment, half of the tokens in a row, is hidden from the encoder; the decoder restores it.

    Song et al. 2019, section 3, as in the released code of the translation experiments. In the encoder the fragment's
    tokens become the mask (80 %), a random token (10 %) or stay (10 %), and whoever restores them may not look at the
    places that hold the mask. The decoder reads only the tokens that precede each restored one, at their places in the
    sentence. The first token is never left out; a fragment lies at the beginning in 20 % of the examples, at the end
    in 20 %, else anywhere. One token (`rate` 0) is like BERT; all but the first (`rate` 1) is a language model.

    A worked example, with mask 4: of 2 10 11 12 13 3 the fragment 11 12 13 is left out: inputs 2 10 4 4 4 3, where the 4
    are unseen, decoder inputs 10 11 12 at the positions 1 2 3, targets 11 12 13.
    """

    rate: float = 0.5
    """share of the tokens of an example that the fragment has, at least one token"""
    edge_share: float = 0.2
    """share of the fragments that lie at the very beginning, and share of those at the very end"""
    mask_share: float = 0.8
    """share of the fragment's tokens that become the mask in the encoder"""
    random_share: float = 0.1
    """share of them that become a random token there; the rest stay as they are"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    restores: ClassVar[str] = "sequence"
    lookahead: ClassVar[int] = 0
    sets_decoder: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share(self, "rate")
        check_fates(self)
        if not 0 <= self.edge_share <= 0.5:
            raise InputError(f"edge_share is {self.edge_share}: both ends together are at most 1, give 0 to 0.5")

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def lengths(self, length: int) -> tuple[int, int]:
        """Return the most inputs and the most tokens to write of an example of `length` tokens."""
        return length, fragment_length(length, self.rate)

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with the fragment hidden, and with decoder inputs, their positions and targets.

        Raises: InputError when an example is a single token, or holds documents that must not see each other.
        """
        if len(example) < 2:
            raise InputError("an example is a single token, of which nothing can be left out: use longer examples")
        if example.doc_ids is not None:
            raise InputError(
                "a fragment may not reach over documents that must not see each other: set segmenter.cross_documents "
                "to True, or use a segmenter whose examples are of one document"
            )
        size = fragment_length(len(example), self.rate)
        left_out = draw_start(len(example), size, self.edge_share, rng) + np.arange(size)
        inputs = rewrite_tokens(
            example.inputs, left_out, vocabulary.mask, vocabulary.size, self.mask_share, self.random_share, rng
        )
        before = left_out - 1
        return dataclasses.replace(
            example,
            inputs=inputs,
            unseen=inputs == vocabulary.mask,
            decoder_inputs=example.inputs[before].astype(np.int64),
            decoder_positions=before if example.positions is None else example.positions[before],
            decoder_languages=None if example.languages is None else example.languages[before],
            targets=example.inputs[left_out].astype(np.int64),
            summary=size - 1,
        )
