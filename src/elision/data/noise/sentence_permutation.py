"""Sentences in another order: one of BART's noises."""

import math

import numpy as np


def sentence_bounds(ends_sentence: np.ndarray) -> np.ndarray:
    """Return int64 [s + 1]: where each sentence begins, and where the last one ends.

    ends_sentence: bool [n], True at full stops. As in the released code a sentence ends with a full stop that follows
    none, so that of "..." the first one ends it and the others lead the next; the last token counts as a full stop. What
    is left behind the last bound, when that follows one, is no sentence.

    >>> sentence_bounds(np.array([False, True, True, False, True, False, False]))
    array([0, 2, 5, 7])
    """
    if not len(ends_sentence):
        return np.zeros(1, np.int64)
    stops = ends_sentence.copy()
    stops[-1] = True
    follows_stop = np.append(False, stops[:-1])
    return np.append(0, np.flatnonzero(stops & ~follows_stop) + 1)


def pick_sentence_order(bounds: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return int64 [n], for each place the place whose token comes there.

    bounds: see `sentence_bounds`. ceil(share * sentences) of the sentences, drawn at random, trade places among each
    other; the rest stay where they are in the order of sentences. What follows the last bound
    is not in it.
    """
    num_sentences = len(bounds) - 1
    num_moved = math.ceil(round(share * num_sentences, 9))
    order = np.arange(num_sentences)
    moved = rng.permutation(num_sentences)[:num_moved]
    order[moved] = rng.permutation(moved)
    return places_of(bounds, order)


def places_of(bounds: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return int64 [n], the places of the tokens of the sentences when these come in `order`.

    >>> places_of(np.array([0, 2, 5]), np.array([1, 0]))
    array([2, 3, 4, 0, 1])
    """
    pieces = [np.arange(bounds[sentence], bounds[sentence + 1]) for sentence in order]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)
