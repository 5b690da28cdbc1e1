"""A tagger at work: texts in, a tag for each word and the entities that the tags mark out."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elision.data.example import NO_TARGET, Example
from elision.model.language_model import LanguageModel
from elision.objectives import TokenClassification
from elision.tasks.batches import chunks, device_of, in_batches
from elision.tasks.encoding import Encoding
from elision.tasks.fine_tuned import load_fine_tuned
from elision.tasks.tag_scores import entities, mark_entities
from elision.tasks.tagged import TaggedText, joined, split
from elision.tasks.task import TaggingTask
from elision.text.tokenizer import Tokenizer
from elision.text.words import read_new_words
from elision.train.precision import autocast, compute_dtype

TEXTS_AT_A_TIME = 512
NOTHING = "O"


@dataclasses.dataclass(frozen=True, slots=True)
class FoundEntity:
    """A name in a text: begin and end (exclusive) in characters, and the mean probability of its tags."""

    type: str
    text: str
    begin: int
    end: int
    probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Tagged:
    """What the model says of one text: a tag with its probability for each word, and the entities they mark."""

    text: str
    tokens: list[str]
    tags: list[str]
    probabilities: list[float]
    entities: list[FoundEntity]


class TaggedPlan:
    """Texts as examples: each word is tagged at its first token, and a text that is too long is read in parts.

    A token that several words share (characters of one piece) has the tag of the first of them. Parts end where a word
    does. A word without a token (a lone space) has no place.
    """

    contiguous = False

    def __init__(
        self, texts: Sequence[TaggedText], tokenizer: Tokenizer, encoding: Encoding, labels: Sequence[str] | None
    ):
        """labels: the tags in order, when the texts have theirs; None: places are marked, to be predicted."""
        number = None if labels is None else {label: n for n, label in enumerate(labels)}
        self._encoding = encoding
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        """of each example: ids, the places in them that have a tag, and their targets"""
        self.word_at: list[np.ndarray] = []
        """for each text, where each word has its tag: the index among all tagged places, or -1"""
        self.num_cut, num_places = 0, 0
        room = encoding.max_length - encoding.num_symbols(pair=False)
        for block in chunks(texts, TEXTS_AT_A_TIME):
            for text, placed in zip(block, tokenizer.placed([text.text for text in block]), strict=True):
                ids, first_W = np.array(placed.ids, np.int64), _first_tokens(text.words, placed.offsets)
                at, of_word = np.unique(first_W[first_W >= 0], return_index=True)
                index_W = np.where(first_W >= 0, num_places + np.searchsorted(at, first_W), -1)
                self.word_at.append(index_W)
                num_places += len(at)
                targets = np.zeros(len(at), np.int64)
                if number is not None:
                    tags = np.array([number[tag] for tag in text.tags], np.int64)[first_W >= 0]
                    targets = tags[of_word]
                self.num_cut += len(ids) > room
                for begin, end in _parts(len(ids), at, room):
                    inside = (at >= begin) & (at < end)
                    if inside.any():
                        self._parts.append((ids[begin:end], at[inside] - begin, targets[inside]))
        self.num_places = num_places

    def __len__(self) -> int:
        return len(self._parts)

    def example(self, index: int) -> Example:
        """Build example `index`."""
        ids, at, chosen = self._parts[index]
        example = self._encoding(ids)
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[np.flatnonzero(~example.special)[at]] = chosen
        return dataclasses.replace(example, targets=targets)

    def lengths(self) -> np.ndarray:
        """Return how many tokens each example has."""
        symbols = self._encoding.num_symbols(pair=False)
        return np.array([len(ids) + symbols for ids, _, _ in self._parts], np.int64)

    def targets(self) -> np.ndarray:
        """Return the tag at each place, int64 [number of places]."""
        return np.concatenate([targets for _, _, targets in self._parts]) if self._parts else np.empty(0, np.int64)

    def tags(self, predicted: np.ndarray, labels: Sequence[str]) -> list[list[str]]:
        """Return the tag of each word of each text, for the number of a tag at every place.

        Words that share a place with one before them go on with its entity; words without a place get "O".
        """
        nothing = NOTHING if NOTHING in labels else labels[0]
        goes_on = {f"B-{kind}": f"I-{kind}" for kind in (label[2:] for label in labels if label.startswith("I-"))}
        found = []
        for index_W in self.word_at:
            tags, before = [], -1
            for index in index_W.tolist():
                tag = nothing if index < 0 else labels[predicted[index]]
                tags.append(goes_on.get(tag, tag) if index >= 0 and index == before else tag)
                before = index
            found.append(tags)
        return found


class Tagger:
    """A fine-tuned model with its tokenizer and task. Open one with `Tagger.load`."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, task: TaggingTask):
        self.model, self.tokenizer, self.task = model, tokenizer, task

    @staticmethod
    def load(path: str | Path, device: torch.device = torch.device("cpu")) -> "Tagger":
        """Load the best checkpoint of a fine-tuned run, one of its checkpoints, or an import.

        Raises: InputError when `path` is no tagger.
        """
        loaded = load_fine_tuned(path, TaggingTask.learns, device)
        return Tagger(loaded.model, loaded.tokenizer, loaded.task)

    def predict(self, texts: Iterable[TaggedText | str | Sequence[str]], precision: str = "auto") -> Iterator[Tagged]:
        """Yield what the model says of each text, in order, in constant memory.

        A text may be plain (it is split as in training: at spaces and punctuation, or into characters), a list of words,
        or a `TaggedText`, whose tags are not looked at.
        """
        task, dtype = self.task, compute_dtype(precision, device_of(self.model))
        encoding = Encoding.of(self.model.backbone.settings, self.tokenizer.vocabulary, task.max_length, task.frame)
        for block in chunks(texts, TEXTS_AT_A_TIME):
            rows = [self._row(text) for text in block]
            self.tokenizer = read_new_words(self.model.backbone, self.tokenizer, (row.text for row in rows))
            plan = TaggedPlan(rows, self.tokenizer, encoding, None)
            shares_NC = torch.softmax(tag_scores(self.model, plan, dtype), -1)
            best_N, predicted_N = (each.numpy() for each in shares_NC.max(-1))
            for row, tags, index_W in zip(rows, plan.tags(predicted_N, task.labels), plan.word_at, strict=True):
                probabilities = [float(best_N[index]) if index >= 0 else 1.0 for index in index_W]
                yield Tagged(row.text, row.tokens, tags, probabilities, self._entities(row, tags, probabilities))

    def _row(self, text: TaggedText | str | Sequence[str]) -> TaggedText:
        if isinstance(text, TaggedText):
            return text
        return split(text, self.task.unit) if isinstance(text, str) else joined(text, None, self.task.unit)

    def _entities(self, row: TaggedText, tags: list[str], probabilities: list[float]) -> list[FoundEntity]:
        if not mark_entities(self.task.labels):
            return []
        found = []
        for entity in entities(tags):
            begin, end = row.words[entity.first][0], row.words[entity.last][1]
            mean = float(np.mean(probabilities[entity.first : entity.last + 1]))
            found.append(FoundEntity(entity.type, row.text[begin:end], begin, end, mean))
        return found


@torch.no_grad()
def tag_scores(
    model: LanguageModel, plan: TaggedPlan, dtype: torch.dtype = torch.float32, packing: bool = True
) -> Tensor:
    """Return the scores [N, C] at all tagged places of the plan in order, on the CPU; the model must be evaluating."""
    (objective,) = model.objectives
    assert isinstance(objective, TokenClassification) and not model.training
    head, device = model.heads[objective.name], device_of(model)
    examples = [plan.example(index) for index in range(len(plan))]
    sizes = [int((example.targets != NO_TARGET).sum()) for example in examples]
    starts = np.cumsum([0, *sizes])
    scores_NC = torch.empty(plan.num_places, objective.num_labels)
    for batch in in_batches(examples, device, packing):
        with autocast(device, dtype):
            scores_MC = objective.scores(head, model.backbone(batch, needed_only=True), batch)
        # Places of a batch lie in the order of its examples.
        parts = scores_MC.float().cpu().split([sizes[index] for index in batch.examples])
        for index, part in zip(batch.examples, parts, strict=True):
            scores_NC[starts[index] : starts[index + 1]] = part
    return scores_NC


def _first_tokens(words: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return for each word the first token that stands for some of its characters, or -1."""
    first = np.full(len(words), -1, np.int64)
    token = 0
    for n, (begin, end) in enumerate(words):
        # Words come in order, and so do tokens; a token may stand for several words, and be looked at again.
        while token < len(offsets) and offsets[token][1] <= begin:
            token += 1
        if token < len(offsets) and offsets[token][0] < end:
            first[n] = token
    return first


def _parts(num_tokens: int, starts: np.ndarray, room: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of stretches of at most `room` tokens that end before a word, where one begins in reach."""
    begin = 0
    while num_tokens - begin > room:
        reachable = starts[(starts > begin) & (starts <= begin + room)]
        end = int(reachable[-1]) if len(reachable) else begin + room
        yield begin, end
        begin = end
    yield begin, num_tokens
