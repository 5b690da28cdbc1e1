"""Translation word by word, by a dictionary that counting finds in aligned texts: what a translator must be better than.

C co-occurrences: a word of a source with a word of its target, as often as they stand in the same pair.
"""

import collections
import dataclasses
import unicodedata
from collections.abc import Iterable

import numpy as np

from elision.text.scripts import is_spaceless

# Word pairs that are counted at most: memory is some 60 bytes for each.
MAX_PAIRS = 6_000_000
NUM_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Dictionary:
    """The likeliest target word of every source word, t(e | f) of IBM model 1 (Brown et al. 1993, section 4.1).

    It leaves the order of the words as it is, and a word that it has never seen stands as it was.
    """

    words: dict[str, str]
    """target words by source words in lower case"""

    @staticmethod
    def fit(pairs: Iterable[tuple[str, str]]) -> "Dictionary":
        """Estimate it from (source, target) texts by a few rounds of expectation-maximisation, from equal chances on."""
        known: tuple[dict[str, int], dict[str, int]] = ({"": 0}, {})
        cases: collections.Counter[str] = collections.Counter()
        sources, targets, places = [], [], []
        num_pairs, num_targets = 0, 0
        for source, target in pairs:
            here, there = (words(text) for text in (source, target))
            cases.update(there)
            # The empty word is in every source: what target words come from that no source word asks for.
            ours = [0, *(known[0].setdefault(word.lower(), len(known[0])) for word in here)]
            theirs = [known[1].setdefault(word.lower(), len(known[1])) for word in there]
            sources.append(np.tile(ours, len(theirs)))
            targets.append(np.repeat(theirs, len(ours)))
            places.append(np.repeat(np.arange(num_targets, num_targets + len(theirs)), len(ours)))
            num_targets += len(theirs)
            num_pairs += len(ours) * len(theirs)
            if num_pairs > MAX_PAIRS:
                break
        if not num_pairs:
            return Dictionary({})
        source_C, target_C, place_C = (np.concatenate(parts) for parts in (sources, targets, places))
        keys, key_C = np.unique(source_C * len(known[1]) + target_C, return_inverse=True)
        of_key, written = np.divmod(keys, len(known[1]))
        chance = np.ones(len(keys))
        for _ in range(NUM_ROUNDS):
            share_C = chance[key_C]
            share_C /= np.bincount(place_C, share_C)[place_C]
            chance = np.bincount(key_C, share_C, len(keys))
            chance /= np.bincount(of_key, chance)[of_key]
        names = [list(each) for each in known]
        # A word is translated by words, a sign by signs.
        is_word = [np.array([any(letter.isalnum() for letter in name) for name in each]) for each in names]
        chance[is_word[0][of_key] != is_word[1][written]] = 0
        # The last of each source word's entries, in the order of their chances.
        order = np.lexsort((chance, of_key))
        last = np.flatnonzero(np.diff(of_key[order], append=-1))
        surface: dict[str, str] = {}
        for word, _ in cases.most_common():
            surface.setdefault(word.lower(), word)
        best = {names[0][of_key[at]]: surface[names[1][written[at]]] for at in order[last].tolist() if chance[at] > 0}
        best.pop("", None)
        return Dictionary(best)

    def __call__(self, text: str) -> str:
        """Return a text with every word looked up."""
        out, end = "", 0
        for word in words(text):
            at = text.index(word, end)
            found = self.words.get(word.lower(), word)
            if not out and word[:1].isupper():
                found = found[:1].upper() + found[1:]
            joins = out and _spaced(out[-1]) and _spaced(found[0])
            out += (" " if out and (at > end or joins) else "") + found
            end = at + len(word)
        return out


def words(text: str) -> list[str]:
    """Return the words of a text as they are written, and every other sign by itself.

    >>> words("Größe: 10,5 中文")
    ['Größe', ':', '10', ',', '5', '中', '文']
    """
    found: list[str] = []
    goes_on = False
    for letter in text:
        inside = unicodedata.category(letter)[0] in "LMN" and not is_spaceless(letter)
        if inside and goes_on:
            found[-1] += letter
        elif not letter.isspace():
            found.append(letter)
        goes_on = inside
    return found


def _spaced(letter: str) -> bool:
    return letter.isalnum() and not is_spaceless(letter)
