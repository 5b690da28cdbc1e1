"""An answerer at work: questions with contexts in, the stretch of each context that answers out.

W places in a window, K best begins or ends.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from elision.data.example import NO_TARGET, Example
from elision.model.language_model import LanguageModel
from elision.objectives import SpanExtraction
from elision.objectives.answering import BEGIN, END
from elision.tasks.batches import chunks, device_of, in_batches
from elision.tasks.encoding import Encoding
from elision.tasks.fine_tuned import load_fine_tuned
from elision.tasks.questions import Question
from elision.tasks.task import AnsweringTask, Windows
from elision.text.tokenizer import Tokenizer
from elision.text.words import read_new_words
from elision.train.precision import autocast, compute_dtype

QUESTIONS_AT_A_TIME = 128


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """An answer: its text, begin and end (exclusive) in the context, its score and its share among those considered.

    The score is the sum of the logits of begin and end. An empty text says that there is no answer.
    """

    text: str
    begin: int
    end: int
    score: float
    probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the context of a question: tokens `begin` up to `end`."""

    question: int
    begin: int
    end: int


class QuestionPlan:
    """Questions as examples: question and context as a pair, a context that is too long in overlapping windows.

    Where the true answers are given, the target is the first; a window that does not hold it whole has both ends at the
    summary token, as one of a question without an answer has.
    """

    contiguous = False

    def __init__(self, questions: Sequence[Question], tokenizer: Tokenizer, encoding: Encoding, windows: Windows):
        self._encoding = encoding
        room = encoding.max_length - encoding.num_symbols(pair=True)
        # A context needs room too where examples are short.
        most = max(1, min(windows.max_question, room // 2))
        self._questions: list[np.ndarray] = []
        self._contexts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._targets: list[tuple[int, int] | None] = []
        self._rows = list(questions)
        self.windows: list[Window] = []
        self.of_question: list[list[int]] = []
        """for each question, the numbers of its windows"""
        for block in chunks(enumerate(questions), QUESTIONS_AT_A_TIME):
            rows = [row for _, row in block]
            new = [context for context in dict.fromkeys(row.context for row in rows) if context not in self._contexts]
            for context, placed in zip(new, tokenizer.placed(new), strict=True):
                offsets = np.array(placed.offsets, np.int64).reshape(-1, 2)
                self._contexts[context] = np.array(placed.ids, np.int64), offsets
            asked = tokenizer.encode_batch([row.question for row in rows])
            for (number, row), ids in zip(block, asked, strict=True):
                self._questions.append(ids[:most].astype(np.int64))
                self._targets.append(self._target(row))
                size = len(self._contexts[row.context][0])
                cut = list(_windows(size, room - len(self._questions[-1]), windows.stride))
                self.of_question.append(list(range(len(self.windows), len(self.windows) + len(cut))))
                self.windows += [Window(number, begin, end) for begin, end in cut]

    def __len__(self) -> int:
        return len(self.windows)

    def example(self, index: int) -> Example:
        """Build example `index`: a window."""
        window = self.windows[index]
        example = self._example(window)
        row = self._rows[window.question]
        if row.answers is None:
            return example
        targets = np.full(len(example), NO_TARGET, np.int64)
        ends = self._targets[window.question]
        if ends is None or ends[0] < window.begin or ends[1] >= window.end:
            targets[example.summary] = BEGIN + END
        else:
            begin, end = self.places(index, example)[np.array(ends) - window.begin]
            targets[begin], targets[end] = (BEGIN, END) if begin != end else (BEGIN + END,) * 2
        return dataclasses.replace(example, targets=targets)

    def places(self, index: int, example: Example) -> np.ndarray:
        """Return where the tokens of the window's context stand in its example: what the frame put after the question."""
        return np.flatnonzero(~example.special)[len(self._questions[self.windows[index].question]) :]

    def stretch(self, index: int, first: int, last: int) -> tuple[int, int]:
        """Return the characters (begin, end) of the context that tokens `first` to `last` of a window stand for."""
        window = self.windows[index]
        context = self._rows[window.question].context
        offsets = self._contexts[context][1]
        begin, end = int(offsets[window.begin + first, 0]), int(offsets[window.begin + last, 1])
        # Tokens of some tokenizers begin with the space before a word, or are one.
        while begin < end and context[begin].isspace():
            begin += 1
        while begin < end and context[end - 1].isspace():
            end -= 1
        return begin, end

    def lengths(self) -> np.ndarray:
        """Return how many tokens each example has."""
        symbols = self._encoding.num_symbols(pair=True)
        sizes = [window.end - window.begin + len(self._questions[window.question]) for window in self.windows]
        return np.array(sizes, np.int64) + symbols

    @property
    def num_cut(self) -> int:
        """How many questions are read in more than one window."""
        return sum(len(numbers) > 1 for numbers in self.of_question)

    def _example(self, window: Window) -> Example:
        ids, _ = self._contexts[self._rows[window.question].context]
        return self._encoding(self._questions[window.question], ids[window.begin : window.end])

    def _target(self, row: Question) -> tuple[int, int] | None:
        """Return the first and last token of the first true answer."""
        if not row.answers:
            return None
        answer = row.answers[0]
        offsets = self._contexts[row.context][1]
        inside = np.flatnonzero((offsets[:, 1] > answer.begin) & (offsets[:, 0] < answer.begin + len(answer.text)))
        return (int(inside[0]), int(inside[-1])) if len(inside) else None


class Answerer:
    """A fine-tuned model with its tokenizer and task. Open one with `Answerer.load`."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, task: AnsweringTask):
        self.model, self.tokenizer, self.task = model, tokenizer, task

    @staticmethod
    def load(path: str | Path, device: torch.device = torch.device("cpu")) -> "Answerer":
        """Load the best checkpoint of a fine-tuned run, one of its checkpoints, or an import.

        Raises: InputError when `path` is no answerer.
        """
        loaded = load_fine_tuned(path, AnsweringTask.learns, device)
        return Answerer(loaded.model, loaded.tokenizer, loaded.task)

    def predict(
        self, questions: Iterable[Question | tuple[str, str]], precision: str = "auto", top: int = 1
    ) -> Iterator[list[Found]]:
        """Yield the `top` best answers to each (question, context), the best first, in constant memory.

        With a model that has seen questions without an answer, "there is none" (an empty text) is among them.
        """
        dtype = compute_dtype(precision, device_of(self.model))
        task = self.task
        encoding = Encoding.of(self.model.backbone.settings, self.tokenizer.vocabulary, task.max_length, task.frame)
        for block in chunks(questions, QUESTIONS_AT_A_TIME):
            rows = [
                dataclasses.replace(each, answers=None) if isinstance(each, Question) else Question(*each)
                for each in block
            ]
            texts = (text for row in rows for text in (row.question, row.context))
            self.tokenizer = read_new_words(self.model.backbone, self.tokenizer, texts)
            plan = QuestionPlan(rows, self.tokenizer, encoding, task.windows)
            answers, _ = find_answers(self.model, plan, rows, task, dtype)
            yield from (found[:top] for found in answers)


@torch.no_grad()
def find_answers(
    model: LanguageModel,
    plan: QuestionPlan,
    questions: Sequence[Question],
    task: AnsweringTask,
    dtype: torch.dtype = torch.float32,
    packing: bool = True,
) -> tuple[list[list[Found]], float]:
    """Return the answers to each question, the best first, and the mean loss over the windows (0 without true answers).

    Among the begins and ends in the context, the `num_best` of each window are tried with one another; an answer is as
    good as in the window that likes it best, and "none" as in the one that likes it least. The model must be evaluating.
    """
    (objective,) = model.objectives
    assert isinstance(objective, SpanExtraction) and not model.training
    head, device = model.heads[objective.name], device_of(model)
    examples = [plan.example(index) for index in range(len(plan))]
    candidates: list[dict[tuple[int, int], float]] = [{} for _ in questions]
    nothing = [math.inf] * len(questions)
    loss = 0.0
    for batch in in_batches(examples, device, packing):
        with autocast(device, dtype):
            output = model.backbone(batch)
            scores = objective.scores(head, output).float().cpu().flatten(0, 1).numpy()
            if batch.num_targets:
                loss += float(objective.after(head, model.backbone, output, batch)[objective.name].sum)
        for index, summary_at in zip(batch.examples, batch.summary_at.tolist(), strict=True):
            example, question = examples[index], plan.windows[index].question
            nothing[question] = min(nothing[question], float(scores[summary_at].sum()))
            scores_W2 = scores[summary_at - example.summary + plan.places(index, example)]
            for first, last, score in best_spans(scores_W2, task.windows):
                span = plan.stretch(index, first, last)
                if span[0] < span[1]:
                    found = candidates[question]
                    found[span] = max(found.get(span, -math.inf), score)
    answers = []
    for row, found, none in zip(questions, candidates, nothing, strict=True):
        ranked = sorted(found.items(), key=lambda item: -item[1])[: task.windows.num_best]
        if task.unanswerable or not ranked:
            ranked = sorted([*ranked, ((0, 0), none)], key=lambda item: -item[1])
        shares = np.exp([score - ranked[0][1] for _, score in ranked])
        shares /= shares.sum()
        answers.append(
            [
                Found(row.context[begin:end], begin, end, score, float(share))
                for ((begin, end), score), share in zip(ranked, shares)
            ]
        )
    return answers, loss / max(1, len(plan))


def best_spans(scores_W2: np.ndarray, windows: Windows) -> list[tuple[int, int, float]]:
    """Return (first, last, score) of the best stretches of a window, made of its best begins and ends."""
    begins, ends = (np.argsort(-scores_W2[:, side], kind="stable")[: windows.num_best] for side in (0, 1))
    total_KK = scores_W2[begins, 0][:, None] + scores_W2[ends, 1]
    length_KK = ends[None, :] - begins[:, None] + 1
    fits = np.argwhere((length_KK >= 1) & (length_KK <= windows.max_answer))
    order = np.argsort([-total_KK[a, b] for a, b in fits], kind="stable")[: windows.num_best]
    return [(int(begins[a]), int(ends[b]), float(total_KK[a, b])) for a, b in fits[order]]


def _windows(num_tokens: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of windows of up to `room` tokens, each `stride` further than the last, up to the end.

    >>> list(_windows(10, 6, 3))
    [(0, 6), (3, 9), (6, 10)]
    """
    begin = 0
    while True:
        end = min(begin + room, num_tokens)
        yield begin, end
        if end == num_tokens:
            return
        begin += min(stride, room)
