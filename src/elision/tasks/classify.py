"""Fine-tuning for classification and regression: labelled rows and a pretrained model in, a run with a classifier out.

result = finetune_classifier(Path("runs/bert-tiny"), train_rows, valid_rows, Path("runs/sentiment"))
result.metrics["accuracy"], result.majority
"""

import dataclasses
import hashlib
import json
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import elision
from elision.atomic import locked, write_json
from elision.data.loader import Loader
from elision.data.order import derive_seed
from elision.errors import InputError
from elision.loaded import Loaded
from elision.model.backbones import Backbone
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.tasks.classifier import MIN_ROW_LENGTH, scores_of
from elision.tasks.labelled import Encoding, LabelledPlan, LeaveAlone, Row, Task, choose_task, classes, scores
from elision.tasks.scores import ClassScore, by_class, check_metric, measure_classes, measure_scores, rank
from elision.tasks.table import Columns
from elision.train import checkpoint
from elision.train.loop import Progress, Run, fit
from elision.train.optim import AdamW
from elision.train.precision import compute_dtype
from elision.train.schedule import Linear
from elision.train.settings import Train

RESULTS = "results.json"

# A row, (text, label), (first, second, label), or a mapping with "text", "label" and perhaps "pair".
AnyRow = Row | tuple[Any, ...] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class FineTune:
    """How a model is fine-tuned."""

    task: Literal["auto", "classification", "regression"] = "auto"
    """auto: numbers with a fraction are scores, everything else is a class"""
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
    """tokens in an example, what is longer is cut; None = the length of the model's pretraining examples"""
    seed: int = 1
    """of the new head, the order of the rows and the dropout"""
    metric: str | None = None
    """the held-out measure that picks the best checkpoint; None = accuracy, or pearson"""
    from_scratch: bool = False
    """start from random weights in the same architecture: what did pretraining bring?"""
    freeze_backbone: bool = False
    """train the new head only"""
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


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a fine-tuning run: the held-out measures of its best checkpoint."""

    folder: Path
    task: Task
    metrics: dict[str, float]
    by_class: list[ClassScore]
    """empty for a regression"""
    majority: float
    """accuracy of always saying the commonest class, or mean squared error of always saying the mean score"""
    best_step: int
    seconds: float


def finetune_classifier(
    model: Path | str | Loaded,
    train: Sequence[AnyRow],
    valid: Sequence[AnyRow],
    out: Path,
    settings: FineTune = FineTune(),
    *,
    columns: Columns = Columns(),
    device: torch.device = torch.device("cpu"),
    report: Callable[[Progress], None] = lambda progress: None,
    begin: Callable[[Run, "Prepared", int], None] = lambda run, prepared, step: None,
) -> Result:
    """Fine-tune a pretrained model on labelled rows, or go on with the run that is already in `out`.

    model: a run, checkpoint or Hugging Face folder, or what `elision.load` returned. Rows are `Row`s, tuples
    (text, label) or (first, second, label), or mappings with "text", "label" and perhaps "pair". `report` hears of
    progress, `begin` of the run before it starts.

    Raises: InputError for labels that do not fit, or a folder that holds another run.
    """
    out = Path(out)
    prepared = prepare(model, train, valid, settings, columns)
    with locked(out, "trained"):
        run = _run(prepared, settings, out, device, report)
        last = checkpoint.read_index(out)["last"]
        begin(run, prepared, int(last.removeprefix("step-")) if last else 0)
        state = fit(run)
        return _finish(run, prepared, state.seconds)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Everything decided and tokenised before training starts."""

    recipe: Recipe
    task: Task
    loaded: Loaded
    train: LabelledPlan
    valid: LabelledPlan
    truth: np.ndarray
    majority: float
    num_cut: int
    """training rows that are longer than max_length"""
    fingerprint: str
    """of rows and pretrained weights"""


def prepare(
    model: Path | str | Loaded,
    train: Sequence[AnyRow],
    valid: Sequence[AnyRow],
    settings: FineTune,
    columns: Columns = Columns(),
) -> Prepared:
    """Check the rows against each other and against the model, choose the task, tokenise."""
    train, valid = [_row(row) for row in train], [_row(row) for row in valid]
    if not train or not valid:
        raise InputError(f"there are {len(train)} training and {len(valid)} held-out rows: give at least one of each")
    pair = train[0].pair is not None
    for row in (*train, *valid):
        if (row.pair is not None) != pair:
            raise InputError(
                f"{row.where or row.text[:40]!r}: pairs and single texts are mixed; all rows must be alike"
            )
    kind, labels = choose_task(train, settings.task)
    loaded = model if isinstance(model, Loaded) else elision.load(model)
    recipe = loaded.recipe
    backbone = recipe.backbone
    if settings.layer_decay != 1 and getattr(backbone, "sharing", "none") != "none":
        raise InputError(
            f"layer_decay is {settings.layer_decay}, but the blocks of {recipe.name} share their weights (sharing "
            f"{backbone.sharing!r}), so none has a rate of its own: leave layer_decay at 1"
        )
    pretrained_length = min(recipe.segmenter.max_length, backbone.max_length or recipe.segmenter.max_length)
    vocabulary = loaded.tokenizer.vocabulary
    max_length = settings.max_length or pretrained_length
    encoding = Encoding.of(backbone, vocabulary, max_length)
    targets = scores(train) if kind == "regression" else classes(train, labels)
    plan = LabelledPlan(train, loaded.tokenizer, encoding, targets)
    held_out = scores(valid) if kind == "regression" else classes(valid, labels)
    truth = np.array(held_out)
    task = Task(kind, labels, pair, max_length, check_metric(settings.metric, kind, len(labels)), columns)
    if kind == "regression":
        majority = float(np.mean((truth - np.mean(targets)) ** 2))
    else:
        majority = float(np.mean(truth == Counter(targets).most_common(1)[0][0]))
    return Prepared(
        recipe=dataclasses.replace(
            recipe,
            name=f"{recipe.name}-{kind}",
            train=_train(settings, len(train), settings.rate_for(backbone)),
        ),
        task=task,
        loaded=loaded,
        train=plan,
        valid=LabelledPlan(valid, loaded.tokenizer, encoding, held_out),
        truth=truth,
        majority=majority,
        num_cut=int((plan.lengths() > max_length).sum()),
        fingerprint=_fingerprint(train, valid, loaded),
    )


def _train(settings: FineTune, num_rows: int, learning_rate: float) -> Train:
    per_epoch = max(1, math.ceil(num_rows / settings.batch_size))
    steps = settings.steps or max(1, math.ceil(settings.epochs * num_rows / settings.batch_size))
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
    recipe, task, train = prepared.recipe, prepared.task, prepared.recipe.train
    vocabulary = prepared.loaded.tokenizer.vocabulary
    torch.manual_seed(derive_seed(train.seed, "weights"))
    model = LanguageModel(recipe.backbone, (task.objective,), prepared.loaded.model.backbone.vocab_size)
    head = model.heads[task.objective.name]
    if not settings.from_scratch:
        model.backbone.load_state_dict(prepared.loaded.model.backbone.standalone_state())
    if settings.freeze_backbone:
        model.backbone.requires_grad_(False)
    if task.type == "regression" and head.output.bias is not None:
        # The head starts at the mean score instead of having to travel there.
        torch.nn.init.constant_(head.output.bias, float(np.mean(prepared.train.labels)))
    dtype = compute_dtype(train.precision, device)

    def score(model: LanguageModel) -> dict[str, float]:
        return _measure(task, scores_of(model, prepared.valid, dtype), prepared.truth)

    run = Run(
        folder=folder,
        model=model,
        train=train,
        data=Loader(
            plan=prepared.train,
            noise=LeaveAlone(),
            vocabulary=vocabulary,
            seed=train.seed,
            batch_size=train.batch_size,
            microbatch_size=train.batch_size,
            row_length=max(MIN_ROW_LENGTH, int(prepared.train.lengths().clip(max=task.max_length).max())),
        ),
        device=device,
        score=score,
        rank=lambda values: rank(values, task.metric),
        report=report,
    )
    requested = {"finetune": dataclasses.asdict(settings), "data": prepared.fingerprint}
    _lay_out(run, prepared, requested)
    return run


def _measure(task: Task, scores_NC: Tensor, truth: np.ndarray) -> dict[str, float]:
    if task.type == "regression":
        values = measure_scores(truth, scores_NC[:, 0].double().numpy())
        return {"loss": values["mean_squared_error"], **values}
    loss = float(F.cross_entropy(scores_NC, torch.from_numpy(truth)))
    return {"loss": loss, **measure_classes(truth, scores_NC.argmax(-1).numpy(), len(task.labels))}


def _lay_out(run: Run, prepared: Prepared, requested: dict[str, Any]) -> None:
    """Write what the folder of a new run starts with; for one that is there, check that it is the same run."""
    about = run.folder / "run.json"
    if about.exists():
        try:
            earlier = json.loads(about.read_text(encoding="utf-8"))["requested"]
            settings, data = earlier["finetune"], earlier["data"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise InputError(f"{about} is torn, or of a run that is no fine-tuning: name another --out") from None
        if data != prepared.fingerprint:
            raise InputError(
                f"the run {run.folder} was fine-tuned from another model or on other rows: name another --out, or "
                f"delete it"
            )
        for name, value in requested["finetune"].items():
            if settings.get(name) != value:
                raise InputError(
                    f"the run {run.folder} was started with {name} {settings.get(name)!r}, now it is {value!r}: go on "
                    f"with the same settings, or name another --out"
                )
        return
    if any(child.name != ".lock" for child in run.folder.iterdir()):
        raise InputError(f"{run.folder} holds files that are no run of elision: name an empty folder with --out")
    prepared.recipe.save(run.folder / "recipe.json")
    prepared.task.save(run.folder)
    prepared.loaded.tokenizer.save(run.folder / "tokenizer")
    write_json(
        about,
        {
            "format": 1,
            "elision": elision.__version__,
            "torch": torch.__version__,
            "command": shlex.join(["elision", *sys.argv[1:]]),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "init_from": None if requested["finetune"]["from_scratch"] else str(prepared.loaded.path),
            "parameters": run.model.num_parameters(),
            "requested": requested,
        },
    )


def _finish(run: Run, prepared: Prepared, seconds: float) -> Result:
    """Measure the best checkpoint once more, class by class, and write results.json."""
    task = prepared.task
    best = checkpoint.find(run.folder)
    checkpoint.load_into(run.model, checkpoint.read_weights(best), best)
    dtype = compute_dtype(run.train.precision, run.device)
    scores_NC = scores_of(run.model.eval(), prepared.valid, dtype)
    table = []
    if task.type == "classification":
        table = by_class(prepared.truth, scores_NC.argmax(-1).numpy(), task.labels)
    result = Result(
        folder=run.folder,
        task=task,
        metrics=_measure(task, scores_NC, prepared.truth),
        by_class=table,
        majority=prepared.majority,
        best_step=int(best.name.removeprefix("step-")),
        seconds=seconds,
    )
    write_json(
        run.folder / RESULTS,
        {
            "task": task.type,
            "best_step": result.best_step,
            "steps": run.train.steps,
            "seconds": seconds,
            "num_valid": len(prepared.valid),
            "metrics": result.metrics,
            "majority": result.majority,
            "by_class": [dataclasses.asdict(line) for line in table],
        },
    )
    return result


def _fingerprint(train: Sequence[Row], valid: Sequence[Row], loaded: Loaded) -> str:
    digest = hashlib.sha256(loaded.tokenizer.fingerprint.encode())
    for rows in (train, valid):
        for row in rows:
            digest.update(repr((row.text, row.pair, row.label)).encode("utf-8", "surrogatepass"))
        digest.update(b"|")
    for name, value in sorted(loaded.model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _row(row: AnyRow) -> Row:
    if isinstance(row, Row):
        return row
    if isinstance(row, Mapping):
        return Row(row["text"], row["label"], row.get("pair"))
    first, *second, label = row
    return Row(first, label, second[0] if second else None)
