"""How many examples each step reads: as many as the last one, or more and more at the start of a run."""

import bisect
import dataclasses
import functools

from elision.errors import InputError


@dataclasses.dataclass(frozen=True)
class BatchRamp:
    """Batches that grow linearly with the number of examples read, from `initial_size` to the full size (GPT-3).

    Brown et al. 2020, appendix B. Of several kinds of batches that come in turn, each grows with its own examples.

    A worked example: from 2 to 6 over 12 examples, steps read 2, 2, 3, 4, 5, 6, 6 ... examples: 2 + 4 * e // 12 after e.
    """

    initial_size: int = 16
    """examples in the first step"""
    num_examples: int = 2_000_000
    """examples after which batches have their full size"""
    increment: int = 1
    """batches grow by so many examples at a time: a multiple of the number of processes keeps their shares equal"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(f"ramp.{field.name} is {getattr(self, field.name)}: it must be at least 1")

    def size_after(self, examples: int, batch_size: int) -> int:
        """Return how many examples the step reads that comes after so many; `batch_size` is the full size."""
        if examples >= self.num_examples:
            return batch_size
        grown = (batch_size - self.initial_size) * examples // self.num_examples
        return self.initial_size + grown // self.increment * self.increment


class BatchSizes:
    """The size of every step's batch, by arithmetic: a table with a line for each size that occurs, however many steps.

    >>> sizes = BatchSizes(6, BatchRamp(2, 12))
    >>> [sizes.of_step(step) for step in range(7)], [sizes.examples_before(step) for step in range(7)]
    ([2, 2, 3, 4, 5, 6, 6], [0, 2, 4, 7, 11, 16, 22])
    """

    def __init__(self, batch_size: int, ramp: BatchRamp | None = None):
        # From each line's step on, batches have its size, and so many examples were read before it.
        self._steps, self._examples, self._sizes = [0], [0], [batch_size]
        if ramp is None:
            return
        assert ramp.initial_size <= batch_size
        step = examples = 0
        self._sizes = [ramp.size_after(0, batch_size)]
        while self._sizes[-1] < batch_size:
            size = self._sizes[-1]
            # The first number of examples after which it is larger.
            wanted = (size - ramp.initial_size + ramp.increment) * ramp.num_examples
            larger_at = min(ramp.num_examples, -(-wanted // (batch_size - ramp.initial_size)))
            num_steps = -(-(larger_at - examples) // size)
            step, examples = step + num_steps, examples + num_steps * size
            self._steps.append(step)
            self._examples.append(examples)
            self._sizes.append(ramp.size_after(examples, batch_size))

    def of_step(self, step: int) -> int:
        """Return how many examples a step reads."""
        return self._sizes[bisect.bisect_right(self._steps, step) - 1]

    def examples_before(self, step: int) -> int:
        """Return how many examples the steps before `step` read."""
        line = bisect.bisect_right(self._steps, step) - 1
        return self._examples[line] + (step - self._steps[line]) * self._sizes[line]

    def steps_reading(self, examples: float) -> float:
        """Return how many steps read so many examples; a part of a step counts as the part of its examples."""
        line = bisect.bisect_right(self._examples, examples) - 1
        return self._steps[line] + (examples - self._examples[line]) / self._sizes[line]


@functools.lru_cache(maxsize=16)
def batch_sizes(batch_size: int, ramp: BatchRamp | None) -> BatchSizes:
    """Return the sizes of a run's batches, computed once."""
    return BatchSizes(batch_size, ramp)
