"""The loop. It trains whatever `model(batch, carry) -> terms, carry` it is given, and never branches on a paper.

Read `fit` top to bottom: resume, then for each step forward and backward over the microbatches, clip, update, and now
and then log, evaluate, save. Nothing in a step waits for the device; losses are fetched when a line is logged.
"""

import contextlib
import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from elision.data.batch import Batch
from elision.data.loader import Loader, data_step
from elision.data.order import derive_seed
from elision.model.language_model import LanguageModel
from elision.train import checkpoint
from elision.train.clipping import clip_, parts_of
from elision.train.metrics import MetricsLog, matmul_peak, peak_memory_bytes
from elision.train.precision import autocast, compute_dtype
from elision.train.settings import Train


class NonFiniteLoss(RuntimeError):
    """A loss or gradient that is not a number; names the step, the term and the batch."""

    def __init__(self, step: int, data_step: int, term: str, value: float, fingerprint: str, examples: str):
        super().__init__(
            f"{term} is {value} at step {step}; its batch has fingerprint {fingerprint} (examples {examples}). Lower "
            f"train.optimizer.learning_rate, or set train.non_finite to 'skip' to go on without such batches"
        )
        self.step, self.data_step = step, data_step


class OutOfMemory(RuntimeError):
    """A step did not fit into memory; says what to make smaller. The checkpoints are intact."""

    def __init__(self, run: "Run"):
        size = min(run.train.microbatch_size or run.train.batch_size, run.train.batch_size)
        smaller = (
            f"set train.microbatch_size to {max(1, size // 2)} (now {size})" if size > 1 else "use a smaller model"
        )
        super().__init__(
            f"{run.device} has not enough memory for this step: {smaller} and start the same command again; it goes on "
            f"from the last checkpoint. A smaller microbatch changes nothing but rounding and the draws of dropout"
        )


class Interrupted(RuntimeError):
    """The run was asked to stop (SIGTERM, SIGINT) and has saved its state."""

    def __init__(self, signal_number: int, step: int, folder: Path):
        name = signal.Signals(signal_number).name
        super().__init__(f"{name}: saved {folder} at step {step}. Start the same command again to go on from there")
        self.signal_number = signal_number


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a report about a running run is given: the step just done and the latest values by name."""

    step: int
    steps: int
    split: str
    values: dict[str, float]


@dataclasses.dataclass(eq=False)
class Run:
    """Everything that `fit` needs.

    bits_per_nat turns the mean loss of `token_term` (nats for each token) into bits for each byte of text: the number
    that compares across tokenizers. `score` measures the model in evaluation mode, beside the terms on `held_out` or,
    without held-out batches, alone (it then gives "loss" too). The best checkpoint has the lowest `rank` of these values.
    """

    folder: Path
    model: LanguageModel
    train: Train
    data: Loader
    device: torch.device
    held_out: Loader | None = None
    token_term: str | None = None
    bits_per_nat: float = 1 / math.log(2)
    score: Callable[[LanguageModel], dict[str, float]] | None = None
    rank: Callable[[dict[str, float]], float] = lambda values: values["loss"]
    report: Callable[[Progress], None] = lambda progress: None


def fit(run: Run) -> checkpoint.State:
    """Train until `train.steps`, from the last checkpoint if there is one; returns where the run ended.

    Raises: NonFiniteLoss, OutOfMemory, Interrupted (after saving), InputError for a checkpoint that is torn or does not fit, and
    OSError when a checkpoint cannot be written (the earlier ones stay).
    """
    while True:
        try:
            return _fit_until_failure(run)
        except NonFiniteLoss as failure:
            if run.train.non_finite != "skip":
                raise
            _skip(run, failure)
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise OutOfMemory(run) from error
            raise


def _fit_until_failure(run: Run) -> checkpoint.State:
    train, device, model = run.train, run.device, run.model.to(run.device)
    clipped_together = parts_of(model, train.optimizer.clip_apart)
    optimizer = train.optimizer.build(model)
    state, carry = checkpoint.resume(run.folder, model, optimizer)
    dtype = compute_dtype(train.precision, device)
    if wants_compilation(train, device):
        model.compile_blocks()
    log = MetricsLog(run.folder, state.step)
    eval_every = train.eval_every or max(1, train.steps // 20)
    checkpoint_every = train.checkpoint_every or eval_every
    waiting: list[dict[str, Tensor]] = []
    watch = _Stopwatch(state, matmul_peak(device, dtype))

    def save(is_best: bool) -> Path:
        _drain(waiting, state, run)
        watch.worked()
        folder = checkpoint.save(
            run.folder, state, model, optimizer, carry,
            is_best=is_best, keep=train.keep_checkpoints, keep_every=train.keep_every,
        )  # fmt: skip
        watch.paused()
        return folder

    with contextlib.closing(log), _signals() as asked_to_stop:
        model.train()
        if train.non_finite == "skip" and state.step == 0:
            save(False)
        for microbatches in run.data.stream(state.step, train.steps, frozenset(state.skipped)):
            counts = _total_counts(model, microbatches)
            losses: dict[str, Tensor] = {}
            carried: list[dict[str, Tensor] | None] = []
            for index, (batch, before) in enumerate(zip(microbatches, _by_rows(carry, microbatches), strict=True)):
                # Dropout is a pure function of (seed, step, microbatch), like everything random here.
                torch.manual_seed(derive_seed(train.seed, "dropout", state.step, index))
                with autocast(device, dtype):
                    terms, after = model(batch.to(device), before)
                carried.append(after)
                loss = sum(term.sum * (term.weight / max(1, counts[name])) for name, term in terms.items())
                loss.backward()
                for name, term in terms.items():
                    value = term.sum.detach() / max(1, counts[name])
                    losses[name] = losses[name] + value if name in losses else value
                losses["loss"] = losses["loss"] + loss.detach() if "loss" in losses else loss.detach()
            carry = _joined(carried)
            losses["grad_norm"] = clip_(clipped_together, train.optimizer.clip_norm)
            share = train.schedule.share(state.step, train.steps, run.data.tokens_by)
            rate = train.optimizer.learning_rate * share
            train.optimizer.prepare(optimizer, state.step + 1, rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            waiting.append(losses)
            state.step += 1
            state.tokens += sum(batch.num_tokens for batch in microbatches)
            state.flops += sum(model.num_flops(batch) for batch in microbatches)

            if state.step % train.log_every == 0 or state.step == train.steps:
                _drain(waiting, state, run)
                watch.worked()
                values = _means(state.pending, run)
                state.pending = {}
                values |= {"learning_rate": rate, **watch.rates()}
                values["peak_memory_bytes"] = peak_memory_bytes(device)
                if train.ramp is not None:
                    values["batch_size"] = float(sum(batch.num_examples for batch in microbatches))
                log.write(state.step, "train", values)
                run.report(Progress(state.step, train.steps, "train", values))
            is_best = False
            evaluates = run.held_out is not None or run.score is not None
            if evaluates and (state.step % eval_every == 0 or state.step == train.steps):
                _drain(waiting, state, run)
                watch.worked()
                values = evaluate(run, dtype)
                watch.paused()
                is_best = state.best_loss is None or run.rank(values) < state.best_loss
                state.best_loss = run.rank(values) if is_best else state.best_loss
                log.write(state.step, "validation", values)
                run.report(Progress(state.step, train.steps, "validation", values))
            if is_best or state.step % checkpoint_every == 0 or state.step == train.steps:
                save(is_best)
            if asked_to_stop and state.step < train.steps:
                raise Interrupted(asked_to_stop[0], state.step, save(False))
    return state


def wants_compilation(train: Train, device: torch.device) -> bool:
    """Return what `train.compile` says, or that GPUs want it."""
    return train.compile if train.compile is not None else device.type == "cuda"


@torch.no_grad()
def evaluate(run: Run, dtype: torch.dtype) -> dict[str, float]:
    """Return the mean of every term over the held-out examples, bits per byte and what `run.score` adds.

    The model is left in training mode.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    weights: dict[str, float] = {}
    run.model.eval()
    carry = None
    for batch in run.held_out.in_order(run.train.eval_examples) if run.held_out is not None else ():
        with autocast(run.device, dtype):
            terms, carry = run.model(batch.to(run.device), carry)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term.sum.double()
            counts[name] = counts.get(name, 0) + term.count
            weights[name] = term.weight
    values = {name: float(total) / max(1, counts[name]) for name, total in sums.items()}
    # As in training: the mean over the kinds of batches that come in turn.
    num_kinds = run.held_out.num_kinds if run.held_out is not None else 1
    values["loss"] = sum(values[name] * weights[name] for name in sums) / num_kinds
    if run.token_term in values:
        values["bits_per_byte"] = values[run.token_term] * run.bits_per_nat
    if run.score is not None:
        values |= run.score(run.model)
    run.model.train()
    return values


def _total_counts(model: LanguageModel, microbatches: list) -> dict[str, int]:
    totals: dict[str, int] = {}
    for batch in microbatches:
        for name, count in model.counts(batch).items():
            totals[name] = totals.get(name, 0) + count
    return totals


def _by_rows(carry: dict[str, Tensor] | None, microbatches: list[Batch]) -> list[dict[str, Tensor] | None]:
    """Hand each microbatch the rows that are its own of what the last step carried over."""
    if carry is None:
        return [None] * len(microbatches)
    rows = [batch.inputs.shape[0] for batch in microbatches]
    parts = {name: value.split(rows) for name, value in carry.items()}
    return [{name: part[index] for name, part in parts.items()} for index in range(len(rows))]


def _joined(carried: list[dict[str, Tensor] | None]) -> dict[str, Tensor] | None:
    """Join what the microbatches of a step carry over: row by row, so that the size of a microbatch changes nothing."""
    if carried[0] is None:
        return None
    return {name: torch.cat([part[name] for part in carried]).detach() for name in carried[0]}


def _drain(waiting: list[dict[str, Tensor]], state: checkpoint.State, run: Run) -> None:
    """Fetch the values of the steps since the last time, all at once, and stop at the first that is not finite."""
    if not waiting:
        return
    # Not every step has the same terms: kinds of batches may come in turn.
    names = [(at, name) for at, losses in enumerate(waiting) for name in losses]
    values = torch.stack([waiting[at][name].float() for at, name in names]).cpu()
    first = state.step - len(waiting)
    if not torch.isfinite(values).all():
        index = int((~torch.isfinite(values)).nonzero()[0])
        at, name = names[index]
        step = first + at
        reads = data_step(step, frozenset(state.skipped))
        batches = run.data.microbatches(reads)
        examples = [example for batch in batches for example in batch.examples]
        shown = ", ".join(map(str, examples[:8])) + (", ..." if len(examples) > 8 else "")
        fingerprint = "+".join(batch.fingerprint() for batch in batches[:4])
        raise NonFiniteLoss(step, reads, name, float(values[index]), fingerprint, shown)
    for (_, name), value in zip(names, values.tolist()):
        state.pending.setdefault(name, []).append(value)
    waiting.clear()


def _means(pending: dict[str, list[float]], run: Run) -> dict[str, float]:
    values = {name: sum(column) / len(column) for name, column in pending.items()}
    if run.token_term in values:
        values["bits_per_byte"] = values[run.token_term] * run.bits_per_nat
    return values


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU, PyTorch says it in words only.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _skip(run: Run, failure: NonFiniteLoss) -> None:
    """Note in the last checkpoint that the failing batch is to be left out; the run goes on from there."""
    step = checkpoint.add_skipped(run.folder, failure.data_step)
    run.report(Progress(step, run.train.steps, "skip", {"data_step": float(failure.data_step)}))


class _Stopwatch:
    """Time spent, in all and in training steps alone, so that rates leave evaluations and checkpoints out."""

    def __init__(self, state: checkpoint.State, peak_flops: float):
        self._state, self._peak_flops, self._last = state, peak_flops, time.monotonic()
        self._busy, self._tokens, self._flops = 0.0, state.tokens, state.flops

    def worked(self) -> None:
        """Count the time since the last call as training."""
        self._busy += self.paused()

    def paused(self) -> float:
        """Count the time since the last call as something else; returns it in seconds."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        self._state.seconds += passed
        return passed

    def rates(self) -> dict[str, float]:
        """Return tokens per second and the share of the measured matmul peak since the last call."""
        state, busy = self._state, max(self._busy, 1e-9)
        rates = {
            "tokens_per_second": (state.tokens - self._tokens) / busy,
            "flop_utilisation": (state.flops - self._flops) / busy / self._peak_flops,
            "tokens": float(state.tokens),
            "seconds": state.seconds,
        }
        self._busy, self._tokens, self._flops = 0.0, state.tokens, state.flops
        return rates


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them; a second one is obeyed at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.append(number)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:
        # Only the main thread may set handlers; elsewhere the caller's own stay in force.
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
