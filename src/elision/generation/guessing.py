"""Several tokens of a greedy text in one reading: guessed from what stands there already, and checked.

Reading one token for one row is bound by reading the weights, and reading a few at once costs little more. Text repeats
itself: names, quotations, what a source says. So what followed the last words where they stood before is guessed to follow them
again (prompt lookup: Saxena 2023; checking as in Leviathan et al. 2023, section 2, with a guess that is certain). A guessed
token stays only where the model would have taken it, so the text is the same.

G tokens read on trial, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from elision.generation.reader import Reader

# Tokens that must have stood there before, and fewer where those have not.
CONTEXTS = (3, 2)
# Tokens that are guessed at first; more while guesses come true.
FIRST_WIDTH = 2
# Tokens that are not guessed after wrong guesses, at most.
LONGEST_PAUSE = 32


class Guesses:
    """What may follow, by what followed the same tokens before."""

    def __init__(self, ids: list[int], most: int):
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._most, self._width, self._pause, self._left = most, min(FIRST_WIDTH, most), 0, 0
        self.extend(ids)

    def extend(self, ids: list[int]) -> None:
        """Take in tokens that were written."""
        for token in ids:
            # What ends with the token before is followed by this one.
            for size in CONTEXTS:
                if len(self._ids) >= size:
                    self._after[tuple(self._ids[-size:])] = len(self._ids)
            self._ids.append(token)

    def next(self) -> list[int]:
        """Return a guess of what follows, which may be empty."""
        if self._left > 0:
            self._left -= 1
            return []
        for size in CONTEXTS:
            place = self._after.get(tuple(self._ids[-size:])) if len(self._ids) >= size else None
            if place is not None:
                # Where it reaches the end it goes on with itself: the text may be going round.
                known = self._ids[place:]
                return [known[number % len(known)] for number in range(self._width)]
        return []

    def learn(self, num_guessed: int, num_right: int) -> None:
        """Guess more after guesses that came true, and less or nothing for a while after those that did not."""
        if num_right == num_guessed:
            self._width, self._pause = min(2 * self._width, self._most), 0
        elif num_right == 0:
            self._width = min(FIRST_WIDTH, self._most)
            self._pause = min(2 * self._pause + 1, LONGEST_PAUSE)
            self._left = self._pause
        else:
            self._width = max(1, num_right)


def guessed(reader: Reader, num_tokens: int, most: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the likeliest token each time, and the scores [V] that it was taken by, `num_tokens` times.

    The reader has one row, and no constraints change its scores. most: tokens that are guessed at a time.
    """
    guesses = Guesses(reader.written.ids[0].tolist(), most)
    scores_1V = reader.scores
    with torch.inference_mode():
        token = int(scores_1V.argmax())
    yield token, scores_1V[0]
    num_written = 1
    while num_written < num_tokens:
        guesses.extend([token])
        # The last token of all need not be read.
        room = min(reader.room_to_guess - 1, num_tokens - num_written - 1)
        guess = guesses.next()[: max(0, room)]
        if guess:
            scores_GV = reader.read_guess([token, *guess])
            best = scores_GV.argmax(-1).tolist()
            right = next((n for n, wanted in enumerate(guess) if best[n] != wanted), len(guess))
            reader.keep([token, *guess[:right]], 1 + len(guess), scores_GV[right : right + 1])
            guesses.learn(len(guess), right)
        else:
            reader.read(torch.tensor([token], device=scores_1V.device))
            scores_GV, right = reader.scores, 0
            best = scores_GV.argmax(-1).tolist()
        guesses.extend(best[:right])
        token = best[right]
        for number in range(right + 1):
            yield best[number], scores_GV[number]
        num_written += right + 1
