"""The course of every fine-tuning: examples and a pretrained model in, a run with a new head out.

`tasks.classify`, `tasks.tag`, `tasks.answer` and `tasks.seq2seq` prepare examples and say how a model is measured; the rest
is here.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch

from elision.atomic import locked, write_json
from elision.data.answers import Answers
from elision.data.example import Example
from elision.data.loader import Loader
from elision.data.order import derive_seed
from elision.errors import InputError
from elision.loaded import Loaded, number_of
from elision.model.backbones import Backbone
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.tasks.batches import MIN_ROW_LENGTH, Examples
from elision.tasks.scores import ClassScore, rank
from elision.tasks.task import AnyTask, save_task
from elision.text.vocabulary import Vocabulary
from elision.train import checkpoint
from elision.train.about import ABOUT, write_about
from elision.train.loop import Progress, Run, fit
from elision.train.optim import AdamW
from elision.train.precision import compute_dtype
from elision.train.schedule import Linear
from elision.train.settings import Train

RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class FineTune:
    """How a model is fine-tuned."""

    epochs: float = 3.0
    """passes over the training rows"""
    steps: int | None = None
    """updates, instead of epochs"""
    batch_size: int = 32
    """rows in an update"""
    learning_rate: float | None = None
    """the peak; None = 5e-5 * 768 / width, at most 3e-4 (narrow models want more), tenfold for a frozen backbone"""
    warmup: float = 0.1
    """share of the steps over which the rate rises; then it falls linearly to zero"""
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    """each block learns at this share of the rate of the block above it, the embeddings slowest (ELECTRA: 0.8)"""
    max_length: int | None = None
    """tokens in an example; None = the length of the model's pretraining examples (384 at most to find answers)"""
    seed: int = 1
    """of the new head, the order of the rows and the dropout"""
    metric: str | None = None
    """the held-out measure that picks the best checkpoint; None = accuracy, pearson for scores, f1 for tags and answers,
    chrf for written texts"""
    from_scratch: bool = False
    """start from random weights in the same architecture: what did pretraining bring?"""
    freeze_backbone: bool = False
    """train the new head only"""
    language: str | None = None
    """of the texts, where the model has embeddings of languages; None = its first"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the computation; auto = bfloat16 where the hardware multiplies it faster"""

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch_size", "learning_rate", "max_length"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} is {value}: it must be above 0")
        if self.from_scratch and self.freeze_backbone:
            raise InputError(
                "from_scratch and freeze_backbone together would train a head over random features: drop one"
            )

    def rate_for(self, backbone: Backbone) -> float:
        """Return the peak learning rate for a backbone."""
        if self.learning_rate is not None:
            return self.learning_rate
        return min(3e-4, 5e-5 * 768 / backbone.hidden_size) * (10 if self.freeze_backbone else 1)

    def length_for(self, recipe: Recipe) -> int:
        """Return how many tokens an example may have."""
        pretrained, limit = recipe.segmenter.max_length, recipe.backbone.max_length
        # What reads texts of any length may have been pretrained on short windows of them.
        return self.max_length or (max(pretrained, MIN_ROW_LENGTH) if limit is None else min(pretrained, limit))


class TrainingExamples(Examples, Protocol):
    """What a `Loader` deals out, and how long each example is before it is cut."""

    contiguous: bool

    def lengths(self) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Measured:
    """Held-out measures by name, "loss" or not among them, and how each class fared (empty where there are none)."""

    metrics: dict[str, float]
    by_class: list[ClassScore]


class HeldOut(Protocol):
    """Held-out rows that measure a model in evaluation mode."""

    def __len__(self) -> int: ...

    def measure(self, model: LanguageModel, dtype: torch.dtype) -> Measured: ...


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What a trivial predictor reaches on the held-out rows."""

    name: str
    value: float


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Everything decided and tokenised before training starts."""

    task: AnyTask
    loaded: Loaded
    train: TrainingExamples
    held_out: HeldOut
    baseline: Baseline
    num_rows: int
    """training rows, of which a long one may be several examples"""
    num_cut: int
    """training rows that are longer than max_length"""
    fingerprint: str
    """of rows and pretrained weights"""
    choices: dict[str, Any] = dataclasses.field(default_factory=dict)
    """what was asked for besides `FineTune`"""
    start: Callable[[LanguageModel], None] = lambda model: None
    """sets weights of the new head before the first step"""
    decoder_row_length: int | None = None
    """places in a row of the side that is written, where there are two"""
    notes: tuple[str, ...] = ()
    """what the user should know before it starts"""
    in_full: HeldOut | None = None
    """what measures the best checkpoint at the end, where that would take too long every epoch; None = held_out"""
    afterwards: Callable[[LanguageModel, torch.dtype, Path], dict[str, Any]] = lambda model, dtype, folder: {}
    """what is done with the best checkpoint in the run's folder after it was measured; returns what results.json is to say"""


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a fine-tuning run: the held-out measures of its best checkpoint."""

    folder: Path
    task: AnyTask
    metrics: dict[str, float]
    by_class: list[ClassScore]
    """empty where there are no classes"""
    baseline: Baseline
    best_step: int
    seconds: float
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    """what results.json says besides"""


def finetune(
    prepared: Prepared,
    out: Path,
    settings: FineTune,
    device: torch.device = torch.device("cpu"),
    report: Callable[[Progress], None] = lambda progress: None,
    begin: Callable[[Run, Prepared, int], None] = lambda run, prepared, step: None,
) -> Result:
    """Fine-tune, or go on with the run that is already in `out`.

    `report` hears of progress, `begin` of the run and its first step before it starts.

    Raises: InputError for a folder that holds another run.
    """
    out = Path(out)
    with locked(out, "trained"):
        run = _run(prepared, settings, out, device, report)
        last = checkpoint.read_index(out)["last"]
        begin(run, prepared, int(last.removeprefix("step-")) if last else 0)
        state = fit(run)
        return _finish(run, prepared, state.seconds)


def fingerprint(loaded: Loaded, *tables: Iterable[tuple[Any, ...]]) -> str:
    """Return a hash of the rows of all tables, the tokenizer and the pretrained weights."""
    digest = hashlib.sha256(loaded.tokenizer.fingerprint.encode())
    for rows in tables:
        for row in rows:
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
        digest.update(b"|")
    for name, value in sorted(loaded.model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class LeaveAlone:
    """The noise of fine-tuning: nothing is left out, nothing is to be restored."""

    restores: ClassVar[str] = "nothing"
    lookahead: ClassVar[int] = 0

    def check(self, vocabulary: Vocabulary) -> None:
        """Any vocabulary will do."""

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example as it is."""
        return example


def _train(settings: FineTune, num_examples: int, learning_rate: float) -> Train:
    per_epoch = max(1, math.ceil(num_examples / settings.batch_size))
    steps = settings.steps or max(1, math.ceil(settings.epochs * num_examples / settings.batch_size))
    return Train(
        batch_size=settings.batch_size,
        steps=steps,
        optimizer=AdamW(
            learning_rate=learning_rate, weight_decay=settings.weight_decay, layer_decay=settings.layer_decay
        ),
        schedule=Linear(warmup=settings.warmup),
        seed=settings.seed,
        precision=settings.precision,
        # Once an epoch; but at least thrice, and not more than six times in a run of many short epochs.
        eval_every=max(1, min(max(per_epoch, math.ceil(steps / 6)), math.ceil(steps / 3))),
        keep_checkpoints=1,
    )


def _run(
    prepared: Prepared, settings: FineTune, folder: Path, device: torch.device, report: Callable[[Progress], None]
) -> Run:
    task, loaded, base = prepared.task, prepared.loaded, prepared.loaded.recipe
    if settings.layer_decay != 1 and getattr(base.backbone, "sharing", "none") != "none":
        raise InputError(
            f"layer_decay is {settings.layer_decay}, but the blocks of {base.name} share their weights (sharing "
            f"{base.backbone.sharing!r}), so none has a rate of its own: leave layer_decay at 1"
        )
    train = _train(settings, len(prepared.train), settings.rate_for(base.backbone))
    language = settings.language or base.default_language
    recipe = dataclasses.replace(base, name=f"{base.name}-{task.type}", train=train, default_language=language)
    torch.manual_seed(derive_seed(train.seed, "weights"))
    model = LanguageModel(recipe.backbone, (task.objective,), loaded.model.backbone.vocab_size)
    if settings.from_scratch:
        model.backbone.read_symbols(loaded.tokenizer.symbols())
    else:
        model.backbone.load_state_dict(loaded.model.backbone.standalone_state())
    if language is not None:
        model.backbone.speak(number_of(language, recipe))
    if settings.freeze_backbone:
        model.backbone.requires_grad_(False)
    prepared.start(model)
    dtype = compute_dtype(train.precision, device)
    run = Run(
        folder=folder,
        model=model,
        train=train,
        data=Loader(
            plan=prepared.train,
            noise=LeaveAlone(),
            vocabulary=loaded.tokenizer.vocabulary,
            seed=train.seed,
            batch_size=train.batch_size,
            microbatch_size=train.batch_size,
            row_length=max(MIN_ROW_LENGTH, int(prepared.train.lengths().clip(max=task.max_length).max())),
            answers=Answers(decoder_row_length=prepared.decoder_row_length),
        ),
        device=device,
        score=lambda model: prepared.held_out.measure(model, dtype).metrics,
        rank=lambda values: rank(values, task.metric),
        report=report,
    )
    _lay_out(run, prepared, recipe, settings)
    return run


def _lay_out(run: Run, prepared: Prepared, recipe: Recipe, settings: FineTune) -> None:
    """Write what the folder of a new run starts with; for one that is there, check that it is the same run."""
    about = run.folder / ABOUT
    asked = {**dataclasses.asdict(settings), **prepared.choices}
    if about.exists():
        try:
            earlier = json.loads(about.read_text(encoding="utf-8"))["requested"]
            before, data = earlier["finetune"], earlier["data"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise InputError(f"{about} is torn, or of a run that is no fine-tuning: name another --out") from None
        if data != prepared.fingerprint:
            raise InputError(
                f"the run {run.folder} was fine-tuned from another model or on other rows: name another --out, or "
                f"delete it"
            )
        for name, value in asked.items():
            if before.get(name) != value:
                raise InputError(
                    f"the run {run.folder} was started with {name} {before.get(name)!r}, now it is {value!r}: go on "
                    f"with the same settings, or name another --out"
                )
        return
    if any(child.name != ".lock" for child in run.folder.iterdir()):
        raise InputError(f"{run.folder} holds files that are no run of elision: name an empty folder with --out")
    recipe.save(run.folder / "recipe.json")
    save_task(prepared.task, run.folder)
    prepared.loaded.tokenizer.save(run.folder / "tokenizer")
    requested = {"finetune": asked, "data": prepared.fingerprint}
    write_about(run.folder, run.model, None if settings.from_scratch else prepared.loaded.path, requested)


def _finish(run: Run, prepared: Prepared, seconds: float) -> Result:
    """Measure the best checkpoint once more, class by class, and write results.json."""
    best = checkpoint.find(run.folder)
    checkpoint.load_into(run.model, checkpoint.read_weights(best), best)
    dtype, held_out = compute_dtype(run.train.precision, run.device), prepared.in_full or prepared.held_out
    measured = held_out.measure(run.model.eval(), dtype)
    result = Result(
        folder=run.folder,
        task=prepared.task,
        metrics=measured.metrics,
        by_class=measured.by_class,
        baseline=prepared.baseline,
        best_step=int(best.name.removeprefix("step-")),
        seconds=seconds,
        more=prepared.afterwards(run.model, dtype, run.folder),
    )
    write_json(
        run.folder / RESULTS,
        {
            "task": prepared.task.type,
            "best_step": result.best_step,
            "steps": run.train.steps,
            "seconds": seconds,
            "num_valid": len(held_out),
            "metrics": result.metrics,
            "baseline": dataclasses.asdict(result.baseline),
            "by_class": [dataclasses.asdict(line) for line in measured.by_class],
            **result.more,
        },
    )
    return result
