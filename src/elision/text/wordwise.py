"""Encoding a corpus word by word: each distinct word goes through the encoder once, after that its ids are copied.

Nine in ten words of a text have been seen before. Tokenizers that never look across white space give a word the same ids
wherever it stands, and copying them is several times faster than finding them again.
"""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elision.text.trained import Tokenizer

# When the table is full it starts anew; together these bound it to about 100 MB.
MAX_WORDS = 1 << 18
MAX_CHARACTERS = 1 << 24

# Python takes these four for white space, Unicode does not.
_NO_SPACE = "\x1c-\x1f"
# What GPT-2's rule cannot see across: one space belongs to the word behind it, all other white space to itself.
_SPACED_WORD = re.compile(rf" ?[\S{_NO_SPACE}]+|[^\S{_NO_SPACE}]+(?![\S{_NO_SPACE}])|[^\S{_NO_SPACE}]")
# BERT's clean-up removes these and joins what stands on both sides, where Python splits.
_REMOVED_SPACE = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
_PLAIN_WORD = re.compile(r"[^ \n\t]+")
# The same rules within a word of printable ASCII; other words are not cut.
_ASCII_SPACED_PART = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")
_ASCII_PLAIN_PART = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")
# What these do to a character depends at most on its neighbours within the word.
_WITHIN_WORDS = frozenset(
    ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents", "Replace")
)
_WITHIN_WORDS_REPLACED = (
    {"Regex": " {2,}"},
    {"Regex": "[\u00a0\u2000-\u200a\u202f\u205f\u3000]"},
    {"Regex": b"(?<=[\\p{Latin}\\p{Greek}])[\\u0300-\\u036f]+".decode("unicode_escape")},
)


def encoder(tokenizer: Tokenizer) -> "WordEncoder | TextEncoder":
    """Return the fastest way to encode a corpus with `tokenizer`; both ways give the ids of `encode_batch`."""
    rules = _rules(json.loads(tokenizer.raw.to_str()))
    if rules is None:
        return TextEncoder(tokenizer)
    words, parts = rules
    # New words are often old ones with a bracket or a comma: cut finer, they too are mostly known.
    return WordEncoder(WordEncoder(TextEncoder(tokenizer), parts), words)


class TextEncoder:
    """Encodes texts one by one, with any tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts in a row (uint32) and the number of ids of each (int64)."""
        encodings = self._tokenizer.encodings(texts)
        lengths = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
        every = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
        return np.fromiter(every, dtype=np.uint32, count=int(lengths.sum())), lengths


class WordEncoder:
    """Cuts texts into `words` that the tokenizer treats each for itself; remembers the ids of all, encodes new ones."""

    def __init__(self, new_words: "WordEncoder | TextEncoder", words: Callable[[str], list[str]]):
        self._new_words = new_words
        self._words = words
        self._forget()

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts in a row (uint32) and the number of ids of each (int64)."""
        if len(self._numbers) > MAX_WORDS or self._numbers.num_characters > MAX_CHARACTERS:
            self._forget()
        words: list[str] = []
        text_ends = [0]
        for text in texts:
            words += self._words(text)
            text_ends.append(len(words))
        numbers = np.fromiter(map(self._numbers.__getitem__, words), dtype=np.int64, count=len(words))
        self._learn()
        lengths = self._lengths[numbers]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        # The place of every id in the table: where its word starts there, plus how far into the word it is.
        places = np.repeat(self._starts[numbers] - ends[:-1], lengths)
        places += np.arange(len(places))
        return self._ids[places], np.diff(ends[text_ends])

    def _learn(self) -> None:
        """Encode the words that were numbered since the last call."""
        ids, lengths = self._new_words.encode(self._numbers.fresh)
        starts = len(self._ids) + np.cumsum(lengths) - lengths
        self._ids = np.concatenate([self._ids, ids])
        self._starts = np.concatenate([self._starts, starts])
        self._lengths = np.concatenate([self._lengths, lengths])
        self._numbers.num_characters += sum(map(len, self._numbers.fresh))
        self._numbers.fresh.clear()

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._ids = np.empty(0, dtype=np.uint32)
        self._starts = np.empty(0, dtype=np.int64)
        self._lengths = np.empty(0, dtype=np.int64)


class _Numbers(dict):
    """Numbers each word that it is asked for, in the order of first appearance."""

    def __init__(self):
        self.fresh: list[str] = []
        self.num_characters = 0

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self.fresh.append(word)
        return number


_Cut = Callable[[str], list[str]]


def _rules(description: dict[str, Any]) -> tuple[_Cut, _Cut] | None:
    """Return functions that cut a text, and a word of it, where this tokenizer cannot see across; None without such."""
    normalizer, before, model = (description[part] or {} for part in ("normalizer", "pre_tokenizer", "model"))
    if any(not token["special"] for token in description["added_tokens"]) or model.get("dropout"):
        return None
    if before.get("type") == "ByteLevel":
        whole = normalizer or before["add_prefix_space"] or not before["use_regex"]
        return None if whole else (_SPACED_WORD.findall, _spaced_parts)
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    for step in steps:
        if step["type"] not in _WITHIN_WORDS or (
            step["type"] == "Replace" and step["pattern"] not in _WITHIN_WORDS_REPLACED
        ):
            return None
    if before.get("type") == "BertPreTokenizer":
        return _plain_words, _plain_parts
    if before.get("type") == "Metaspace" and before["prepend_scheme"] == "always" and before["split"]:
        return (_stripped_words, _whole) if any(step["type"] == "Nmt" for step in steps) else None
    return None


def _plain_words(text: str) -> list[str]:
    # str.split is twice as fast as the expression, and what they differ in hardly ever occurs.
    return text.split() if _REMOVED_SPACE.search(text) is None else _PLAIN_WORD.findall(text)


def _stripped_words(text: str) -> list[str]:
    # Strip removes this one only at the ends of a text, where a word's end must not be taken for one.
    return [text] if "\x85" in text else _PLAIN_WORD.findall(text)


def _plain_parts(word: str) -> list[str]:
    return _ASCII_PLAIN_PART.findall(word) if word.isascii() and word.isprintable() else [word]


def _spaced_parts(word: str) -> list[str]:
    return _ASCII_SPACED_PART.findall(word) if word.isascii() and word.isprintable() else [word]


def _whole(word: str) -> list[str]:
    return [word]
