"""A fine-tuned model at work: texts in, labels with probabilities (or scores) out."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import elision
from elision.data.batch import collate
from elision.data.example import Example
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.objectives import Classification
from elision.tasks.labelled import Encoding, LabelledPlan, Row, Task
from elision.text.tokenizer import Tokenizer
from elision.train.precision import autocast, compute_dtype

# Examples in a forward pass, texts held at a time, and the shortest row that examples are packed into.
EXAMPLES_PER_BATCH = 64
TEXTS_AT_A_TIME = 1024
MIN_ROW_LENGTH = 128


class Examples(Protocol):
    """Anything that builds examples by number."""

    def __len__(self) -> int: ...

    def example(self, index: int) -> Example: ...


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
        seeds = sorted(str(folder) for folder in Path(path).glob("seed-*") if (folder / Task.FILE).exists())
        if seeds:
            raise InputError(f"{path} holds the runs of several seeds: name one of {', '.join(seeds)}")
        loaded = elision.load(path, device=device)
        if loaded.task is None:
            raise InputError(
                f"{path} is no run of `elision finetune`: make one with `elision finetune classify --model {path}`, or name "
                f"the run that it was exported from."
            )
        return Classifier(loaded.model, loaded.tokenizer, loaded.task)

    def predict(self, rows: Iterable[Row | str | tuple[str, str]], precision: str = "auto") -> Iterator[Prediction]:
        """Yield a prediction for each text or pair, in order, in constant memory.

        Raises: InputError when a row is a pair and the model reads single texts, or the other way round.
        """
        device = self.model.backbone.embeddings.tokens.weight.device
        dtype = compute_dtype(precision, device)
        encoding = Encoding.of(self.model.backbone.settings, self.tokenizer.vocabulary, self.task.max_length)
        for chunk in _chunks(rows, TEXTS_AT_A_TIME):
            checked = [self._check(row) for row in chunk]
            plan = LabelledPlan(checked, self.tokenizer, encoding, None)
            yield from self.interpret(scores_of(self.model, plan, dtype))

    def interpret(self, scores_NC: Tensor) -> list[Prediction]:
        """Turn the model's scores [N, C] into predictions."""
        if self.task.type == "regression":
            return [Prediction(None, (), score) for score in scores_NC[:, 0].tolist()]
        probabilities = torch.softmax(scores_NC, -1)
        best = probabilities.argmax(-1).tolist()
        return [Prediction(self.task.labels[i], tuple(row)) for i, row in zip(best, probabilities.tolist())]

    def _check(self, row: Row | str | tuple[str, str]) -> Row:
        if isinstance(row, str):
            row = Row(row)
        elif not isinstance(row, Row):
            row = Row(row[0], pair=row[1])
        if (row.pair is not None) != self.task.pair:
            reads = "pairs of texts" if self.task.pair else "single texts"
            raise InputError(f"{row.where or repr(row.text[:40])}: this model reads {reads}, but got the other")
        return row


@torch.no_grad()
def scores_of(model: LanguageModel, plan: Examples, dtype: torch.dtype = torch.float32, packing: bool = True) -> Tensor:
    """Return the scores [N, C] of all examples in order, on the CPU; the model must be in evaluation mode."""
    (objective,) = model.objectives
    assert isinstance(objective, Classification) and not model.training
    head, device = model.heads[objective.name], model.backbone.embeddings.tokens.weight.device
    # Neighbours of similar length fill rows best, and leave the least empty when nothing is packed.
    examples = [plan.example(index) for index in range(len(plan))]
    order = np.argsort([len(example) for example in examples], kind="stable")
    scores_NC = torch.empty(len(plan), objective.num_labels)
    for start in range(0, len(order), EXAMPLES_PER_BATCH):
        chosen = order[start : start + EXAMPLES_PER_BATCH].tolist()
        # Rows have room for several short examples, yet stay short enough for attention to be cheap.
        width = max(MIN_ROW_LENGTH, len(examples[chosen[-1]]))
        batch = collate([examples[i] for i in chosen], pad_id=0, row_length=width, packing=packing, sources=chosen).to(
            device
        )
        with autocast(device, dtype):
            output = model.backbone(batch)
            scores_EC = objective.scores(head, model.backbone, output, batch)
        scores_NC[torch.tensor(batch.examples)] = scores_EC.float().cpu()
    return scores_NC


def _chunks(rows: Iterable[Row | str | tuple[str, str]], size: int) -> Iterator[Sequence[Row | str | tuple[str, str]]]:
    held: list[Row | str | tuple[str, str]] = []
    for row in rows:
        held.append(row)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held
