"""Models side by side: how large each is, how fast, and how good at the very same places.

What distillation is judged by: a student against its teacher. Any models can be compared.
"""

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from elision.data.batch import Batch
from elision.data.store import Store
from elision.errors import InputError
from elision.loaded import Loaded
from elision.tasks.evaluate import check_tokenizer
from elision.train.precision import autocast, compute_dtype
from elision.train.pretrain import loader_of

EXAMPLES_PER_BATCH = 16
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Compared:
    """One model: its size, its speed, and a score with its name (None where nothing was measured)."""

    name: str
    num_parameters: int
    tokens_per_second: float
    bits_per_byte: float | None = None
    accuracy: float | None = None
    metric: str | None = None
    score: float | None = None


def compare_models(
    models: Sequence[Loaded],
    store: Store | None = None,
    split: str = "validation",
    *,
    num_examples: int = 256,
    rows: int = 8,
    length: int = 128,
    seconds: float = 3.0,
    precision: str = "auto",
    advance: Callable[[int], None] = lambda count: None,
) -> list[Compared]:
    """Measure each model; with a store, on the same examples under the same noise, those of the first model's recipe.

    Speed is that of the backbone alone over `rows` of `length` tokens, the best of three rounds in which the models take
    turns, `seconds` for each model in all. A fine-tuned model brings its score along. `advance` hears of progress: one for
    each round of a model, and one for each batch.

    Raises: InputError when models predict different things, or the store has another tokenizer.
    """
    length = min([length, *(m.recipe.backbone.max_length for m in models if m.recipe.backbone.max_length is not None)])
    speeds = _speeds(models, rows, length, seconds, precision, advance)
    found = []
    for loaded, speed in zip(models, speeds, strict=True):
        bits, accuracy = None, None
        if store is not None and loaded.task is None:
            bits, accuracy = _held_out(loaded, models[0], store, split, num_examples, precision, advance)
        metric, score = _result(loaded)
        size = loaded.model.num_parameters()
        found.append(Compared(_name(loaded), size, speed, bits, accuracy, metric, score))
    return found


def num_steps(models: Sequence[Loaded], store: Store | None, num_examples: int) -> int:
    """Return how often `advance` is called at most."""
    measured = sum(loaded.task is None for loaded in models) if store is not None else 0
    return ROUNDS * len(models) + measured * math.ceil(num_examples / EXAMPLES_PER_BATCH)


@torch.no_grad()
def _speeds(
    models: Sequence[Loaded], rows: int, length: int, seconds: float, precision: str, advance: Callable[[int], None]
) -> list[float]:
    """Return tokens per second of each model."""
    best = [0.0] * len(models)
    for _ in range(ROUNDS):
        for index, loaded in enumerate(models):
            batch = _full_rows(rows, length, loaded.model.backbone.vocab_size).to(loaded.device)
            done, waited = 0, 0.0
            loaded.model.eval()
            with autocast(loaded.device, compute_dtype(precision, loaded.device)):
                # Once for what is allocated and prepared but once.
                _wait_for(loaded.model.backbone(batch).hidden)
                started = time.perf_counter()
                while waited < seconds / ROUNDS or not done:
                    _wait_for(loaded.model.backbone(batch).hidden)
                    done, waited = done + 1, time.perf_counter() - started
            best[index] = max(best[index], done * rows * length / waited)
            advance(1)
    return best


def _wait_for(states: torch.Tensor) -> None:
    # Fetching a number waits for the device.
    float(states.flatten()[0])


def _full_rows(rows: int, length: int, vocab_size: int) -> Batch:
    ids = torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    return Batch(
        inputs=ids,
        positions=torch.arange(length).expand(rows, length),
        doc_ids=torch.ones(rows, length, dtype=torch.long),
        targets=torch.full((rows, length), -100),
        target_at=torch.zeros(0, dtype=torch.long),
        summary_at=torch.arange(rows) * length,
        num_examples=rows,
        num_tokens=rows * length,
        whole_rows=True,
    )


@torch.no_grad()
def _held_out(
    loaded: Loaded,
    first: Loaded,
    store: Store,
    split: str,
    num_examples: int,
    precision: str,
    advance: Callable[[int], None],
) -> tuple[float, float]:
    """Return bits per byte and accuracy of the tokens that the first model's noise leaves out."""
    check_tokenizer(loaded, store)
    mine, wanted = loaded.recipe.noise.restores, first.recipe.noise.restores
    objective = loaded.model.token_objective
    if objective is None or mine != wanted:
        raise InputError(
            f"{loaded.path} predicts {mine if objective is not None else 'no'} tokens and {first.path} {wanted} ones: "
            f"only models that predict the same can be compared on a store"
        )
    first.recipe.noise.check(store.tokenizer.vocabulary)
    part = store.split(split)
    loader = loader_of(first.recipe, part, store.tokenizer.vocabulary, EXAMPLES_PER_BATCH)
    total, right, count = 0.0, 0, 0
    carry = None
    for batch in loader.in_order(num_examples):
        with autocast(loaded.device, compute_dtype(precision, loaded.device)):
            done = loaded.model.run(batch.to(loaded.device), carry)
            judged = loaded.model.judge(done)[objective.token_term]
        carry = done.output.carry
        term = done.terms[objective.token_term]
        total, right, count = total + float(term.sum), right + int(judged.right), count + term.count
        advance(1)
    return total / count / math.log(2) * part.num_tokens / part.num_bytes, right / count


def _result(loaded: Loaded) -> tuple[str | None, float | None]:
    """Return the name and the value of the measure that a fine-tuned model was chosen by."""
    if loaded.task is None:
        return None, None
    for folder in (loaded.path, *loaded.path.parents[:2]):
        if (folder / "results.json").is_file():
            metrics = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]
            return loaded.task.metric, metrics.get(loaded.task.metric)
    return None, None


def seeds_of(path: Path) -> list[Path]:
    """Return the runs that a path stands for: itself, or, fine-tuned with several seeds, one for each."""
    return sorted(path.glob("seed-*")) or [path]


def joined(runs: Sequence[Compared], name: str) -> Compared:
    """Return one line for the seeds of a model: their mean score, and the speed of the fastest."""
    scores = [run.score for run in runs if run.score is not None]
    score = statistics.fmean(scores) if scores else None
    return dataclasses.replace(
        runs[0], name=name, score=score, tokens_per_second=max(run.tokens_per_second for run in runs)
    )


def _name(loaded: Loaded) -> str:
    inside_a_run = loaded.path.parent.name == "checkpoints"
    return str(loaded.path.parent.parent if inside_a_run else loaded.path)
