"""BART's noises: five ways to spoil a text that is then to be written anew, alone or one after the other."""

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np

from elision.data.example import Example
from elision.data.noise.infilling import kept_beside, most_empty, pick_infilled, span_size_probabilities
from elision.data.noise.sentence_permutation import pick_sentence_order, sentence_bounds
from elision.data.noise.settings import check_share
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def pick_share(num_tokens: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw ceil(share * num_tokens) of the places 0 ... num_tokens - 1, each set equally likely; in random order."""
    return rng.permutation(num_tokens)[: math.ceil(round(share * num_tokens, 9))]


def pick_rotation(num_tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Return the places in the order of a text that begins anywhere: int64 [num_tokens].

    The offset is uniform over 0 ... num_tokens, so that both ends, which change nothing, can be drawn.
    """
    return rotated(num_tokens, int(rng.integers(0, num_tokens + 1)))


def rotated(num_tokens: int, offset: int) -> np.ndarray:
    """Return the places in the order of a text that begins with place `offset` and ends with the one before it.

    >>> rotated(5, 2)
    array([2, 3, 4, 0, 1])
    """
    return np.roll(np.arange(num_tokens), -offset)


def rewrite_inserted(tokens: np.ndarray, places: np.ndarray, inserted: np.ndarray) -> np.ndarray:
    """Return the tokens with others between them, which then stand at `places` of the longer text.

    >>> rewrite_inserted(np.array([10, 11, 12]), np.array([3, 0]), np.array([4, 99]))
    array([99, 10, 11,  4, 12])
    """
    longer = np.zeros(len(tokens) + len(places), tokens.dtype)
    old = np.ones(len(longer), bool)
    old[places] = False
    longer[places], longer[old] = inserted, tokens
    return longer


@dataclasses.dataclass(frozen=True)
class Denoising:
    """BART's noise: sentences in another order, spans of words behind one mask each; the clean text is to be written.

    Lewis et al. 2020, section 2.2, as in the released code. The noises follow each other in the order of the fields;
    the defaults are those of the paper's models, and a share of 0 leaves one out. The symbols at both ends of an example
    (<s>, </s>, a language) stay where they are; those between sentences are words like any other.

    Infilling draws spans until their sizes sum to ceil(infill * words), empty ones not counted; spans may overlap, so of
    510 words at 0.3 about 26.7 % are left out, behind 40 masks, and 2.6 more masks are inserted. At most half as
    many masks are inserted as there are words to leave out, which only means below 1 come to; with a mean of 0 there is
    nothing else. Words are counted by where they begin; in scripts without spaces every symbol is one.

    A worked example, with mask id 4 and "." 9: <s> 10 11 9 12 13 9 </s> has two sentences. Exchanged they are
    12 13 9 10 11 9; a span of two words from 13 on and an empty one give <s> 12 4 10 4 11 9 </s>. The answer is
    <s> 10 11 9 12 13 9 </s>.
    """

    permute_sentences: float = 1.0
    """share of the sentences that trade places, rounded up"""
    infill: float = 0.3
    """share of the words that spans are drawn for, rounded up; each span becomes one mask"""
    mean_words: float = 3.0
    """mean size of a span: of a Poisson distribution (lambda)"""
    mask: float = 0.0
    """share of the tokens that become a mask, rounded up"""
    delete: float = 0.0
    """share of the tokens that are left out without a trace, rounded up"""
    insert: float = 0.0
    """as many masks are put between the tokens, as a share of all of them, rounded up"""
    rotate: float = 0.0
    """probability that the text begins at a random place and its beginning comes last"""
    random_share: float = 0.1
    """share of the masks that become a random token (any but id 0) instead"""
    sentence_end: Literal["full stop", "separator"] = "full stop"
    """what ends a sentence: a lone full stop, whatever follows ("?" and "!" do not), or the separator </s>"""

    restores: ClassVar[str] = "sequence"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for name in ("permute_sentences", "infill", "mask", "delete", "insert", "rotate", "random_share"):
            check_share(self, name)
        if not 0 <= self.mean_words <= 100:
            raise InputError(f"mean_words is {self.mean_words}: it is the mean size of a span, give 0 to 100 words")

    @property
    def needs_roles(self) -> frozenset[str]:
        """The symbols that it puts in."""
        return frozenset({"mask"} if self.infill or self.mask or self.insert else ())

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol, or what ends a sentence."""
        for role in self.needs_roles:
            vocabulary.require(role)
        if not self.permute_sentences:
            return
        if self.sentence_end == "separator":
            vocabulary.require("sep")
        elif vocabulary.full_stop is None or not vocabulary.full_stop.any():
            raise InputError(
                'The tokenizer has no symbol for a full stop (".", "。", "।" ...), which noise.sentence_end "full stop" '
                'finds sentences by: set it to "separator" with a segmenter that ends sentences so, or '
                "noise.permute_sentences to 0"
            )

    def lengths(self, length: int) -> tuple[int, int]:
        """Return the most inputs and the most answer tokens that an example of `length` tokens can become."""
        longest = length + most_empty(math.ceil(round(self.infill * length, 9)))
        return longest + math.ceil(round(self.insert * longest, 9)), length

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the spoilt example, whose answer is the example as it was."""
        first, last = int(example.special[0]), len(example) - int(example.special[-1])
        # Of the text within the frame: tokens, where they come from (or what they stand in for), where words begin.
        place = np.arange(first, last)
        tokens = example.inputs[place].astype(np.int64)
        begins_word = self._begins_word(tokens, example.special[place], vocabulary)

        if self.permute_sentences:
            bounds = sentence_bounds(self._ends_sentence(tokens, vocabulary))
            order = pick_sentence_order(bounds, self.permute_sentences, rng)
            order = np.append(order, np.arange(len(order), len(tokens)))
            tokens, place, begins_word = tokens[order], place[order], begins_word[order]
        if self.infill:
            spans, num_empty = pick_infilled(begins_word, self.infill, span_size_probabilities(self.mean_words), rng)
            tokens[spans[:, 0]] = self._stand_ins(len(spans), vocabulary, rng)
            kept = kept_beside(spans, len(tokens))
            tokens, place = self._with_inserts(tokens[kept], place[kept], num_empty, vocabulary, rng)
        if self.mask:
            picked = pick_share(len(tokens), self.mask, rng)
            tokens[picked] = self._stand_ins(len(picked), vocabulary, rng)
        if self.delete:
            picked = pick_share(len(tokens), self.delete, rng)
            tokens, place = np.delete(tokens, picked), np.delete(place, picked)
        if self.insert:
            # The released code counts the symbols at the ends, too.
            num_symbols = len(example) - (last - first)
            num_inserts = math.ceil(round(self.insert * (len(tokens) + num_symbols), 9))
            tokens, place = self._with_inserts(tokens, place, num_inserts, vocabulary, rng)
        if self.rotate and rng.random() < self.rotate:
            order = pick_rotation(len(tokens), rng)
            tokens, place = tokens[order], place[order]

        place = np.concatenate([np.arange(first), place, np.arange(last, len(example))])
        inputs = np.concatenate([example.inputs[:first], tokens, example.inputs[last:]])
        return Example(
            inputs,
            example.special[place] & (inputs == example.inputs[place]),
            languages=None if example.languages is None else example.languages[place],
            answer=example.inputs.astype(np.int64),
            decoder_languages=example.languages,
            label=example.label,
            summary=len(example) - 1,
        )

    def _begins_word(self, tokens: np.ndarray, special: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
        """Return bool [n]: where words begin; after a symbol one always does, and so does every one without spaces."""
        begins = ~vocabulary.continues_word[tokens] | np.append(True, special[:-1])[: len(tokens)]
        return begins if vocabulary.spaceless is None else begins | vocabulary.spaceless[tokens]

    def _ends_sentence(self, tokens: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
        if self.sentence_end == "separator":
            return tokens == vocabulary.require("sep")
        return np.zeros(len(tokens), bool) if vocabulary.full_stop is None else vocabulary.full_stop[tokens]

    def _stand_ins(self, size: int, vocabulary: Vocabulary, rng: np.random.Generator) -> np.ndarray:
        """Return what comes in place of tokens: masks, and each with `random_share` a random token. int64 [size]."""
        stand_ins = np.full(size, vocabulary.require("mask"), np.int64)
        random = np.flatnonzero(rng.random(size) < self.random_share)
        stand_ins[random] = rng.integers(1, vocabulary.size, len(random))
        return stand_ins

    def _with_inserts(
        self, tokens: np.ndarray, place: np.ndarray, size: int, vocabulary: Vocabulary, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and places with `size` masks between them, ceil(size * random_share) of them random tokens."""
        if not size:
            return tokens, place
        inserted = np.full(size, vocabulary.require("mask"), np.int64)
        num_random = math.ceil(round(size * self.random_share, 9))
        inserted[:num_random] = rng.integers(1, vocabulary.size, num_random)
        at = np.sort(rng.permutation(len(tokens) + size)[:size])
        # What was inserted is of the language of the token that it stands before, or of the last one.
        beside = place[np.minimum(at - np.arange(size), len(place) - 1)] if len(place) else np.zeros(size, np.int64)
        return rewrite_inserted(tokens, at, rng.permutation(inserted)), rewrite_inserted(place, at, beside)
