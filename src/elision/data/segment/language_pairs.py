"""Translations whose sides end with the symbol of their language: what mBART is taught to translate with."""

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from elision.data.example import Example
from elision.data.segment.source_target import SourceTarget, SourceTargetPlan
from elision.data.store import Split
from elision.errors import InputError
from elision.text.language_symbols import language_symbols
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class LanguagePairs(SourceTarget):
    """a </s> ne_NP is read and b </s> en_XX written, whose decoder begins with en_XX.

    Liu et al. 2020, section 3.1, as in the released code. The symbols of languages are special symbols of the tokenizer
    (`language_symbols`).

    A worked example, with </s> 2, ne_NP 7 and en_XX 8: the pair 10 11 | 20 has the inputs 10 11 2 7 and the answer 20 2 8.
    """

    frame: Literal["causal"] = "causal"
    """either side is A </s>, and the symbol of its language"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"eos"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.longest) < 3:
            raise InputError(
                f"max_length and max_answer_length are {self.longest}: a token, </s> and a language need 3"
            )

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "LanguagePairsPlan":
        """Plan all pairs of the split.

        Raises: InputError when it holds none, none short enough, or a language that has no symbol.
        """
        return LanguagePairsPlan(self._unmarked().plan(split, vocabulary, seed), self._symbols(split, vocabulary))

    def plans(self, split: Split, vocabulary: Vocabulary) -> "tuple[LanguagePairsPlan, ...]":
        """Plan the pairs of every two languages by themselves. Raises: as `plan` does."""
        symbols = self._symbols(split, vocabulary)
        return tuple(LanguagePairsPlan(plan, symbols) for plan in self._unmarked().plans(split, vocabulary))

    def _unmarked(self) -> SourceTarget:
        """Return what cuts the sides so that there is room for a language behind each."""
        most_source, most_answer = self.longest
        return SourceTarget(most_source - 1, most_answer - 1, self.too_long, self.both_directions, "causal")

    def _symbols(self, split: Split, vocabulary: Vocabulary) -> np.ndarray:
        """Return the symbol of each language of the store by its number; -1 for those of no pair."""
        first = np.asarray(split.pair_starts)
        present = np.unique(np.concatenate([split.language_codes[first], split.language_codes[first + 1]])).tolist()
        if -1 in present:
            raise InputError(
                f"pairs in split {split.name!r} declare no languages, which LanguagePairs ends every side with: prepare them "
                f"with --languages, as in `elision prepare --parallel train.ne train.en --languages ne en`"
            )
        found = language_symbols(vocabulary.symbols, [split.languages[code] for code in present])
        symbols = np.full(len(split.languages), -1)
        symbols[present] = list(found.values())
        return symbols


class LanguagePairsPlan:
    """Pairs of documents, the one read and the other written, each with its language behind it."""

    contiguous = False

    def __init__(self, pairs: SourceTargetPlan, symbols: np.ndarray):
        """Mark the sides of `pairs`; symbols: int [L], that of each language."""
        self._pairs, self._symbols = pairs, symbols

    @property
    def languages(self) -> tuple[str, str]:
        """The languages of the sides of the first pair."""
        return self._pairs.languages

    def __len__(self) -> int:
        return len(self._pairs)

    def example(self, index: int) -> Example:
        """Build example `index`."""
        example = self._pairs.example(index)
        read, written = example.languages, example.decoder_languages
        return dataclasses.replace(
            example,
            inputs=np.append(example.inputs, self._symbols[read[-1]]),
            special=np.append(example.special, True),
            languages=np.append(read, read[-1]),
            answer=np.append(example.answer, self._symbols[written[-1]]),
            decoder_languages=np.append(written, written[-1]),
            summary=example.summary + 1,
        )
