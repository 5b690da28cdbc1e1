"""Held-out pairs of texts: how well a model writes what was written of them."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from elision.atomic import write_text
from elision.generation.decoding import Decoding
from elision.model.language_model import LanguageModel
from elision.tasks.batches import device_of, in_batches
from elision.tasks.finetune import Measured
from elision.tasks.pairs_of_text import TextPair
from elision.tasks.prompt import Prompt
from elision.tasks.scores import by_class
from elision.tasks.seq2seq_scores import measure_texts
from elision.tasks.task import WritingTask
from elision.tasks.writer import read_examples, write_texts
from elision.tasks.writing import PairPlan, WritingEncoding
from elision.text.tokenizer import Tokenizer
from elision.train.precision import autocast


class PairsHeldOut:
    """Held-out pairs: the loss of their first references, and how good what the model writes is by all of them."""

    def __init__(
        self,
        task: WritingTask,
        pairs: Sequence[TextPair],
        tokenizer: Tokenizer,
        encoding: WritingEncoding,
        tokenize: str,
        hear: Callable[[int, int], None] = lambda done, total: None,
        decoding: Decoding | None = None,
    ):
        self.decoding = decoding or task.decoding
        self.task, self.pairs, self.tokenizer, self.encoding = task, pairs, tokenizer, encoding
        self.tokenize, self.hear = tokenize, hear
        self.outputs: list[str] = []
        self.signatures: tuple[str, ...] = ()
        self.prompt = Prompt(task.prompt)
        self.plan = PairPlan([(pair.source, pair.targets[0]) for pair in pairs], tokenizer, encoding, self.prompt)
        self._read = read_examples([pair.source for pair in pairs], tokenizer, encoding, self.prompt)

    def __len__(self) -> int:
        return len(self.pairs)

    def part(self, num: int) -> "PairsHeldOut":
        """Return `num` of the pairs, evenly spread, or all if there are not so many, that are written without a search.

        Both say to the same one how far they are.
        """
        num = min(num, len(self.pairs))
        chosen = [self.pairs[at] for at in np.linspace(0, len(self.pairs) - 1, num).round().astype(int)]
        quick = dataclasses.replace(self.decoding, num_beams=1, temperature=0.0, num_samples=1, num_texts=None)
        return PairsHeldOut(
            self.task, chosen, self.tokenizer, self.encoding, self.tokenize, lambda *done: self.hear(*done), quick
        )

    def measure(self, model: LanguageModel, dtype: torch.dtype) -> Measured:
        """Return the loss and the measures of what the model writes; the texts stay in `outputs`."""
        loss = loss_of(model, self.plan, dtype)
        with autocast(device_of(model), dtype):
            self.outputs = write_texts(model, self.tokenizer, self._read, self.encoding, self.decoding, self.hear)
        scores = measure_texts([pair.targets for pair in self.pairs], self.outputs, self.tokenize)
        self.signatures = scores.signatures
        values, lines = scores.values, []
        if labels := self.task.labels:
            # As the tokenizer writes them: it may know no capitals.
            texts = [self.tokenizer.decode(ids).strip() for ids in self.tokenizer.encode_batch(labels)]
            number = {label: n for n, label in enumerate(labels)}
            written = {text: n for n, text in enumerate(texts)}
            # What is none of the classes is wrong, whatever the truth.
            truth = np.array([number.get(pair.targets[0], -1) for pair in self.pairs])
            predicted = np.array([written.get(output, -2) for output in self.outputs])
            lines = by_class(truth, predicted, labels)
            # Of a word or two, neither n-grams nor the longest common sequence say anything.
            values = {name: values[name] for name in ("chrf", "exact_match")}
            self.signatures = tuple(each for each in scores.signatures if each.startswith("chrF"))
            values["accuracy"] = float(np.mean(truth == predicted))
            values["macro_f1"] = float(np.mean([line.f1 for line in lines]))
        return Measured({"loss": loss, **values}, lines)


@torch.no_grad()
def loss_of(model: LanguageModel, plan: PairPlan, dtype: torch.dtype = torch.float32) -> float:
    """Return the mean loss of a written token, in nats; the model must be in evaluation mode."""
    (objective,) = model.objectives
    total, count = 0.0, 0
    device = device_of(model)
    for batch in in_batches([plan.example(index) for index in range(len(plan))], device):
        with autocast(device, dtype):
            terms, _ = model(batch)
        total += float(terms[objective.name].sum)
        count += terms[objective.name].count
    return total / max(1, count)


def write_predictions(held_out: PairsHeldOut, path: Path) -> None:
    """Write source, references and output of every pair as JSON lines."""
    lines = (
        json.dumps({"source": pair.source, "references": list(pair.targets), "output": output}, ensure_ascii=False)
        for pair, output in zip(held_out.pairs, held_out.outputs, strict=True)
    )
    write_text(path, "".join(f"{line}\n" for line in lines))
