"""`elision finetune classify`: classes or scores for texts and pairs of texts."""

import dataclasses

import tyro

from elision.cli.finetuning.course import Course, follow
from elision.progress import console, task
from elision.tasks.classify import Kind, prepare
from elision.tasks.labelled import read_rows
from elision.tasks.split import hold_out
from elision.tasks.table import Columns


@dataclasses.dataclass(frozen=True)
class Classify(Course):
    """Fine-tune a pretrained model to label texts, or pairs of texts, with classes or scores.

    Reads csv, tsv, JSON lines and parquet (also .gz .zst .xz .bz2) and `datasets` names (NAME[:CONFIGURATION][@SPLIT]).
    Columns are found by their usual names (text, sentence, sentence1 + sentence2, label, score ...) or named by options.
    The best epoch is kept. Start the same command again after an interruption, and it goes on where it was.

    For example:

    elision finetune classify --model runs/bert-mini --data train.tsv --valid dev.tsv --out runs/sentiment

    elision finetune classify --model runs/bert-mini --data train.tsv --valid dev.tsv --out runs/scratch --from-scratch

    elision finetune classify --model runs/bert-mini --data sts.csv --no-header --text-column 5 --pair-column 6
    --label-column 4 --out runs/sts --seeds 3
    """

    task: Kind = "auto"
    """auto: numbers with a fraction are scores, everything else is a class"""
    text_column: str | None = None
    """column of the text, or of the first of a pair: its name, or its number from 0"""
    pair_column: str | None = None
    """column of the second text of a pair"""
    label_column: str | None = None
    """column of the class or score"""
    no_header: bool = False
    """csv and tsv files have no line of column names; columns are numbered from 0"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    course = tyro.cli(
        Classify, prog="elision finetune classify", args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
    )
    columns = Columns(course.text_column, course.pair_column, course.label_column, not course.no_header)
    with task("reading", unit="rows") as bar:
        train, found = read_rows(course.data, columns)
        _introduce(course.data, len(train), found)
        if course.valid is not None:
            valid, valid_found = read_rows(course.valid, columns, split="validation")
            _introduce(course.valid, len(valid), valid_found)
        else:
            train, valid = hold_out(train, course.hold_out)
            console.print(f"[dim]{len(valid):,} of them are held out[/]")
        bar.advance(len(train) + len(valid))
    return follow(course, lambda settings: prepare(course.model, train, valid, settings, course.task, found))


def _introduce(source: str, num_rows: int, columns: Columns) -> None:
    texts = f"text {columns.text!r}" + (f", pair {columns.pair!r}" if columns.pair else "")
    console.print(f"[dim]{source}: {num_rows:,} rows; {texts}, label {columns.label!r}[/]", soft_wrap=True)
