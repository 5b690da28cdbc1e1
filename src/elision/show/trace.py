"""Where each token of a noised example stood in the text: found by noising the same example with tokens that are told apart.

A noise draws its random numbers from how many tokens there are and which of them begin words or end sentences, never from
what they say. So it does to an example in which every token has an id of its own what it did to the real one, and the ids
show what went where: also for what was moved, deleted, or stands in the text twice.

N tokens before the noise.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from elision.data.answers import Answers
from elision.data.example import Example
from elision.data.noise import Noise
from elision.text.vocabulary import Vocabulary

NOWHERE = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """int64: for each place that is read and for each target the place in the text that it comes from, or `NOWHERE`."""

    inputs: np.ndarray
    targets: np.ndarray


def traced(
    noise: Noise,
    answers: Answers,
    before: Example,
    after: Example,
    vocabulary: Vocabulary,
    rng: Callable[[], np.random.Generator],
) -> Trace | None:
    """Return where the tokens of `after` come from, which `noise` and `answers` have made of `before`.

    rng: a generator in the state that it had then. None when it cannot be told: when the vocabulary is too small, or the
    noise looks at what tokens say.
    """
    original = before.inputs.astype(np.int64)
    ordinary = np.flatnonzero(~vocabulary.special[original])
    taken = vocabulary.special.copy()
    taken[original] = True
    # Random tokens are drawn from all ids: the vocabulary must stay as large as it is.
    free = np.flatnonzero(~taken)
    if len(free) < len(ordinary):
        return None
    aliases = free[: len(ordinary)]
    inputs = original.copy()
    inputs[ordinary] = aliases
    alike = {
        field.name: _copied(value, aliases, original[ordinary])
        for field in dataclasses.fields(vocabulary)
        if isinstance(value := getattr(vocabulary, field.name), np.ndarray) and len(value) == vocabulary.size
    }
    noised = answers(noise(dataclasses.replace(before, inputs=inputs), dataclasses.replace(vocabulary, **alike), rng()))
    came_from = np.full(vocabulary.size, NOWHERE)
    came_from[aliases] = ordinary
    sides = []
    for ours, theirs in ((noised.inputs, after.inputs), (noised.targets, after.targets)):
        if ours is None or theirs is None or len(ours) != len(theirs):
            return None
        places = np.where(ours >= 0, came_from[np.maximum(ours, 0)], NOWHERE)
        # A random token may happen to be an alias.
        fitting = (places != NOWHERE) & (original[places] == theirs)
        if not (fitting | (ours == theirs) | (places != NOWHERE)).all():
            return None
        sides.append(_with_symbols(np.where(fitting, places, NOWHERE), theirs, original, vocabulary.special))
    return Trace(*sides)


def _copied(values: np.ndarray, aliases: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the table in which each alias has what the token that it stands for has."""
    copied = values.copy()
    copied[aliases] = values[tokens]
    return copied


def _with_symbols(places: np.ndarray, ids: np.ndarray, original: np.ndarray, special: np.ndarray) -> np.ndarray:
    """Find the special symbols of the text again, which have no alias: each stands beside one of its neighbours still."""
    places = places.copy()
    taken = set(places.tolist())
    for place in np.flatnonzero((places == NOWHERE) & (ids >= 0)):
        if not special[ids[place]]:
            continue
        beside = [places[place - 1] + 1 if place and places[place - 1] != NOWHERE else 0 if not place else NOWHERE]
        if place + 1 < len(places):
            beside.append(places[place + 1] - 1)
        else:
            beside.append(len(original) - 1)
        for found in beside:
            if 0 <= found < len(original) and original[found] == ids[place] and found not in taken:
                places[place] = found
                taken.add(found)
                break
    return places
