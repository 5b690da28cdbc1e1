"""What counting alone achieves: unigram, bigram and trigram models to hold a neural model against.

N places, V vocabulary. Tokens are ids; contexts are the two tokens to the left, the nearer one last.
"""

import dataclasses

import numpy as np

from elision.data.store import Split
from elision.text.vocabulary import Vocabulary

# A context token that is not known, because the model could not see it either.
UNKNOWN = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """How often each n-gram occurs, and what follows each of its contexts; all arrays sorted by key.

    An n-gram's key is its context's key times `base` plus its last token. `total` and `distinct` say of each context
    how many tokens follow it in all, and how many different ones.
    """

    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    total: np.ndarray
    distinct: np.ndarray
    base: int

    @staticmethod
    def of(keys: np.ndarray, base: int) -> "Counts":
        """Count keys, one for each n-gram of the text."""
        keys, counts = np.unique(keys, return_counts=True)
        contexts = keys // base
        starts = np.flatnonzero(np.diff(contexts, prepend=-1))
        total = np.add.reduceat(counts, starts) if len(starts) else counts
        return Counts(keys, counts, contexts[starts], total, np.diff(np.append(starts, len(keys))), base)

    def blend(self, contexts: np.ndarray, tokens: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Return (c(h, w) + T(h) * lower(w)) / (c(h) + T(h)) for each place; `lower` itself where h was never seen."""
        if not len(self.keys):
            return lower
        at = np.minimum(np.searchsorted(self.contexts, contexts), len(self.contexts) - 1)
        seen = (self.contexts[at] == contexts) & (contexts >= 0)
        total, distinct = np.where(seen, self.total[at], 0), np.where(seen, self.distinct[at], 1)
        wanted = contexts * self.base + tokens
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        count = np.where(seen & (self.keys[place] == wanted), self.counts[place], 0)
        return (count + distinct * lower) / (total + distinct)


@dataclasses.dataclass(frozen=True, eq=False)
class NgramModel:
    """An interpolated trigram model with Witten-Bell weights; a proper distribution over the vocabulary.

    P(w | h) = (c(h, w) + T(h) P(w | h')) / (c(h) + T(h)), where c counts, T(h) is how many different tokens were seen
    after h, and h' is h without its farthest token (Witten & Bell 1991, method C; Chen & Goodman 1999, section 2.6).
    The unigram is interpolated with the uniform distribution in the same way. Modified Kneser-Ney smoothing would be a
    few per cent better; this is a yardstick, not the best n-gram model there is.
    """

    vocab_size: int
    boundary: int
    """the context before a document's first token: the separator where it is predicted too, else an id of its own"""
    unigrams: Counts
    bigrams: Counts
    trigrams: Counts
    num_tokens: int
    """how many tokens it was counted on"""

    @staticmethod
    def fit(
        split: Split, vocabulary: Vocabulary, max_tokens: int = 20_000_000, separator: int | None = None
    ) -> "NgramModel":
        """Count the first `max_tokens` tokens of a split; memory is some 100 bytes for each.

        separator: the id that ends each document in the text that the model reads (causal models), or None.
        """
        num_tokens = min(split.num_tokens, max_tokens)
        tokens = split.tokens(0, num_tokens).astype(np.int64)
        starts = np.array(split.document_starts[: np.searchsorted(split.document_starts, num_tokens)])
        boundary = vocabulary.size if separator is None else separator
        if separator is not None:
            ends = np.array([*starts[1:], num_tokens])
            tokens = np.insert(tokens, ends, separator)
            starts = starts + np.arange(len(starts))
        return NgramModel.count(tokens, starts, vocabulary.size, boundary)

    @staticmethod
    def count(tokens: np.ndarray, starts: np.ndarray, vocab_size: int, boundary: int) -> "NgramModel":
        """Count documents laid end to end; `starts` are the offsets of their first tokens."""
        base = vocab_size + 1
        nearer = np.concatenate([[boundary], tokens[:-1]])
        nearer[starts] = boundary
        farther = np.concatenate([[boundary], nearer[:-1]])
        farther[starts] = boundary
        return NgramModel(
            vocab_size=vocab_size,
            boundary=boundary,
            unigrams=Counts.of(tokens, base),
            bigrams=Counts.of(nearer * base + tokens, base),
            trigrams=Counts.of((farther * base + nearer) * base + tokens, base),
            num_tokens=len(tokens),
        )

    def log_probability(self, contexts: np.ndarray, tokens: np.ndarray, order: int = 3) -> np.ndarray:
        """Return log P(token | context) in nats, float64 [N].

        contexts: int [N, 2], the farther token first; `UNKNOWN` where there is none to be seen, which backs off to a
        lower order. tokens: int [N]. order: 1, 2 or 3.
        """
        return np.log(self._probability(contexts, tokens, order))

    def best(self, contexts: np.ndarray, order: int = 3) -> np.ndarray:
        """Return the most probable token after each context, int [N].

        Where a context was seen, the best token either followed it or is the best of the lower order, since all others
        share one weight; so the search is exact.
        """
        top = self.unigrams.keys[np.argmax(self.unigrams.counts)]
        best = np.full(len(contexts), top)
        if order == 1:
            return best
        nearer, both = self._keys(contexts)
        best = self._better(self.bigrams, nearer, contexts, best, 2)
        return best if order == 2 else self._better(self.trigrams, both, contexts, best, 3)

    def _better(
        self, grams: Counts, keys: np.ndarray, contexts: np.ndarray, lower: np.ndarray, order: int
    ) -> np.ndarray:
        """Return, for each place, what is likelier: the likeliest follower of its context, or `lower`."""
        unique, back = np.unique(keys, return_inverse=True)
        first = np.zeros(len(unique), np.int64)
        first[back[::-1]] = np.arange(len(keys))[::-1]
        begin = np.searchsorted(grams.keys, unique * grams.base)
        sizes = np.where(unique < 0, 0, np.searchsorted(grams.keys, (unique + 1) * grams.base) - begin)
        found = lower[first]
        score = self._probability(contexts[first], found, order)
        # A few contexts at a time, so that memory stays bounded however many followers they have.
        for part in np.array_split(np.arange(len(unique)), max(1, int(sizes.sum()) // 1_000_000)):
            size = sizes[part]
            which = np.repeat(part, size)
            if not len(which):
                continue
            offset = np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size)
            token = grams.keys[begin[which] + offset] % grams.base
            probability = self._probability(contexts[first[which]], token, order)
            ascending = np.lexsort((probability, which))
            last = ascending[np.append(np.flatnonzero(np.diff(which[ascending])), len(which) - 1)]
            better = probability[last] > score[which[last]]
            found[which[last][better]] = token[last][better]
        return found[back]

    def _probability(self, contexts: np.ndarray, tokens: np.ndarray, order: int) -> np.ndarray:
        tokens = np.asarray(tokens, np.int64)
        nearer, both = self._keys(contexts)
        probability = np.full(len(tokens), 1 / self.vocab_size)
        probability = self.unigrams.blend(np.zeros_like(tokens), tokens, probability)
        if order >= 2:
            probability = self.bigrams.blend(nearer, tokens, probability)
        if order >= 3:
            probability = self.trigrams.blend(both, tokens, probability)
        return probability

    def _keys(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys of the nearer token, and of both; UNKNOWN where a token they need is unknown."""
        farther, nearer = np.asarray(contexts, np.int64).T
        # Nothing is to be seen beyond the beginning of a document.
        farther = np.where(nearer == self.boundary, self.boundary, farther)
        known = (farther >= 0) & (nearer >= 0)
        return nearer, np.where(known, farther * (self.vocab_size + 1) + nearer, UNKNOWN)
