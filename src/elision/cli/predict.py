"""`elision predict`: let a fine-tuned model label, tag or answer."""

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TextIO

import tyro

from elision.atomic import replacing
from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.progress import console, task
from elision.tasks.fine_tuned import load_fine_tuned
from elision.tasks.task import WritingTask
from elision.train.precision import choose_device


@dataclasses.dataclass(frozen=True)
class Predict:
    """Let a fine-tuned model say what it has learned: the class of a text, or its score; a tag for each word and the
    entities they mark; the answer to a question in a context; a translation, a summary, whatever it was taught to write.

    Reads the same files as `elision finetune`, plain text (a text a line; a tab between the texts of a pair), standard
    input (`--data -`), or the texts given as arguments (for pairs and questions two each). Written as JSON lines, or as
    tsv, csv (labels, answers, written texts), conll (tags: a word and its tag on a line), json (answers by id, for SQuAD's
    scripts), txt (written texts alone, a line for each).

    For example:

    elision predict --model runs/sentiment "what a film" "two hours I will not get back"

    elision predict --model runs/sentiment --data test.tsv --out labelled.jsonl

    elision predict --model runs/names --data novel.txt --out tagged.conll

    elision predict --model runs/squad "Who wrote it?" "It was written by Jane Austen." --top 3

    elision predict --model runs/en-de --data test.en --out test.de
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """texts to label; for pairs and questions, two arguments each"""
    model: Annotated[Path, tyro.conf.arg(metavar="RUN")] = dataclasses.field(default=tyro.MISSING)
    """a fine-tuned run, one of its checkpoints, or a Hugging Face folder with such a head"""
    data: Annotated[str | None, tyro.conf.arg(metavar="TABLE")] = None
    """a file, a `datasets` name, or - for standard input"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """where to write; default: standard output"""
    format: Literal["auto", "jsonl", "tsv", "csv", "conll", "json", "txt"] = "auto"
    """of the output; auto = as the name of --out ends, else jsonl"""
    probabilities: bool = False
    """write the probability of every class, or of every tag that was chosen"""
    top: int = 1
    """how many answers to each question"""
    text_column: str | None = None
    """column of the text, or of what is read; default: as in training, else by its usual names"""
    pair_column: str | None = None
    """column of the second text of a pair"""
    pairs: bool = False
    """the arguments are pairs: for imported models, whose files do not say what they read"""
    token_column: int = 0
    """column of the word in files of columns, from 0"""
    no_header: bool = False
    """csv and tsv files have no line of column names; columns are numbered from 0"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the computation; auto = bfloat16 where the hardware multiplies it faster"""
    decoding: Decoding = Decoding()
    """how texts are written; default: as at the end of the fine-tuning"""
    language: str | None = None
    """of the text, where the model has embeddings of languages; default: that of its fine-tuning"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise InputError(f"--top is {self.top}: it must be at least 1")


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Predict, prog="elision predict", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    if bool(settings.texts) == (settings.data is not None):
        raise InputError("give either texts as arguments or --data FILE (- for standard input), not both or neither")
    loaded = load_fine_tuned(settings.model, None, choose_device(settings.device), settings.language)
    if isinstance(loaded.task, WritingTask):
        # What the command line leaves open is as in the fine-tuning.
        usual = dataclasses.replace(settings, decoding=loaded.task.decoding)
        settings = tyro.cli(Predict, args=arguments, config=(tyro.conf.FlagCreatePairsOff,), default=usual)
    kind = importlib.import_module(f"elision.cli.predicting.{loaded.task.learns}")
    with _output(settings.out) as stream, task("predicting", unit="texts") as bar:
        kind.predict(settings, loaded, stream, bar)
    if settings.out is not None:
        console.print(f"[dim]wrote {settings.out}[/]")
    return 0


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield stream
