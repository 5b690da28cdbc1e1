"""Rows of predictions as lines of a table."""

import csv
import io
import json
from pathlib import Path
from typing import Any, TextIO


def form_of(form: str, out: Path | None, known: tuple[str, ...]) -> str:
    """Return the form to write: the one asked for, else as the name of `out` ends, else JSON lines."""
    if form != "auto":
        return form
    suffix = out.suffix.lower().removeprefix(".") if out is not None else ""
    return suffix if suffix in known else "jsonl"


def write_json_line(stream: TextIO, values: dict[str, Any]) -> None:
    """Write one object of JSON lines."""
    stream.write(json.dumps(values, ensure_ascii=False) + "\n")


def write_cells(stream: TextIO, cells: list[object], form: str) -> None:
    """Write one line of a tsv or csv table."""
    if form == "tsv":
        # The format knows no quoting: what would break the line becomes a space.
        stream.write(
            "\t".join(" ".join(str(cell).split("\t")).replace("\n", " ").replace("\r", " ") for cell in cells) + "\n"
        )
        return
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    stream.write(buffer.getvalue())
