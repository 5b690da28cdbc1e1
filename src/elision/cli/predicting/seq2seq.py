"""Texts that a model writes of others."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from elision.cli.predicting.lines import form_of, write_cells, write_json_line
from elision.errors import InputError
from elision.loaded import Loaded
from elision.progress import Task as Bar
from elision.tasks.pairs_of_text import PairColumns, read_sources
from elision.tasks.task import WritingTask
from elision.tasks.writer import Writer

if TYPE_CHECKING:
    from elision.cli.predict import Predict

FORMATS = ("jsonl", "tsv", "csv")
TEXT = "txt"


def predict(settings: "Predict", loaded: Loaded, stream: TextIO, bar: Bar) -> None:
    """Write what the model writes of every text: as JSON lines, as tables, or the texts alone, a line for each."""
    writer = Writer(loaded.model, loaded.tokenizer, loaded.task)
    form = settings.format
    if form == "auto":
        # A file that is named after a language (out.de) is one of plain lines.
        form = form_of(form, settings.out, FORMATS)
        form = TEXT if settings.out is not None and settings.out.suffix.lower() != f".{form}" else form
    if form not in (*FORMATS, TEXT):
        raise InputError(f"--format is {form!r}: written texts come as jsonl, tsv, csv or txt")
    sources, shown = itertools.tee(_given(settings, loaded.task))
    if form in ("tsv", "csv"):
        write_cells(stream, ["source", "output"], form)

    def heard(done: int, total: int) -> None:
        bar.note(f"writing {done:,} of {total:,}" if done < total else "")
        bar.advance(0)

    for source, output in zip(shown, writer.write(sources, settings.precision, settings.decoding, heard)):
        if form == "jsonl":
            write_json_line(stream, {"source": source, "output": output})
        elif form == TEXT:
            stream.write(" ".join(output.split()) + "\n")
        else:
            write_cells(stream, [source, output], form)
        bar.advance()


def _given(settings: "Predict", task: WritingTask) -> Iterator[str]:
    if settings.texts:
        yield from settings.texts
        return
    columns = PairColumns(settings.text_column, None, settings.pair_column, not settings.no_header)
    if settings.text_column is None and not settings.no_header:
        columns = PairColumns(task.columns.source, None, task.columns.context)
    for _, pair in read_sources(settings.data, columns):
        yield pair.source
