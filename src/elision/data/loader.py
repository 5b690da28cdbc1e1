"""Batches by number: what a step reads is a pure function of (seed, step), so there is no loader state to save."""

import concurrent.futures
import dataclasses
from collections.abc import Iterator

import numpy as np

from elision.data.answers import Answers
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.data.mixing import MixedPlan
from elision.data.noise import Noise
from elision.data.order import generator, shuffled, shuffled_epochs
from elision.data.ramp import BatchRamp, BatchSizes, batch_sizes
from elision.data.segment import Plan
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Loader:
    """Microbatches of any step, in a keyed random order over the plan, epoch after epoch.

    Step s reads examples s * batch_size ... of the endless sequence of shuffled epochs (with a `ramp` it reads fewer at
    first, and begins where the steps before it end). They are dealt to ranks in turn (rank r takes every num_ranks-th)
    and cut into microbatches of `microbatch_size`; each is packed on its own.
    Which examples a step reads, and the noise on each, therefore depend neither on the number of ranks nor on the
    size of a microbatch, and packing only changes where in a row an example lies.

    A mixed plan (`LanguageMix`) decides by itself how often which of its parts is read.

    A contiguous plan (`plan.contiguous`: memories, LSTM states) is not shuffled: its examples are cut into batch_size
    streams, and row r of step s + 1 continues row r of step s; at its end a stream goes on with the next one's start.

    `answers` says how a model reads examples that have something to be written.

    `languages` are the numbers that a model knows the store's languages by; None where no model asks. `turns` are loaders
    of further kinds of batches, each with the name `turn`: step s of n kinds is step s // n of kind s % n.
    """

    plan: Plan
    noise: Noise
    vocabulary: Vocabulary
    seed: int
    batch_size: int
    microbatch_size: int
    row_length: int
    ramp: BatchRamp | None = None
    packing: bool = True
    pin_memory: bool = False
    causal: bool = False
    answers: Answers = Answers()
    languages: np.ndarray | None = None
    turn: str = ""
    turns: "tuple[Loader, ...]" = ()
    rank: int = 0
    num_ranks: int = 1

    def examples_of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (epochs, indices), int64 [batch_size / num_ranks] each: what this rank reads at `step`."""
        mine = np.arange(self.rank, self.sizes.of_step(step), self.num_ranks)
        if self.plan.contiguous:
            assert self.ramp is None, "every row of a contiguous plan goes on from step to step"
            return np.divmod(mine * self._stream_length(self.batch_size) + step, len(self.plan))
        places = self.sizes.examples_before(step) + mine
        if isinstance(self.plan, MixedPlan):
            return self.plan.order(places, self.seed)
        return shuffled_epochs(places, len(self.plan), self.seed, "epoch")

    def microbatches(self, step: int) -> list[Batch]:
        """Build all microbatches that this rank reads at `step`."""
        step, turn = divmod(step, self.num_kinds)
        if turn:
            return self.turns[turn - 1].microbatches(step)
        epochs, indices = self.examples_of(step)
        return [
            self._build(epochs[start : start + self.microbatch_size], indices[start : start + self.microbatch_size])
            for start in range(0, len(indices), self.microbatch_size)
        ]

    @property
    def num_kinds(self) -> int:
        """How many kinds of batches are read in turn."""
        return 1 + len(self.turns)

    @property
    def sizes(self) -> BatchSizes:
        """How many examples each step reads, over all ranks."""
        return batch_sizes(self.batch_size, self.ramp)

    def tokens_by(self, step: int) -> int:
        """Return how many tokens the steps before `step` read, if every example is as long as it may be."""
        kinds = enumerate((self, *self.turns))
        turns = ((kind, -(-(step - at) // self.num_kinds)) for at, kind in kinds)
        return sum(kind.sizes.examples_before(turn) * kind.row_length for kind, turn in turns)

    def steps_reading(self, examples: float) -> float:
        """Return how many steps read so many examples, of all kinds together."""
        return self.num_kinds * self.sizes.steps_reading(examples / self.num_kinds)

    def at_full_size(self) -> "Loader":
        """Return the loader whose every step reads a whole batch."""
        return dataclasses.replace(self, ramp=None, turns=tuple(turn.at_full_size() for turn in self.turns))

    def in_order(self, num_examples: int) -> Iterator[Batch]:
        """Yield the first examples of a fixed shuffled order, with fixed noise: the same every time (evaluation).

        So many of every kind, where there are several.
        """
        yield from self._in_order(num_examples)
        for turn in self.turns:
            yield from turn.in_order(num_examples)

    def _in_order(self, num_examples: int) -> Iterator[Batch]:
        count = min(num_examples, len(self.plan))
        if self.plan.contiguous:
            rows = min(self.microbatch_size, count)
            for step in range(max(1, min(count // rows, self._stream_length(rows)))):
                chosen = np.arange(rows) * self._stream_length(rows) + step
                yield self._build(np.zeros_like(chosen), chosen)
            return
        indices = shuffled(np.arange(count), len(self.plan), self.seed, "fixed")
        for start in range(0, count, self.microbatch_size):
            chosen = indices[start : start + self.microbatch_size]
            yield self._build(np.zeros_like(chosen), chosen)

    def _stream_length(self, num_rows: int) -> int:
        """Return how many examples each of the rows of a contiguous plan reads before it comes to the next one's."""
        return max(1, len(self.plan) // num_rows)

    def stream(self, first: int, last: int, skipped: frozenset[int] = frozenset()) -> Iterator[list[Batch]]:
        """Yield the microbatches of steps first ... last - 1; step n reads the n-th data step that is not skipped.

        A thread builds ahead of the consumer (NumPy and the copies release the interpreter lock).
        """
        data_steps = _without(skipped, first, last)
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
            ahead: list[concurrent.futures.Future[list[Batch]]] = []
            try:
                for step in data_steps:
                    ahead.append(pool.submit(self.microbatches, step))
                    if len(ahead) > PREFETCHED_STEPS:
                        yield ahead.pop(0).result()
                while ahead:
                    yield ahead.pop(0).result()
            finally:
                for future in ahead:
                    future.cancel()

    def example(self, epoch: int, index: int) -> Example:
        """Build example `index` of the plan with its noise of an epoch."""
        rng = generator(self.seed, "noise", epoch, index)
        example = self.noise(self.plan.example(index), self.vocabulary, rng)
        known = {
            name: None if self.languages is None else self.languages[numbers]
            for name in ("languages", "decoder_languages")
            if (numbers := getattr(example, name)) is not None
        }
        example = self.answers(dataclasses.replace(example, **known))
        if self.noise.restores == "masked":
            example = dataclasses.replace(example, draws=rng.random(len(example)))
        return example

    def _build(self, epochs: np.ndarray, indices: np.ndarray) -> Batch:
        examples = [self.example(epoch, index) for epoch, index in zip(epochs.tolist(), indices.tolist())]
        pad_id = self.vocabulary.pad if self.vocabulary.pad is not None else 0
        batch = collate(
            examples,
            pad_id=pad_id,
            row_length=self.row_length,
            decoder_row_length=self.answers.decoder_row_length,
            packing=self.packing and not self.plan.contiguous,
            causal=self.causal,
            turn=self.turn,
            contiguous=self.plan.contiguous,
            sources=indices.tolist(),
        )
        return batch.pin_memory() if self.pin_memory else batch


PREFETCHED_STEPS = 4


def data_step(step: int, skipped: frozenset[int]) -> int:
    """Return which data step optimiser step `step` reads when some data steps are skipped."""
    for skip in sorted(skipped):
        if skip <= step:
            step += 1
    return step


def _without(skipped: frozenset[int], first: int, last: int) -> Iterator[int]:
    return (data_step(step, skipped) for step in range(first, last))
