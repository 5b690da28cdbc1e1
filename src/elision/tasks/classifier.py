"""A fine-tuned model at work: texts in, labels with probabilities (or scores) out."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.objectives import Classification
from elision.tasks.batches import Examples, chunks, device_of, in_batches
from elision.tasks.encoding import Encoding
from elision.tasks.fine_tuned import load_fine_tuned
from elision.tasks.labelled import LabelledPlan, Row
from elision.tasks.task import Task
from elision.text.tokenizer import Tokenizer
from elision.text.words import read_new_words
from elision.train.precision import autocast, compute_dtype

TEXTS_AT_A_TIME = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one text: a label and the probabilities of all classes in order, or a score."""

    label: str | None
    probabilities: tuple[float, ...]
    score: float | None = None

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return max(self.probabilities)


class Classifier:
    """A fine-tuned model with its tokenizer and task. Open one with `Classifier.load`."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, task: Task):
        self.model, self.tokenizer, self.task = model, tokenizer, task

    @staticmethod
    def load(path: str | Path, device: torch.device = torch.device("cpu")) -> "Classifier":
        """Load the best checkpoint of a fine-tuned run, or one of its checkpoints.

        Raises: InputError when `path` is no fine-tuned model.
        """
        loaded = load_fine_tuned(path, Task.learns, device)
        return Classifier(loaded.model, loaded.tokenizer, loaded.task)

    def predict(self, rows: Iterable[Row | str | tuple[str, str]], precision: str = "auto") -> Iterator[Prediction]:
        """Yield a prediction for each text or pair, in order, in constant memory.

        Raises: InputError when a row is a pair and the model reads single texts, or the other way round.
        """
        dtype = compute_dtype(precision, device_of(self.model))
        task = self.task
        encoding = Encoding.of(self.model.backbone.settings, self.tokenizer.vocabulary, task.max_length, task.frame)
        pair = task.pair
        for chunk in chunks(rows, TEXTS_AT_A_TIME):
            if pair is None:
                # Nobody said what the model reads: what comes first decides.
                pair = not isinstance(chunk[0], str) and (not isinstance(chunk[0], Row) or chunk[0].pair is not None)
            checked = [_checked(row, pair) for row in chunk]
            texts = (text for row in checked for text in (row.text, row.pair) if text is not None)
            self.tokenizer = read_new_words(self.model.backbone, self.tokenizer, texts)
            plan = LabelledPlan(checked, self.tokenizer, encoding, None)
            yield from self.interpret(scores_of(self.model, plan, dtype))

    def interpret(self, scores_NC: Tensor) -> list[Prediction]:
        """Turn the model's scores [N, C] into predictions."""
        if self.task.type == "regression":
            return [Prediction(None, (), score) for score in scores_NC[:, 0].tolist()]
        probabilities = torch.softmax(scores_NC, -1)
        best = probabilities.argmax(-1).tolist()
        return [Prediction(self.task.labels[i], tuple(row)) for i, row in zip(best, probabilities.tolist())]


@torch.no_grad()
def scores_of(model: LanguageModel, plan: Examples, dtype: torch.dtype = torch.float32, packing: bool = True) -> Tensor:
    """Return the scores [N, C] of all examples in order, on the CPU; the model must be in evaluation mode."""
    (objective,) = model.objectives
    assert isinstance(objective, Classification) and not model.training
    head, device = model.heads[objective.name], device_of(model)
    scores_NC = torch.empty(len(plan), objective.num_labels)
    for batch in in_batches([plan.example(index) for index in range(len(plan))], device, packing):
        with autocast(device, dtype):
            scores_EC = objective.scores(head, model.backbone, model.backbone(batch), batch)
        scores_NC[torch.tensor(batch.examples)] = scores_EC.float().cpu()
    return scores_NC


def _checked(row: Row | str | tuple[str, str], pair: bool) -> Row:
    if isinstance(row, str):
        row = Row(row)
    elif not isinstance(row, Row):
        row = Row(row[0], pair=row[1])
    if (row.pair is not None) != pair:
        reads = "pairs of texts" if pair else "single texts"
        raise InputError(f"{row.where or repr(row.text[:40])}: this model reads {reads}, but got the other")
    return row
