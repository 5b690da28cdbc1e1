"""BERT's sentence pairs."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.order import generator
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary

# Plans walk documents side by side, one example of each at a time. A document of more sentences than this is planned
# in sections, so that one enormous document cannot make the walk long; a section ends like a document does.
SECTION_SENTENCES = 4096


@dataclasses.dataclass(frozen=True)
class SentencePairs:
    """BERT's pairs: [CLS] A [SEP] B [SEP], where B follows A in the text or comes from another document.

    Devlin et al. 2019, section 3.1 (next-sentence prediction), built as in the released code: sentences of one document
    are gathered until they fill the target length (once per document, with `short_probability`, a length drawn from 2
    up to the full one); a random number of them are A. With probability `random_probability`, or when there is only
    one sentence, B is a stretch of another document, and the sentences of A's document that were not used go back. So
    random pairs (label 1) are a little more than half. Pairs that are too long lose tokens of the longer side, from
    either end at random.

    One departure: an epoch holds `passes` differently drawn passes over the text; the released code then repeats the
    same masks, here each epoch draws new ones.
    """

    max_length: int = 128
    """tokens in an example, special symbols included"""
    short_probability: float = 0.1
    """share of the documents (per pass) that aim at a random shorter length"""
    random_probability: float = 0.5
    """probability that B comes from another document even though the right one is there"""
    passes: int = 10
    """how many times an epoch goes over the text, with other draws each time (`dupe_factor` of the released code)"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"cls", "sep"})
    num_labels: ClassVar[int] = 2
    label: ClassVar[str] = "next"
    label_meanings: ClassVar[tuple[str, ...]] = (
        "Does B follow A? Yes: B is what comes next in the text",
        "Does B follow A? No: B was drawn from elsewhere",
    )
    num_types: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.max_length < 5:
            raise InputError(f"max_length is {self.max_length}: [CLS] A [SEP] B [SEP] needs at least 5")
        if self.passes < 1:
            raise InputError(f"passes is {self.passes}: it must be at least 1")
        for name in ("short_probability", "random_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: it is a probability, give a number from 0 to 1")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "SentencePairPlan":
        """Draw the pairs of all passes over `split`."""
        assert lookahead == 0
        return SentencePairPlan(self, split, vocabulary, seed)


class SentencePairPlan:
    """All pairs of a split, as offsets into its sentences: 21 bytes an example.

    swap_probability: how often A and B that follow each other change places, with label 1. lone_sentences: whether a
    sentence that finds no other of its document is paired with one from elsewhere, or makes no example.
    """

    contiguous = False

    def __init__(
        self,
        settings: SentencePairs,
        split: Split,
        vocabulary: Vocabulary,
        seed: int,
        swap_probability: float = 0.0,
        lone_sentences: bool = True,
    ):
        if split.num_sentences == 0:
            raise InputError(f"split {split.name!r} of the store holds no text: prepare a larger corpus")
        self._settings, self._split, self._seed = settings, split, seed
        self._cls, self._sep = vocabulary.require("cls"), vocabulary.require("sep")
        first, num_a, b_first, num_b, odd = self._draw()
        if not lone_sentences:
            first, num_a, b_first, num_b, odd = (column[~odd] for column in (first, num_a, b_first, num_b, odd))
            if not len(first):
                raise InputError(
                    f"split {split.name!r} of the store has no document from which two sentences fit into max_length "
                    f"{settings.max_length}: prepare longer documents, or raise it"
                )
        if swap_probability:
            swapped = ~odd & (generator(seed, "sentence pairs: swaps").random(len(odd)) < swap_probability)
            first, b_first = np.where(swapped, b_first, first), np.where(swapped, first, b_first)
            num_a, num_b = np.where(swapped, num_b, num_a), np.where(swapped, num_a, num_b)
            odd = odd | swapped
        self._first, self._num_a = first, np.minimum(num_a, 65535).astype(np.uint16)
        self._b_first, self._num_b = b_first, np.minimum(num_b, 65535).astype(np.uint16)
        self._odd = odd

    def __len__(self) -> int:
        return len(self._first)

    def _draw(self) -> tuple[np.ndarray, ...]:
        """Return first sentence and number of sentences of A, those of B, and whether B is random, for every pair.

        Walk all documents of all passes side by side; each turn of the loop takes one example from each.
        """
        settings, split = self._settings, self._split
        room = settings.max_length - 3
        token_at = split.sentence_starts
        first, last, document = sections(split)
        count = len(first)
        first, last, document = (np.tile(values, settings.passes) for values in (first, last, document))
        rng = generator(self._seed, "sentence pairs: lengths")
        target = np.full(len(first), room)
        short = rng.random(len(first)) < settings.short_probability
        target[short] = rng.integers(2, room + 1, int(short.sum()))
        pieces: list[tuple[np.ndarray, ...]] = []
        walk = np.arange(len(first))
        turn = 0
        while len(walk):
            rng = generator(self._seed, "sentence pairs: pairs", turn)
            start, goal, doc = first[walk], target[walk], document[walk]
            end = np.minimum(np.searchsorted(token_at, token_at[start] + goal), last[walk])
            num_a = 1 + np.floor(rng.random(len(walk)) * np.maximum(end - start - 1, 1)).astype(np.int64)
            random = (end - start == 1) | (rng.random(len(walk)) < settings.random_probability)
            b_first, b_last = start + num_a, end.copy()
            size_a = token_at[start + num_a] - token_at[start]
            other = self._random_sentence(doc, start + num_a, rng)
            b_first[random] = other[random]
            other_end = split.document_sentences[np.searchsorted(split.document_sentences, other, side="right")]
            wanted = token_at[other] + np.maximum(goal - size_a, 1)
            b_last[random] = np.minimum(np.searchsorted(token_at, wanted), other_end)[random]
            pieces.append((start, num_a, b_first, b_last - b_first, random))
            # Sentences of a document that a random B displaced are used for its next example.
            first[walk] = np.where(random, start + num_a, end)
            walk = walk[first[walk] < last[walk]]
            turn += 1
        assert count
        return tuple(np.concatenate(column) for column in zip(*pieces))

    def _random_sentence(self, document: np.ndarray, follower: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a sentence of another document for each entry; the released code tries ten times, this is exact."""
        split = self._split
        num_documents = split.num_documents
        draw = rng.random((2, len(document)))
        if num_documents > 1:
            other = np.floor(draw[0] * (num_documents - 1)).astype(np.int64)
            other += other >= document
            begin = split.document_sentences[other]
            return begin + np.floor(draw[1] * (split.document_sentences[other + 1] - begin)).astype(np.int64)
        # A corpus of one document: any of its sentences but the one that truly follows.
        sentence = np.floor(draw[1] * split.num_sentences).astype(np.int64)
        return np.where(sentence == follower, (sentence + 1) % split.num_sentences, sentence)

    def example(self, index: int) -> Example:
        """Build pair `index`: cut it to length, frame it with [CLS] and [SEP], label 1 where B is random or swapped with A."""
        starts, split = self._split.sentence_starts, self._split
        a_first, b_first = self._first[index], self._b_first[index]
        a_begin, a_end = starts[a_first], starts[a_first + int(self._num_a[index])]
        b_begin, b_end = starts[b_first], starts[b_first + int(self._num_b[index])]
        rng = generator(self._seed, "sentence pairs: cuts", index)
        a_begin, a_end, b_begin, b_end = cut_pair(a_begin, a_end, b_begin, b_end, self._settings.max_length - 3, rng)
        size_a, size_b = int(a_end - a_begin), int(b_end - b_begin)
        inputs = np.empty(size_a + size_b + 3, np.int64)
        inputs[0], inputs[size_a + 1], inputs[-1] = self._cls, self._sep, self._sep
        inputs[1 : size_a + 1] = split.tokens(int(a_begin), int(a_end))
        inputs[size_a + 2 : -1] = split.tokens(int(b_begin), int(b_end))
        special = np.zeros(len(inputs), bool)
        special[[0, size_a + 1, -1]] = True
        type_ids = np.zeros(len(inputs), np.int64)
        type_ids[size_a + 2 :] = 1
        return Example(inputs, special, type_ids=type_ids, label=int(self._odd[index]))


def cut_pair(
    a_begin: int, a_end: int, b_begin: int, b_end: int, room: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Shorten two stretches until together they have at most `room` tokens; returns the four new offsets.

    One token at a time goes from the longer stretch (from B when they are equal), from its front or its back with equal
    probability, as in the BERT code; here the counts come from arithmetic and the fronts from a binomial draw.

    A worked example: A of 5 and B of 2 tokens with room for 5 leaves A 3, B 2; with room for 3, A 2, B 1.
    """
    size_a, size_b = a_end - a_begin, b_end - b_begin
    excess = size_a + size_b - room
    if excess <= 0:
        return a_begin, a_end, b_begin, b_end
    from_longer = min(excess, abs(size_a - size_b))
    rest = excess - from_longer
    drop_a = rest // 2 + (from_longer if size_a > size_b else 0)
    drop_b = excess - drop_a
    front_a, front_b = rng.binomial(drop_a, 0.5), rng.binomial(drop_b, 0.5)
    return a_begin + front_a, a_end - (drop_a - front_a), b_begin + front_b, b_end - (drop_b - front_b)


def sections(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first sentence, end sentence and document of every section of at most SECTION_SENTENCES sentences."""
    bounds = split.document_sentences
    sizes = np.diff(bounds)
    per_document = -(-sizes // SECTION_SENTENCES)
    document = np.repeat(np.arange(len(sizes)), per_document)
    ordinal = np.arange(len(document)) - np.repeat(np.cumsum(per_document) - per_document, per_document)
    first = bounds[document] + ordinal * SECTION_SENTENCES
    return first, np.minimum(first + SECTION_SENTENCES, bounds[document + 1]), document
