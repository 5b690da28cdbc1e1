"""How often each language is read: more often than its share of the text when it is small."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.order import shuffled, shuffled_epochs
from elision.data.segment import Plan, Segmenter, SourceTarget, TranslationPairs
from elision.data.selection import Selection
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary

# A round of the mixture has at least so many slots, so that rounding moves no language's share by more than 1e-5.
MIN_SLOTS = 1 << 16


@dataclasses.dataclass(frozen=True)
class LanguageMix:
    """Languages drawn with probability p ∝ q^alpha, where q is a language's share of the examples.

    Lample & Conneau 2019, section 3.1; Conneau et al. 2020, section 3. Counted in examples, as in the released code of
    XLM-R. Documents that declare no language together count as one.

    A worked example: 90 English and 10 Nepali examples with alpha 0.5 are read in the proportion √90 : √10 = 3 : 1.
    """

    alpha: float = 0.3
    """1 reads the text as it is, 0 every language equally often; XLM-R 0.3, XLM 0.7"""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"mixing.alpha is {self.alpha}: give a number from 0 (all languages equally) to 1 (as is)")

    def plan(
        self, segmenter: Segmenter, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0
    ) -> "MixedPlan":
        """Plan every language of the split by itself, so that no example holds two; of translations, every pair of them.

        Raises: InputError when no document of the store declares a language.
        """
        if not split.languages:
            raise InputError(
                f"mixing.alpha is {self.alpha}, but no document of the store {split.store.path} declares its language: "
                f"prepare it with `elision prepare en=en.txt ne=ne.txt ...` or `--reading.language-field FIELD`, or "
                f'leave the mixing out (in the file that --config reads: "mixing": null)'
            )
        if isinstance(segmenter, TranslationPairs | SourceTarget):
            parts = segmenter.plans(split, vocabulary)
            return MixedPlan(self, tuple("-".join(part.languages) for part in parts), parts)
        codes = split.language_codes
        present = np.unique(codes)
        names = tuple(split.languages[code] if code >= 0 else None for code in present)
        parts = tuple(
            segmenter.plan(Selection(split, np.flatnonzero(codes == code)), vocabulary, seed, lookahead)
            for code in present
        )
        return MixedPlan(self, names, tuple(map(OfOneLanguage, parts, present.tolist())))


@dataclasses.dataclass(frozen=True, eq=False)
class OfOneLanguage:
    """The examples of `plan`, which say that every token is of the language with the number `code`."""

    plan: Plan
    code: int
    contiguous: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.plan)

    def example(self, index: int) -> Example:
        """Build example `index`."""
        example = self.plan.example(index)
        return dataclasses.replace(example, languages=np.full(len(example), self.code))


class MixedPlan:
    """The plans of all languages, numbered one after the other, and the order in which a training reads them.

    A round has a slot for each example, or a multiple of that (`num_slots`); language l has round(num_slots * p_l) of
    them, which stand for successive places in the endless sequence of shuffled epochs of its own examples. A keyed
    shuffle deals the slots of a round out. So what any place of the order holds takes O(languages) memory and no state,
    and a round reads every example of a language equally often, give or take one epoch begun.
    """

    contiguous: ClassVar[bool] = False

    def __init__(self, settings: LanguageMix, languages: tuple[str | None, ...], parts: tuple[Plan, ...]):
        self.languages, self.parts = languages, parts
        self._sizes = np.array([len(part) for part in parts])
        self._firsts = np.append(0, np.cumsum(self._sizes))
        share = (self._sizes / self._sizes.sum()) ** settings.alpha
        self.shares = share / share.sum()
        """float64 [L], the probability of each language, in the order of `languages`"""
        self.num_slots = int(len(self) * -(-MIN_SLOTS // len(self)))
        self._bounds = np.round(self.num_slots * np.append(0, np.cumsum(self.shares))).astype(np.int64)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def example(self, index: int) -> Example:
        """Build example `index`, counted over all languages."""
        part = self.part_of(index)
        return self.parts[part].example(index - int(self._firsts[part]))

    def part_of(self, index: int) -> int:
        """Return which of `languages` example `index` is in."""
        return int(np.searchsorted(self._firsts, index, side="right")) - 1

    def order(self, places: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (epochs, indices), int64 each: what the endless mixture of seed `seed` holds at `places`.

        An epoch is that of the example's own language: the same example has another one each time it is read.
        """
        rounds, slots = np.divmod(places, self.num_slots)
        epochs, indices = np.empty_like(slots), np.empty_like(slots)
        for number in np.unique(rounds):
            chosen = rounds == number
            slots[chosen] = shuffled(slots[chosen], self.num_slots, seed, "languages", int(number))
        part = np.searchsorted(self._bounds, slots, side="right") - 1
        # How many examples of its language were dealt slots before it.
        turns = rounds * (self._bounds[part + 1] - self._bounds[part]) + slots - self._bounds[part]
        for number in np.unique(part):
            chosen, size = part == number, int(self._sizes[number])
            epochs[chosen], within = shuffled_epochs(turns[chosen], size, seed, "language", int(number))
            indices[chosen] = self._firsts[number] + within
        return epochs, indices
