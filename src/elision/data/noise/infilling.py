"""Text infilling: spans of words of any length, each behind one mask."""

import math

import numpy as np

# Where the tail of the Poisson distribution is cut off, as in the released code.
_NEGLIGIBLE = 1e-7


def span_size_probabilities(mean_words: float) -> np.ndarray:
    """Return the probability of each size 0, 1, 2 ... of a span: Poisson, cut off where it is below 1e-7.

    mean_words: of the Poisson distribution (lambda).
    """
    weights = [math.exp(-mean_words)]
    while len(weights) <= mean_words or weights[-1] >= _NEGLIGIBLE:
        weights.append(weights[-1] * mean_words / len(weights))
    return np.array(weights) / sum(weights)


def most_empty(budget: int) -> int:
    """Return how many empty spans count at most where `budget` words are to be left out: half as many."""
    return -(-budget // 2)


def draw_span_sizes(budget: int, probabilities: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw sizes of spans until they sum to `budget` words; returns the sizes, int64 [s], and how many were empty.

    The last span is cut so that the sum is exact. Empty ones cost nothing: they become masks that are inserted. No more
    than `most_empty` of them count, so that the length of what results has a bound, and 8 * budget + 64 draws are the most,
    so that drawing ends whatever the distribution; with means from 1 on neither is felt.
    """
    if budget == 0:
        return np.empty(0, np.int64), 0
    sizes = np.searchsorted(np.cumsum(probabilities)[:-1], rng.random(8 * budget + 64), side="right")
    sums = np.cumsum(sizes)
    last = int(np.searchsorted(sums, budget))
    sizes = sizes[: last + 1]
    if last < len(sums):
        sizes[-1] -= int(sums[last]) - budget
    return sizes[sizes > 0], min(int((sizes == 0).sum()), most_empty(budget))


def pick_infilled(
    begins_word: np.ndarray, share: float, probabilities: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Draw spans of whole words; returns begins and ends (exclusive), int64 [s, 2], and how many were empty.

    begins_word: bool [n], True where a token begins a word; those before the first word belong to no span. The sizes sum
    to ceil(share * words). Spans begin with different words, each set of them equally likely, and run on regardless of
    each other, so that some overlap and fewer words are covered; what would exceed the text is cut.
    """
    words = np.append(np.flatnonzero(begins_word), len(begins_word))
    num_words = len(words) - 1
    sizes, num_empty = draw_span_sizes(math.ceil(round(share * num_words, 9)), probabilities, rng)
    first = rng.permutation(num_words)[: len(sizes)]
    return np.stack([words[first], words[np.minimum(first + sizes, num_words)]], 1).astype(np.int64), num_empty


def kept_beside(spans: np.ndarray, length: int) -> np.ndarray:
    """Return bool [length]: what remains when of each span only the first token does.

    A span that begins within another disappears with all of its tokens.

    >>> kept_beside(np.array([[1, 4], [2, 3], [5, 6]]), 7)
    array([ True,  True, False, False,  True,  True,  True])
    """
    depth = np.zeros(length + 1, np.int64)
    np.add.at(depth, spans[:, 0] + 1, 1)
    np.add.at(depth, spans[:, 1], -1)
    return np.cumsum(depth)[:length] == 0
