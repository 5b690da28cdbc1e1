"""What a fine-tuned model does: the content of task.json, which lies in every one of its checkpoints."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar, Literal

from elision.atomic import write_json
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.objectives import CausalLM, Classification, SequenceLM, SpanExtraction, TokenClassification
from elision.objectives.objective import Objective
from elision.plain import from_plain, to_plain
from elision.tasks.pairs_of_text import PairColumns
from elision.tasks.prompt import BLANK
from elision.tasks.table import Columns

FILE = "task.json"


@dataclasses.dataclass(frozen=True)
class Task:
    """Classes or scores for whole texts, or for pairs of texts."""

    type: Literal["classification", "regression"]
    labels: tuple[str, ...]
    """the classes in the order of the model's outputs; empty for a regression"""
    pair: bool | None
    """whether it reads pairs of texts; None = nobody said (imported models), it reads both"""
    max_length: int
    """tokens in an example, special symbols included; longer texts are cut"""
    metric: str
    """which held-out measure the best checkpoint has the most of"""
    columns: Columns = Columns()
    """where the training table held what"""
    frame: FrameName | None = None
    """how texts are framed; None = as the backbone's family does"""

    learns: ClassVar[str] = "classify"

    @property
    def objective(self) -> Objective:
        """What the model was fine-tuned for."""
        if self.type == "regression":
            return Classification(num_labels=1, regression=True)
        return Classification(num_labels=len(self.labels))


@dataclasses.dataclass(frozen=True)
class TaggingTask:
    """A tag for each word of a text."""

    labels: tuple[str, ...]
    """the tags in the order of the model's outputs"""
    max_length: int
    """tokens in an example, special symbols included; longer texts are read in several"""
    metric: str = "f1"
    """which held-out measure the best checkpoint has the most of"""
    unit: Literal["words", "characters"] = "words"
    """what has a tag of its own; it says how a plain text is split that comes without tokens"""
    frame: FrameName | None = None
    """how texts are framed; None = as the backbone's family does"""
    type: Literal["tagging"] = "tagging"

    learns: ClassVar[str] = "tag"

    @property
    def objective(self) -> Objective:
        """What the model was fine-tuned for."""
        return TokenClassification(len(self.labels))


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a model reads a question with a context that may be long, and which answers it considers.

    The defaults are those of the released BERT code.
    """

    stride: int = 128
    """tokens of context by which a window moves on when the context does not fit into one"""
    max_question: int = 64
    """tokens of the question; what is longer is cut"""
    max_answer: int = 30
    """tokens of an answer"""
    num_best: int = 20
    """begins and ends, the best of each, that answers are made of"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(f"{field.name} is {getattr(self, field.name)}: it must be at least 1")


@dataclasses.dataclass(frozen=True)
class AnsweringTask:
    """The stretch of a context that answers a question, or that there is none."""

    max_length: int
    """tokens in an example, special symbols included; a longer context is read in windows"""
    metric: str = "f1"
    """which held-out measure the best checkpoint has the most of"""
    unanswerable: bool = False
    """whether some training questions had no answer, so that the model may say so"""
    windows: Windows = Windows()
    frame: FrameName | None = None
    """how texts are framed; None = as the backbone's family does"""
    type: Literal["answering"] = "answering"

    learns: ClassVar[str] = "answer"
    labels: ClassVar[tuple[str, ...]] = ()

    @property
    def objective(self) -> Objective:
        """What the model was fine-tuned for."""
        return SpanExtraction()


@dataclasses.dataclass(frozen=True)
class WritingTask:
    """A text of its own for every text that is read: a translation, a summary, an answer."""

    objective: CausalLM | SequenceLM
    """what the model was fine-tuned for: the loss of what it writes"""
    max_length: int
    """tokens that are read, special symbols included, and by a model without an encoder also those that it writes"""
    max_target_length: int
    """tokens that are written, special symbols included"""
    metric: str = "chrf"
    """which held-out measure the best checkpoint has the most of"""
    prompt: str = BLANK
    """what the model reads, with a place for the source"""
    labels: tuple[str, ...] = ()
    """everything that was ever written in training, where that is little: then these are classes"""
    columns: PairColumns = PairColumns()
    """where the training table held what"""
    decoding: Decoding = Decoding()
    """how it writes, unless asked for otherwise"""
    languages: tuple[str, str] | None = None
    """of sources and of targets, in a model whose texts end with a symbol for theirs (mBART)"""
    type: Literal["seq2seq"] = "seq2seq"

    learns: ClassVar[str] = "seq2seq"


AnyTask = Task | TaggingTask | AnsweringTask | WritingTask

_KINDS = {
    "classification": Task, "regression": Task, "tagging": TaggingTask, "answering": AnsweringTask, "seq2seq": WritingTask,
}  # fmt: skip
_PARTS = {
    "labels": tuple,
    "columns": lambda values: (PairColumns if "source" in values else Columns)(**values),
    "windows": lambda values: Windows(**values),
    "decoding": lambda values: from_plain(Decoding, values, "decoding"),
    "languages": lambda values: None if values is None else tuple(values),
    "objective": lambda values: from_plain(CausalLM | SequenceLM, values, "objective"),
}


def save_task(task: AnyTask, folder: Path) -> None:
    """Write task.json into `folder`."""
    values = dataclasses.asdict(task)
    if isinstance(task, WritingTask):
        values["objective"] = to_plain(task.objective)
    write_json(folder / FILE, values)


def load_task(folder: Path) -> AnyTask:
    """Read task.json. Raises: InputError when it is missing or torn."""
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        # Of the format before tagging and answering.
        values.pop("regression", None)
        fields = {name: _PARTS[name](value) if name in _PARTS else value for name, value in values.items()}
        return _KINDS[values["type"]](**fields)
    except FileNotFoundError:
        raise InputError(
            f"{folder} is no fine-tuned model: it has no {FILE}. Make one with `elision finetune`."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path} is torn or foreign ({error}): fine-tune again") from None
