"""Fine-tuning for classification and regression: labelled rows and a pretrained model in, a run with a classifier out.

result = finetune_classifier(Path("runs/bert-tiny"), train_rows, valid_rows, Path("runs/sentiment"))
result.metrics["accuracy"], result.baseline.value
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

import elision
from elision.errors import InputError
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from elision.tasks.classifier import scores_of
from elision.tasks.encoding import Encoding
from elision.tasks.finetune import Baseline, FineTune, Measured, Prepared, Result, finetune, fingerprint
from elision.tasks.labelled import LabelledPlan, Row, choose_task, classes, scores
from elision.tasks.scores import by_class, check_metric, measure_classes, measure_scores
from elision.tasks.table import Columns
from elision.tasks.task import Task
from elision.train.loop import Progress, Run

__all__ = ["AnyRow", "FineTune", "Kind", "Prepared", "Result", "finetune_classifier", "prepare"]

# A row, (text, label), (first, second, label), or a mapping with "text", "label" and perhaps "pair".
AnyRow = Row | tuple[Any, ...] | Mapping[str, Any]

Kind = Literal["auto", "classification", "regression"]


def finetune_classifier(
    model: Path | str | Loaded,
    train: Sequence[AnyRow],
    valid: Sequence[AnyRow],
    out: Path,
    settings: FineTune = FineTune(),
    *,
    kind: Kind = "auto",
    columns: Columns = Columns(),
    device: torch.device = torch.device("cpu"),
    report: Callable[[Progress], None] = lambda progress: None,
    begin: Callable[[Run, Prepared, int], None] = lambda run, prepared, step: None,
) -> Result:
    """Fine-tune a pretrained model on labelled rows, or go on with the run that is already in `out`.

    model: a run, checkpoint or Hugging Face folder, or what `elision.load` returned. Rows are `Row`s, tuples
    (text, label) or (first, second, label), or mappings with "text", "label" and perhaps "pair". kind: "auto" takes
    numbers with a fraction for scores, everything else for classes. `report` hears of progress, `begin` of the run
    before it starts.

    Raises: InputError for labels that do not fit, or a folder that holds another run.
    """
    return finetune(prepare(model, train, valid, settings, kind, columns), out, settings, device, report, begin)


def prepare(
    model: Path | str | Loaded,
    train: Sequence[AnyRow],
    valid: Sequence[AnyRow],
    settings: FineTune,
    kind: Kind = "auto",
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
                f"{row.where or repr(row.text[:40])}: pairs and single texts are mixed; all rows must be alike"
            )
    chosen, labels = choose_task(train, kind)
    loaded = model if isinstance(model, Loaded) else elision.load(model)
    loaded.read_words(text for row in (*train, *valid) for text in (row.text, row.pair) if text is not None)
    max_length = settings.length_for(loaded.recipe)
    encoding = Encoding.of(loaded.recipe.backbone, loaded.tokenizer.vocabulary, max_length)
    regression = chosen == "regression"
    targets = scores(train) if regression else classes(train, labels)
    truth = np.array(scores(valid) if regression else classes(valid, labels))
    plan = LabelledPlan(train, loaded.tokenizer, encoding, targets)
    task = Task(chosen, labels, pair, max_length, check_metric(settings.metric, chosen, len(labels)), columns)
    if regression:
        baseline = Baseline("mean squared error of the mean score", float(np.mean((truth - np.mean(targets)) ** 2)))
    else:
        commonest = Counter(targets).most_common(1)[0][0]
        baseline = Baseline("accuracy of the commonest class", float(np.mean(truth == commonest)))

    def start(model: LanguageModel) -> None:
        bias = model.heads[task.objective.name].output.bias
        if regression and bias is not None:
            # The head starts at the mean score instead of having to travel there.
            torch.nn.init.constant_(bias, float(np.mean(targets)))

    return Prepared(
        task=task,
        loaded=loaded,
        train=plan,
        held_out=LabelledHeldOut(task, LabelledPlan(valid, loaded.tokenizer, encoding, None), truth),
        baseline=baseline,
        num_rows=len(train),
        num_cut=int((plan.lengths() > max_length).sum()),
        fingerprint=fingerprint(
            loaded, *([(row.text, row.pair, row.label) for row in rows] for rows in (train, valid))
        ),
        choices={"task": kind},
        start=start,
        decoder_row_length=encoding.decoder_row_length(plan.lengths()),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledHeldOut:
    """Held-out texts with their classes or scores."""

    task: Task
    plan: LabelledPlan
    truth: np.ndarray
    """int class numbers or float scores [N]"""

    def __len__(self) -> int:
        return len(self.truth)

    def measure(self, model: LanguageModel, dtype: torch.dtype) -> Measured:
        """Return the loss, the measures of the task, and for classes a line each."""
        scores_NC = scores_of(model, self.plan, dtype)
        if self.task.type == "regression":
            values = measure_scores(self.truth, scores_NC[:, 0].double().numpy())
            return Measured({"loss": values["mean_squared_error"], **values}, [])
        loss = float(F.cross_entropy(scores_NC, torch.from_numpy(self.truth)))
        predicted = scores_NC.argmax(-1).numpy()
        values = measure_classes(self.truth, predicted, len(self.task.labels))
        return Measured({"loss": loss, **values}, by_class(self.truth, predicted, self.task.labels))


def _row(row: AnyRow) -> Row:
    if isinstance(row, Row):
        return row
    if isinstance(row, Mapping):
        return Row(row["text"], row["label"], row.get("pair"))
    first, *second, label = row
    return Row(first, label, second[0] if second else None)
