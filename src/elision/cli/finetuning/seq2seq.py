"""`elision finetune seq2seq`: translations, summaries, answers: a text of its own for every text that is read."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from elision.cli.finetuning.course import Course, View, follow, number, show_classes
from elision.errors import InputError
from elision.progress import console, task
from elision.tasks.finetune import Result
from elision.tasks.pairs_held_out import PairsHeldOut
from elision.tasks.pairs_of_text import PairColumns, TextPair, read_pairs
from elision.tasks.seq2seq import PREDICTIONS, TEST_PREDICTIONS, Writing, prepare
from elision.tasks.split import hold_out

NUM_SHOWN = 3
MOST_SHOWN_CHARACTERS = 300


@dataclasses.dataclass(frozen=True)
class Seq2Seq(Course):
    """Fine-tune a pretrained model to write: to translate, summarise, answer, or turn any text into another.

    Takes encoder-decoders (BART, T5, Marian ...) and causal models (GPT-2 ...), which read the source after a prompt and
    write on. Reads csv, tsv, JSON lines (a list in a field: several references), parquet, `datasets` names, or two plain
    texts aligned line by line. Columns are found by their usual names (source + target, document + summary, question +
    answer, instruction + output ...) or named by options. Only what is written is learned, its end included.

    Measured by BLEU and chrF (sacrebleu), ROUGE (rouge-score) and exact match, after every epoch on a part of the held-out
    pairs and at the end on all, beside what copying the source and the like reach. What was written lies in the run:
    predictions.jsonl.

    For example:

    elision finetune seq2seq --model runs/t5-small --data train.en train.de --valid val.en val.de --out runs/en-de

    elision finetune seq2seq --model runs/bart-small --data papers.jsonl --out runs/tldr --prompt "summarize: {source}"
    --max-target-length 60 --metric rougeL

    elision finetune seq2seq --model runs/gpt2-small --data chat.csv --out runs/chat --prompt "Q: {source}\\nA:"

    elision predict --model runs/en-de --data test.en --out test.de
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TABLE|SOURCE TARGET")]
    """a table of pairs, or two aligned files"""
    valid: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TABLE|SOURCE TARGET")] = ()
    """held-out pairs that measure it and pick the best epoch; default: a part of --data"""
    test: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TABLE|SOURCE TARGET")] = ()
    """pairs that the best checkpoint is measured on once, at the end"""
    writing: Annotated[Writing, tyro.conf.arg(name="")] = Writing()
    source_column: str | None = None
    """column of what is read: its name, its number from 0, or a path of names (translation.en)"""
    target_column: str | None = None
    """column of what is written"""
    context_column: str | None = None
    """column of more to read, which follows the source after an empty line"""
    no_header: bool = False
    """csv and tsv files have no line of column names; columns are numbered from 0"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    course = tyro.cli(Seq2Seq, prog="elision finetune seq2seq", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    if not course.data:
        raise InputError("--data names no file: give a table of pairs, or two aligned files")
    # A shell hands \n on as two characters.
    prompt = course.writing.prompt
    writing = dataclasses.replace(course.writing, prompt=None if prompt is None else prompt.replace("\\n", "\n"))
    columns = PairColumns(course.source_column, course.target_column, course.context_column, not course.no_header)
    with task("reading", unit="pairs") as bar:
        train, found = read_pairs(course.data, columns)
        _introduce(course.data, train, found)
        if course.valid:
            valid, valid_found = read_pairs(course.valid, columns, split="validation")
            _introduce(course.valid, valid, valid_found)
        else:
            # Pairs with one source stay together.
            train, valid = hold_out(train, course.hold_out, lambda pair: pair.source)
            console.print(f"[dim]{len(valid):,} of them are held out[/]")
        test: list[TextPair] = []
        if course.test:
            test, test_found = read_pairs(course.test, columns, split="test")
            _introduce(course.test, test, test_found)
        bar.advance(len(train) + len(valid) + len(test))
    return follow(
        course,
        lambda settings: prepare(course.model, train, valid, settings, test=test, writing=writing, columns=found),
        view=WritingView,
        show=_show,
    )


class WritingView(View):
    """The bar also says how many held-out texts are written; that takes a while after every epoch."""

    def watch(self, held_out: PairsHeldOut) -> None:
        """Hear how far the writing is."""
        held_out.hear = self.heard

    def heard(self, done: int, total: int) -> None:
        """Show how many texts are written."""
        self.bar.note(f"writing {done:,} of {total:,}" if done < total else "")
        self.bar.advance(0)


def _introduce(sources: Sequence[str], pairs: list[TextPair], columns: PairColumns) -> None:
    several = sum(len(pair.targets) > 1 for pair in pairs)
    said = f", {several:,} with several references" if several else ""
    where = ""
    if len(sources) == 1:
        where = f"; source {columns.source!r}" + (f" and {columns.context!r}" if columns.context else "")
        where += f", target {columns.target!r}"
    console.print(f"[dim]{' + '.join(sources)}: {len(pairs):,} pairs{said}{where}[/]", soft_wrap=True)


def _show(result: Result, num_valid: int) -> None:
    """Show the measures beside those of trivial writers, how they were counted, and some of the texts."""
    show_classes(result)
    _measures(f"held out, {num_valid:,} pairs", result.metrics, result.more["beside"], result.task.metric)
    if "test" in result.more:
        test = result.more["test"]
        _measures(f"test, {test['num']:,} pairs", test["metrics"], test["beside"], "")
    for signature in result.more["signatures"]:
        console.print(f"  [dim]{signature}[/]")
    name = TEST_PREDICTIONS if "test" in result.more else PREDICTIONS
    _samples(result.folder / name)


def _measures(title: str, ours: dict[str, float], beside: dict[str, dict[str, float]], metric: str) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2), header_style="bold")
    table.add_column("")
    table.add_column("the model", justify="right")
    for who in beside:
        table.add_column(who, justify="right", style="dim")
    for name, value in ours.items():
        mark = " *" if name == metric else ""
        others = (number(name, values[name]) if name in values else "" for values in beside.values())
        table.add_row(name.replace("_", " ") + mark, number(name, value), *others)
    console.print(table)
    if metric:
        console.print("  [dim]* picks the best checkpoint[/]")


def _samples(path: Path) -> None:
    from rich.table import Table

    with path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line, _ in zip(stream, range(NUM_SHOWN))]
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        for name, value in (("source", row["source"]), ("reference", row["references"][0]), ("output", row["output"])):
            text = " ".join(value.split())
            cut = text if len(text) <= MOST_SHOWN_CHARACTERS else f"{text[:MOST_SHOWN_CHARACTERS]}..."
            table.add_row(name, cut.replace("[", r"\["), style="bold" if name == "output" else None)
        table.add_section()
    console.print(table)
    console.print(f"  [dim]all of them: {path}[/]")
