"""Two endless streams of words, one read forward and one backward: the segmenter of ELMo."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.order import shuffled
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class TokenStreams:
    """ELMo's examples: a window of a stream that is read forward, beside one of a stream that is read backward.

    Each stream holds all documents, shuffled on its own, sentence after sentence. A sentence is predicted between <S>
    and </S>: the forward reader reads <S> and the words, the backward one </S> and the words, each stops before the
    symbol that it is to predict last. Example n + 1 goes on where example n ends, in both streams, so that states can be
    carried over; the second window runs from the end of its stream to the start.

    A worked example with max_length 6 (and the one token more at the far end of each window that a noise may look at):
    the sentences 10 11 and 12 13, which both streams happen to hold in this order, give <S> 10 11 (<S>) beside
    (</S>) 12 13 </S>, and then <S> 12 13 ... beside ... 10 11 </S>.
    """

    max_length: int = 40
    """tokens in an example, half of them of each stream: states are unrolled over that half"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"bos", "eos"})
    num_labels: ClassVar[int] = 0
    num_types: ClassVar[int] = 0
    two_streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise InputError(f"max_length is {self.max_length}: each of the two windows needs a token, give at least 2")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "TokenStreamPlan":
        """Lay out both streams; `lookahead` is what both windows together hand over besides."""
        return TokenStreamPlan(self, split, vocabulary, seed, lookahead)


class TokenStreamPlan:
    """Windows by arithmetic: 16 bytes for each document and stream, 8 for each sentence."""

    contiguous = True

    def __init__(self, settings: TokenStreams, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int):
        assert lookahead % 2 == 0
        self._window, self._extra = settings.max_length // 2, lookahead // 2
        self._split = split
        self._bos, self._eos = vocabulary.require("bos"), vocabulary.require("eos")
        # Where each sentence starts when it has one symbol more than words.
        self._sentences = split.sentence_starts + np.arange(split.num_sentences + 1)
        self._orders = [_order(split.num_documents, seed, name) for name in ("forward stream", "backward stream")]
        bounds = self._sentences[split.document_sentences]
        self._starts = [np.concatenate([[0], np.cumsum(np.diff(bounds)[order])]) for order in self._orders]
        self._size = int(self._sentences[-1])
        if self._size <= self._window + self._extra:
            raise InputError(
                f"split {split.name!r} of the store holds {self._size} words, but a window of the stream needs "
                f"{self._window + self._extra + 1}: prepare a larger corpus, or lower segmenter.max_length"
            )

    def __len__(self) -> int:
        return (self._size - self._extra) // self._window

    def example(self, index: int) -> Example:
        """Build example `index`: document 1 is the forward window, document 2 the backward one."""
        begin, end = index * self._window, (index + 1) * self._window + self._extra
        forward = self._read(0, begin, end)
        backward = self._read(1, self._size - end, self._size - begin)
        inputs = np.concatenate([forward, backward])
        doc_ids = np.repeat([1, 2], end - begin)
        return Example(inputs, (inputs == self._bos) | (inputs == self._eos), doc_ids=doc_ids)

    def _read(self, stream: int, begin: int, end: int) -> np.ndarray:
        """Return tokens begin ... end - 1 of a stream in the order of the text."""
        order, starts, split = self._orders[stream], self._starts[stream], self._split
        parts = []
        document = int(np.searchsorted(starts, begin, side="right")) - 1
        while begin < end:
            stop = min(end, int(starts[document + 1]))
            # The same stretch as places of the split, with a symbol for each sentence.
            shift = int(self._sentences[split.document_sentences[order[document]]] - starts[document])
            first, last = begin + shift, stop + shift
            sentence = int(np.searchsorted(self._sentences, first, side="right")) - 1
            stop_sentence = int(np.searchsorted(self._sentences, last, side="left"))
            if stream == 0:
                symbols = self._sentences[sentence:stop_sentence]
            else:
                symbols = self._sentences[sentence + 1 : stop_sentence + 1] - 1
            inside = symbols[(symbols >= first) & (symbols < last)] - first
            tokens = np.full(last - first, (self._bos, self._eos)[stream], np.int64)
            is_word = np.ones(last - first, bool)
            is_word[inside] = False
            # A word's place in the split is its place in the stream less the symbols before it.
            before = sentence + (stream == 0 and int(self._sentences[sentence]) < first)
            num_words = int(is_word.sum())
            if num_words:
                tokens[is_word] = split.tokens(first - before, first - before + num_words)
            parts.append(tokens)
            begin, document = stop, document + 1
        return np.concatenate(parts)


def _order(num_documents: int, seed: int, name: str) -> np.ndarray:
    return shuffled(np.arange(num_documents), num_documents, seed, name)
