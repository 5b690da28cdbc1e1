"""`elision predict`: label new text with a fine-tuned model."""

import contextlib
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TextIO

import tyro

from elision.atomic import replacing
from elision.errors import InputError
from elision.progress import console, task
from elision.tasks.classifier import Classifier, Prediction
from elision.tasks.labelled import Row, text_of
from elision.tasks.table import Columns, read_table
from elision.tasks.task import Task
from elision.train.precision import choose_device


@dataclasses.dataclass(frozen=True)
class Predict:
    """Label texts with a fine-tuned model: the class with its probability, or the score.

    Reads the same tables as `elision finetune`, plain text (a text a line; a tab between the texts of a pair), standard
    input (`--data -`), or the texts given as arguments. Rows are read, labelled and written as a stream.

    For example:

    elision predict --model runs/sentiment "what a film" "two hours I will not get back"

    elision predict --model runs/sentiment --data test.tsv --out labelled.jsonl

    cat reviews.txt | elision predict --model runs/sentiment --data - --format tsv
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """texts to label; for a model that reads pairs, two arguments a pair"""
    model: Annotated[Path, tyro.conf.arg(metavar="RUN")] = dataclasses.field(default=tyro.MISSING)
    """a fine-tuned run or one of its checkpoints"""
    data: Annotated[str | None, tyro.conf.arg(metavar="TABLE")] = None
    """a file, a `datasets` name, or - for standard input"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """where to write; default: standard output"""
    format: Literal["auto", "jsonl", "tsv", "csv"] = "auto"
    """of the output; auto = as the name of --out ends, else jsonl"""
    probabilities: bool = False
    """write the probability of every class"""
    text_column: str | None = None
    """column of the text; default: as in training, else by its usual names"""
    pair_column: str | None = None
    """column of the second text of a pair"""
    no_header: bool = False
    """csv and tsv files have no line of column names; columns are numbered from 0"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the computation; auto = bfloat16 where the hardware multiplies it faster"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Predict, prog="elision predict", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    if bool(settings.texts) == (settings.data is not None):
        raise InputError("give either texts as arguments or --data FILE (- for standard input), not both or neither")
    classifier = Classifier.load(settings.model, choose_device(settings.device))
    rows = _given(settings.texts, classifier.task) if settings.texts else read_unlabelled(settings, classifier.task)
    kept: list[Row] = []

    def remembered() -> Iterator[Row]:
        for row in rows:
            kept.append(row)
            yield row

    with _output(settings.out) as stream, task("predicting", unit="texts") as bar:
        write = _writer(settings, stream, classifier.task)
        for prediction in classifier.predict(remembered(), settings.precision):
            # The classifier reads ahead by a block; what it has answered is no longer held.
            write(kept.pop(0), prediction)
            bar.advance()
    if settings.out is not None:
        console.print(f"[dim]wrote {settings.out}[/]")
    return 0


def read_unlabelled(settings: Predict, task: Task) -> Iterator[Row]:
    """Yield the texts of the table, from the columns that the options name, else those of the training table."""
    header = not settings.no_header
    found: Columns | None = None
    for where, values in read_table(settings.data, header=header, split="test"):
        if found is None:
            found = _columns(settings, task, list(values), where)
        pair = text_of(values, found.pair, where) if task.pair else None
        yield Row(text_of(values, found.text, where), None, pair, where)
    if found is None:
        raise InputError(f"{settings.data} holds no rows.")


def _columns(settings: Predict, task: Task, there: list[str], where: str) -> Columns:
    text, pair = settings.text_column, settings.pair_column
    if text is None and pair is None and not settings.no_header and task.columns.header and task.columns.text in there:
        text = task.columns.text
        pair = task.columns.pair if task.columns.pair in there else None
    found = Columns(text, pair if task.pair else None, header=not settings.no_header).resolve(
        there, where, labelled=False, single=not task.pair
    )
    if task.pair and found.pair is None:
        raise InputError(
            f"{where}: this model reads pairs of texts: name the second one with --pair-column. Columns: {', '.join(there)}."
        )
    return found


def _given(texts: tuple[str, ...], task: Task) -> Iterator[Row]:
    if not task.pair:
        yield from (Row(text) for text in texts)
        return
    if len(texts) % 2:
        raise InputError(f"this model reads pairs of texts: give an even number of arguments, not {len(texts)}")
    yield from (Row(first, pair=second) for first, second in zip(texts[::2], texts[1::2]))


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield stream


def _writer(settings: Predict, stream: TextIO, task: Task):
    form = settings.format
    if form == "auto":
        suffix = settings.out.suffix.lower().removeprefix(".") if settings.out is not None else ""
        form = suffix if suffix in ("tsv", "csv") else "jsonl"
    names = ["text", *(["pair"] if task.pair else [])]
    names += ["score"] if task.type == "regression" else ["label", "probability"]
    if settings.probabilities:
        names += [f"probability of {label}" for label in task.labels]
    if form != "jsonl":
        _line(stream, names, form)

    def write(row: Row, prediction: Prediction) -> None:
        values = {"text": row.text}
        if task.pair:
            values["pair"] = row.pair
        if task.type == "regression":
            values["score"] = round(prediction.score, 6)
        else:
            values |= {"label": prediction.label, "probability": round(prediction.probability, 6)}
        if form == "jsonl":
            if settings.probabilities:
                values["probabilities"] = {
                    label: round(value, 6) for label, value in zip(task.labels, prediction.probabilities)
                }
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")
            return
        cells = list(values.values())
        if settings.probabilities:
            cells += [round(value, 6) for value in prediction.probabilities]
        _line(stream, cells, form)

    return write


def _line(stream: TextIO, cells: list[object], form: str) -> None:
    if form == "tsv":
        # The format knows no quoting: what would break the line becomes a space.
        stream.write(
            "\t".join(" ".join(str(cell).split("\t")).replace("\n", " ").replace("\r", " ") for cell in cells) + "\n"
        )
        return
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    stream.write(buffer.getvalue())
