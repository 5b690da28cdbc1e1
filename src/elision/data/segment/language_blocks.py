"""Sentences of one language, with the symbol of that language at the end: the examples of mBART."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.segment.sentences import FullSentences, FullSentencesPlan
from elision.data.selection import Selection
from elision.data.store import Split
from elision.errors import InputError
from elision.text.language_symbols import language_symbols
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class LanguageBlocks:
    """<s> a </s> b </s> ne_NP: sentences in a row, each with its end, and behind them the symbol of their language.

    Liu et al. 2020, section 2.2, as in the released code. An example ends with its document. The symbols of languages
    are special symbols of the tokenizer (`language_symbols`); every document must declare its language.

    A worked example, with <s> 0, </s> 2, ne_NP 7 and a length of 8: the sentences 10 11 | 12 of a Nepali document become
    0 10 11 2 12 2 7.
    """

    max_length: int = 512
    """tokens in an example, special symbols included"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"cls", "sep"})
    num_labels: ClassVar[int] = 0
    num_types: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.max_length < 4:
            raise InputError(f"max_length is {self.max_length}: <s> x </s> and a language need at least 4")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "LanguageBlocksPlan":
        """Gather the sentences of every language by itself.

        Raises: InputError when documents declare no language, or the tokenizer has no symbol for one.
        """
        codes = split.language_codes
        present = np.unique(codes).tolist()
        if -1 in present or not present:
            raise InputError(
                f"{int((codes < 0).sum()):,} of {len(codes):,} documents in split {split.name!r} declare no language, which "
                f"LanguageBlocks ends every example with: prepare the text as `elision prepare en=en.txt ne=ne.txt ...`, or "
                f"with --reading.language or --reading.language-field"
            )
        symbols = language_symbols(vocabulary.symbols, [split.languages[code] for code in present])
        sentences = FullSentences(self.max_length - 1, cross_documents=False, end_sentences=True)
        plans = []
        for code, symbol in zip(present, symbols.values()):
            part = split if len(present) == 1 else Selection(split, np.flatnonzero(codes == code))
            plans.append((sentences.plan(part, vocabulary, seed, lookahead), symbol))
        return LanguageBlocksPlan(plans)


class LanguageBlocksPlan:
    """The examples of every language, one language after the other."""

    contiguous = False

    def __init__(self, parts: list[tuple[FullSentencesPlan, int]]):
        """Join the plans of the languages, each with the symbol of its language."""
        self._parts = parts
        self._firsts = np.append(0, np.cumsum([len(plan) for plan, _ in parts]))

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def example(self, index: int) -> Example:
        """Build example `index`: <s>, the sentences with </s> behind each, the language."""
        number = int(np.searchsorted(self._firsts, index, side="right")) - 1
        plan, symbol = self._parts[number]
        example = plan.example(index - int(self._firsts[number]))
        return Example(np.append(example.inputs, symbol), np.append(example.special, True))
