"""From a recipe and a store to a run: what `elision pretrain` does, for Python.

run = prepare_run(recipes.get("bert-tiny"), Store.open("store"), Path("runs/bert-tiny"))
fit(run)
"""

import copy
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import elision
from elision.data.loader import Loader
from elision.data.noise.frequency import counted
from elision.data.order import derive_seed
from elision.data.ramp import BatchRamp
from elision.data.store import Split, Store
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.plain import to_plain
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary
from elision.train import checkpoint
from elision.train.about import write_about
from elision.train.clipping import clip_, parts_of
from elision.train.loop import Progress, Run, evaluate, wants_compilation
from elision.train.precision import autocast, compute_dtype
from elision.train.settings import Train, parse_budget

if TYPE_CHECKING:
    from elision.loaded import Loaded

# Fields of `train` that may differ on resume: they change what is logged and kept, and how much memory a step takes (the
# size of a microbatch changes rounding and the draws of dropout, nothing else).
WATCHING = (
    "microbatch_size",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "non_finite",
)

# Timing: at least so many steps after the warm-up, and at least so long, since a short burst runs faster than a run.
CALIBRATION_WARMUP, CALIBRATION_STEPS, CALIBRATION_MAX_STEPS, CALIBRATION_SECONDS = 5, 6, 200, 8.0


def prepare_run(
    recipe: Recipe,
    store: Store,
    folder: Path,
    *,
    device: torch.device = torch.device("cpu"),
    init_from: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Return what `fit` needs: a new run in `folder`, or the one that is already there, to be continued.

    Raises: InputError when the folder holds a run of another recipe or store, when the store's tokenizer lacks a symbol
    that the recipe needs, or when `init_from` does not fit.
    """
    folder = Path(folder)
    vocabulary = store.tokenizer.vocabulary
    for kind in recipe.kinds:
        kind.check(vocabulary)
    earlier = _earlier(folder, recipe, store)
    source = _source(init_from, store) if init_from is not None and earlier is None else None
    asked, recipe = recipe, _with_languages(recipe, store, earlier, source)
    train = recipe.train
    # A GPU copies from page-locked memory while it computes.
    layout = {
        "microbatch_size": train.microbatch_size,
        "packing": train.packing,
        "pin_memory": device.type == "cuda",
    }
    data = loader_of(recipe, store.split("train"), vocabulary, train.batch_size, ramp=train.ramp, **layout)
    held_out = None
    validation = None
    if "validation" in store.splits:
        validation = store.split("validation")
        held_out = loader_of(recipe, validation, vocabulary, train.microbatch_size or train.batch_size, **layout)
    # A token table may have more rows than the tokenizer has symbols (padded to a round number): keep them all.
    vocab_size = vocabulary.size
    if earlier is not None or source is not None:
        vocab_size = earlier.vocab_size if earlier is not None else source.model.backbone.vocab_size
    torch.manual_seed(derive_seed(train.seed, "weights"))
    model = LanguageModel(recipe.backbone, recipe.objectives, vocab_size)
    measured = validation or store.split("train")
    run = Run(
        folder=folder,
        model=model,
        train=train,
        data=data,
        device=device,
        held_out=held_out,
        token_term=model.token_objective.token_term if model.token_objective else None,
        bits_per_nat=measured.num_tokens / measured.num_bytes / math.log(2),
        report=report,
    )
    if earlier is not None:
        return dataclasses.replace(run, train=dataclasses.replace(earlier.recipe.train, **_watching(train)))
    if source is not None:
        weights = source.model.state_dict()
        if source.task is not None:
            # Of a fine-tuned model the backbone goes on; its head belongs to the task.
            backbone = {f"backbone.{name}": value for name, value in source.model.backbone.standalone_state().items()}
            weights = {name: backbone.get(name, value) for name, value in model.state_dict().items()} | backbone
        checkpoint.load_into(model, weights, source.path)
    else:
        model.begin(store.tokenizer.symbols())
    if train.budget is not None:
        run = dataclasses.replace(run, train=dataclasses.replace(train, budget=None, steps=_steps_for(run)))
    _lay_out(run, asked, recipe, store, init_from)
    return run


def loader_of(
    recipe: Recipe,
    split: Split,
    vocabulary: Vocabulary,
    batch_size: int,
    *,
    ramp: BatchRamp | None = None,
    microbatch_size: int | None = None,
    packing: bool = True,
    pin_memory: bool = False,
) -> Loader:
    """Return the loader that deals out a split as the recipe's segmenters and noises make examples of it.

    Raises: InputError when the split lacks what a segmenter reads, or its languages are not those of the recipe, or a
    ramp does not go with the segmenter.
    """
    languages = recipe.language_numbers(split)
    loaders = []
    for kind in recipe.kinds:
        words = counted(vocabulary, kind.noise, split)
        loader = Loader(
            plan=kind.plan(split, words, recipe.train.seed),
            noise=kind.noise,
            vocabulary=words,
            seed=recipe.train.seed,
            batch_size=batch_size,
            ramp=ramp,
            microbatch_size=min(microbatch_size or batch_size, batch_size),
            row_length=recipe.row_length(kind),
            answers=recipe.answers(words, kind),
            packing=packing,
            pin_memory=pin_memory,
            causal=kind.causal,
            languages=languages,
            turn=kind.name,
        )
        if loader.plan.contiguous and len(recipe.kinds) > 1:
            raise InputError(
                f"{type(kind.segmenter).__name__} makes streams that go on from step to step, which other kinds of batches "
                f"between them would break: leave the turns out"
            )
        if loader.plan.contiguous and ramp is not None:
            raise InputError(
                f"{type(kind.segmenter).__name__} makes streams that go on from step to step, one in each row of the batch, "
                f"so batches cannot grow: set train.ramp to None"
            )
        loaders.append(loader)
    return dataclasses.replace(loaders[0], turns=tuple(loaders[1:]))


def _with_languages(recipe: Recipe, store: Store, earlier: "Earlier | None", source: "Loaded | None") -> Recipe:
    """Fix which number each language has: as the run or the model to start from has them, else in the store's order."""
    if recipe.backbone.num_languages < 2 or recipe.languages:
        return recipe
    known = earlier.recipe.languages if earlier is not None else source.recipe.languages if source is not None else ()
    return dataclasses.replace(recipe, languages=known or tuple(store.languages))


@dataclasses.dataclass(frozen=True)
class Earlier:
    """The run that a folder already holds: its resolved recipe, and how many rows its token table has."""

    recipe: Recipe
    vocab_size: int


def _earlier(folder: Path, recipe: Recipe, store: Store) -> Earlier | None:
    """Return the run that `folder` holds, None when it holds none; refuse that of another recipe or store."""
    if not (folder / "run.json").exists():
        if folder.is_dir() and not _is_unfinished(folder):
            raise InputError(f"{folder} holds files that are no run of elision: name an empty folder with --out")
        return None
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        requested, fingerprint = Recipe.from_dict(about["requested"]), about["store"]["fingerprint"]
        vocab_size = int(about["vocab_size"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(f"{folder / 'run.json'} is torn or foreign: name another folder with --out") from None
    if fingerprint != store.fingerprint:
        raise InputError(
            f"the run {folder} was trained on the store {about['store']['path']} ({fingerprint[:12]}), not on "
            f"{store.path} ({store.fingerprint[:12]}): go on with the same --data, or name another --out"
        )
    different = list(_differences(to_plain(_unwatched(requested)), to_plain(_unwatched(recipe)), ""))
    if different:
        raise InputError(
            f"the run {folder} was started with another recipe: "
            + "; ".join(f"{name} was {was!r}, now {now!r}" for name, was, now in different[:3])
            + (f"; and {len(different) - 3} more" if len(different) > 3 else "")
            + ". Go on with the same settings, or name another --out"
        )
    return Earlier(Recipe.load(folder / "recipe.json"), vocab_size)


def _is_unfinished(folder: Path) -> bool:
    """Whether `folder` holds no more than a process leaves that was killed while it laid out a new run there."""
    laid_out = {".lock", "recipe.json", "tokenizer", "checkpoints", checkpoint.INDEX}
    names = {child.name for child in folder.iterdir() if not child.name.endswith(".partial")}
    return names <= laid_out and {path.name for path in (folder / "checkpoints").glob("step-*")} <= {"step-00000000"}


def _unwatched(recipe: Recipe) -> Recipe:
    defaults = {field.name: field.default for field in dataclasses.fields(Train) if field.name in WATCHING}
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **defaults))


def _watching(train: Train) -> dict[str, Any]:
    return {name: getattr(train, name) for name in WATCHING}


def _differences(was: Any, now: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted(was.keys() | now.keys()):
            yield from _differences(was.get(name), now.get(name), f"{where}.{name}".lstrip("."))
    elif was != now:
        yield where, was, now


def _source(path: Path, store: Store) -> "Loaded":
    """Load the model to start from: a run, checkpoint or Hugging Face folder with the store's tokenizer."""
    loaded = elision.load(path)
    if loaded.tokenizer.fingerprint != store.tokenizer.fingerprint:
        raise InputError(
            f"--init-from {path} has another tokenizer ({loaded.tokenizer.fingerprint[:12]}) than the store "
            f"{store.path} ({store.tokenizer.fingerprint[:12]}): prepare the store with --tokenizer {path}"
        )
    return loaded


def _lay_out(run: Run, asked: Recipe, recipe: Recipe, store: Store, init_from: Path | None) -> None:
    """Write what the folder of a new run starts with; run.json last, since it is what makes it a run.

    `asked` is the recipe as it was given, `recipe` has what only the store could say.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    # What an earlier attempt left that was killed here; weights among it may come from elsewhere.
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    (run.folder / checkpoint.INDEX).unlink(missing_ok=True)
    dataclasses.replace(recipe, train=run.train).save(run.folder / "recipe.json")
    store.tokenizer.save(run.folder / "tokenizer")
    about = {
        "path": str(store.path),
        "fingerprint": store.fingerprint,
        "tokenizer": store.tokenizer.fingerprint,
        "documents": store.split("train").num_documents,
        "tokens": store.split("train").num_tokens,
        "bytes": store.split("train").num_bytes,
    }
    if init_from is not None:
        # The weights to start from are the run's own from here on: they are its checkpoint of step 0.
        optimizer = run.train.optimizer.build(run.model)
        checkpoint.save(
            run.folder, checkpoint.State(), run.model, optimizer, None, is_best=False, keep=1, keep_every=None
        )
    write_about(run.folder, run.model, init_from, asked.to_dict(), store=about)


def _steps_for(run: Run) -> int:
    """Turn a budget into steps, by arithmetic or by timing a copy of the model for a few steps."""
    assert run.train.budget is not None
    budget = parse_budget(run.train.budget)
    if budget.unit == "steps":
        return max(1, round(budget.amount))
    if budget.unit == "seconds":
        return _steps_in(run, budget.amount)
    sample = [batch for step in run.data.stream(0, CALIBRATION_STEPS * run.data.num_kinds) for batch in step]
    used = sum(batch.num_tokens if budget.unit == "tokens" else run.model.num_flops(batch) for batch in sample)
    num_examples = sum(batch.num_examples for batch in sample)
    return max(1, round(run.data.steps_reading(budget.amount / used * num_examples)))


def _steps_in(run: Run, seconds: float) -> int:
    """Return how many steps, with the run's evaluations, fit into a time, by timing a copy of the model."""
    trial = dataclasses.replace(run, model=copy.deepcopy(run.model).to(run.device), data=run.data.at_full_size())
    evaluations = 0.0
    if run.held_out is not None:
        started = time.monotonic()
        evaluate(trial, compute_dtype(run.train.precision, run.device))
        evaluations = 20 * (time.monotonic() - started)
    if seconds < 2 * evaluations:
        raise InputError(
            f"train.budget is {run.train.budget!r}, but its evaluations alone take about {evaluations:.0f} s: give more "
            f"time, or lower train.eval_examples (now {run.train.eval_examples})"
        )
    num_examples = (seconds - evaluations) / _seconds_per_step(trial) * run.data.batch_size
    return max(1, int(run.data.steps_reading(num_examples)))


def _seconds_per_step(run: Run) -> float:
    """Time updates of a model that is thrown away after, with the loader at work beside it as in the run itself."""
    dtype = compute_dtype(run.train.precision, run.device)
    optimizer = run.train.optimizer.build(run.model)
    clipped_together = parts_of(run.model, run.train.optimizer.clip_apart)
    if wants_compilation(run.train, run.device):
        run.model.compile_blocks()
    started = begun = time.monotonic()
    counted = 0
    for update, microbatches in enumerate(run.data.stream(0, CALIBRATION_MAX_STEPS), 1):
        for batch in microbatches:
            with autocast(run.device, dtype):
                terms, _ = run.model(batch.to(run.device))
            sum(term.sum / max(1, term.count) for term in terms.values()).backward()
        norm = clip_(clipped_together, run.train.optimizer.clip_norm)
        run.train.optimizer.prepare(optimizer, update, run.train.optimizer.learning_rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # Fetching a number waits for the device.
        float(norm)
        now = time.monotonic()
        if update == CALIBRATION_WARMUP:
            # The first steps allocate, compile, and read what the loader built ahead.
            started = now
        counted = update - CALIBRATION_WARMUP
        # Of each kind of batches that comes in turn as many as of the others.
        whole = counted % run.data.num_kinds == 0
        if whole and counted >= CALIBRATION_STEPS and now - begun >= CALIBRATION_SECONDS:
            break
    return (time.monotonic() - started) / max(1, counted)
