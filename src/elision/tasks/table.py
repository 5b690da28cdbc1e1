"""Tables in: rows of csv, tsv, JSON lines, parquet, plain lines or a `datasets` name, and which column holds what."""

import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import json
import lzma
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from elision.errors import InputError, nearest
from elision.text.formats import COMPRESSIONS, TEXT_FIELDS, decompress, is_known

Rows = Iterator[tuple[str, Mapping[str, Any]]]

# Usual names of columns, compared without regard to case; the first that is there is taken.
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text_a", "text_b"),
    ("text1", "text2"), ("#1 string", "#2 string"), ("s1", "s2"), ("question", "sentence"), ("question", "passage"),
    ("text", "question"), ("text", "text_pair"), ("text", "pair"), ("query", "document"),
)  # fmt: skip
TEXTS = (*TEXT_FIELDS, "text_a", "review", "question", "utterance", "comment", "tweet", "query", "title")
LABELS = (
    "label", "labels", "gold_label", "class", "category", "score", "target", "quality", "sentiment", "intent",
    "similarity", "rating", "stars", "answer", "y",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; None = find it by its usual names."""

    text: str | None = None
    """the text, or the first of a pair: a name, or a number counted from 0"""
    pair: str | None = None
    """the second text of a pair"""
    label: str | None = None
    """the class or the score"""
    header: bool = True
    """whether the first line of a csv or tsv file names the columns; without one they are numbered from 0"""

    def resolve(self, there: Sequence[str], where: str, *, labelled: bool, single: bool = False) -> "Columns":
        """Return the same with every name filled in, for a table with the columns `there`.

        `labelled`: a label is needed. `single`: no second text is looked for.
        Raises: InputError that lists the columns there are.
        """
        label = _named(self.label, there, where, "--label-column")
        if labelled and label is None:
            label = _first_of(LABELS, there)
            if label is None:
                raise _unknown("label", there, where, "--label-column", self.header)
        text, pair = (
            _named(self.text, there, where, "--text-column"),
            _named(self.pair, there, where, "--pair-column"),
        )
        if text is None and pair is None and not single:
            for first, second in PAIRS:
                text, pair = _first_of((first,), there), _first_of((second,), there)
                if text is not None and pair is not None:
                    break
            else:
                text, pair = None, None
        if text is None:
            rest = [name for name in there if name not in (label, pair)]
            text = _first_of(TEXTS, rest) or (rest[0] if len(rest) == 1 else None)
            if text is None:
                raise _unknown("text", there, where, "--text-column", self.header)
        return Columns(text, pair, label, self.header)


def read_table(source: str, *, header: bool = True, split: str = "train") -> Rows:
    """Yield (where, row) for every row of a file, of "-" (standard input) or of a `datasets` name, streaming.

    `where` is `file:line` for messages; a row maps column names (numbers from 0 without a header) to values. Rows of a
    data set are taken from `split`, unless the name says another: NAME[:CONFIGURATION][@SPLIT].

    Raises: InputError for what cannot be read.
    """
    path = Path(source).expanduser()
    if source == "-":
        yield from _lines_or_json(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig"), "standard input", header)
    elif path.is_file():
        yield from _file(path, header)
    elif Path(source.partition("@")[0]).expanduser().is_dir():
        yield from _dataset(str(path), split)
    elif path.is_absolute() or source.startswith((".", "~")) or is_known(path):
        raise InputError(f"There is no file {source}.")
    else:
        yield from _dataset(source, split)


def _file(path: Path, header: bool) -> Rows:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    kind = suffixes[-1] if suffixes else ".txt"
    with path.open("rb") as raw, _readable(path, compression), decompress(raw, compression) as stream:
        if kind == ".parquet":
            yield from _parquet(stream, path)
            return
        buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)
        if b"\0" in buffered.peek(1 << 13)[: 1 << 13]:
            raise InputError(f"{path} is a binary file. Give csv, tsv, JSON lines, parquet or plain text.")
        lines = io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="")
        if kind in (".jsonl", ".ndjson", ".json"):
            yield from _json(lines, str(path))
        else:
            yield from _separated(lines, str(path), kind, header)


@contextlib.contextmanager
def read_lines(path: Path) -> Iterator[io.TextIOWrapper]:
    """Yield the lines of a text file, which may be compressed. Raises: InputError, also while it is read."""
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    with path.open("rb") as raw, _readable(path, compression), decompress(raw, compression) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


@contextlib.contextmanager
def _readable(path: Path, compression: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}). Convert it first: iconv -t UTF-8.") from error
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path} is damaged or not {compression} data: {error}.") from error
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise InputError(f"{path} is damaged or not {compression} data: {error}.") from error
        raise


def _separated(lines: io.TextIOWrapper, where: str, kind: str, header: bool) -> Rows:
    """Read csv, tsv, or plain lines; what the separator is, the first line says when the name does not."""
    first = lines.readline()
    rest = itertools.chain([first] if first else [], lines)
    if kind == ".tsv" or first.count("\t") > first.count(","):
        # Quotation marks in tab-separated files are ordinary text.
        yield from _table((line.rstrip("\r\n").split("\t") for line in rest), where, header)
    elif kind == ".csv":
        csv.field_size_limit(1 << 30)
        rows = csv.reader(rest, strict=True)
        try:
            yield from _table(rows, where, header, rows)
        except csv.Error as error:
            raise InputError(f"{where}:{rows.line_num} is not a row of csv: {error}.") from error
    else:
        for number, line in enumerate(rest, 1):
            if not line.isspace():
                yield f"{where}:{number}", {"text": line.rstrip("\r\n")}


def _table(rows: Iterator[list[str]], where: str, header: bool, counter: Any = None) -> Rows:
    names: list[str] | None = None
    for number, row in enumerate(rows, 1):
        if not any(row):
            continue
        if names is None:
            if header:
                names = [name.strip() for name in row]
                continue
            names = []
        if not header and len(row) > len(names):
            names = [str(i) for i in range(len(row))]
        yield f"{where}:{counter.line_num if counter is not None else number}", dict(zip(names, row))


def _lines_or_json(lines: io.TextIOWrapper, where: str, header: bool) -> Rows:
    first = lines.readline()
    rest = itertools.chain([first] if first else [], lines)
    if first.lstrip().startswith("{"):
        yield from _json(rest, where)
        return
    for number, line in enumerate(rest, 1):
        if not line.isspace():
            cells = line.rstrip("\r\n").split("\t")
            yield f"{where}:{number}", {"text": cells[0]} if len(cells) == 1 else dict(zip(("text", "pair"), cells))


def _json(lines: Any, where: str) -> Rows:
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        if number == 1 and line.lstrip().startswith("["):
            yield from _json_list(line + "".join(lines), where)
            return
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}:{number} is not a JSON object on one line: {error}.") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}:{number} must be a JSON object, not {type(row).__name__}.")
        yield f"{where}:{number}", row


def _json_list(content: str, where: str) -> Rows:
    try:
        rows = json.loads(content)
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON: {error}.") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{where}: entry {number} must be a JSON object, not {type(row).__name__}.")
        yield f"{where}: entry {number}", row


def _parquet(stream: Any, path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # Parquet is read from its end, which a compressed stream cannot do.
    source = pa.PythonFile(stream) if path.suffix == ".parquet" else pa.BufferReader(stream.read())
    try:
        file = parquet.ParquetFile(source)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a parquet file: {error}.") from error
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def _dataset(source: str, split: str) -> Rows:
    import datasets

    name, _, asked = source.partition("@")
    split = asked or split
    try:
        if Path(name).is_dir():
            rows = datasets.load_from_disk(name)
            if isinstance(rows, dict):
                if split not in rows:
                    raise InputError(f"The data set {name} has no split {split!r}, only: {', '.join(rows)}.")
                rows = rows[split]
        else:
            name, _, configuration = name.partition(":")
            rows = datasets.load_dataset(name, configuration or None, split=split, streaming=True)
    except InputError:
        raise
    except Exception as error:
        # `datasets` raises its own, the hub's and the network's exceptions here.
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{name!r} is neither a file here nor a data set (split {split!r}) that `datasets` can load: {reason}"
        ) from error
    # A class, or a list of classes (the tags of words).
    classes = {
        column: inner.names
        for column, feature in (rows.features or {}).items()
        if isinstance(inner := getattr(feature, "feature", feature), datasets.ClassLabel)
    }
    for number, row in enumerate(rows, 1):
        named = {column: _class_name(row[column], names) for column, names in classes.items()}
        yield f"{name}@{split}:{number}", {**row, **named}


def _class_name(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_class_name(each, names) for each in value]
    return None if value in (None, -1) else names[value]


def _named(wanted: str | None, there: Sequence[str], where: str, option: str) -> str | None:
    if wanted is None or wanted in there:
        return wanted
    if wanted.isdigit() and int(wanted) < len(there):
        return there[int(wanted)]
    raise InputError(
        f"{where}: there is no column {wanted!r} ({option}).{nearest(wanted, there)} Columns: {', '.join(there)}."
    )


def _first_of(names: Sequence[str], there: Sequence[str]) -> str | None:
    folded = {column.lower(): column for column in reversed(there)}
    return next((folded[name] for name in names if name in folded), None)


def _unknown(what: str, there: Sequence[str], where: str, option: str, header: bool) -> InputError:
    hint = " If the file has no header, add --no-header and give numbers from 0." if header else ""
    if list(there) == ["text"]:
        hint = " Plain lines hold texts alone: write a tsv file, text and label with a tab between them."
    shown = ", ".join(name if len(name) <= 40 else f"{name[:40]}..." for name in there)
    return InputError(f"{where}: which column holds the {what}? Say it with {option}. Columns: {shown}.{hint}")
