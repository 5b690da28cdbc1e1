"""The forms of a file of text: plain, JSON, tables and Parquet, compressed or not, one document at a time."""

import bz2
import contextlib
import csv
import dataclasses
import gzip
import io
import json
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from elision.errors import InputError

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
FORMATS = (".txt", ".text", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXT_FIELDS = ("text", "content", "document", "body", "article", "passage", "sentence", "contents", "raw_content")
# A "document" without an end in sight is cut at a line end here, so that memory stays bounded.
MAX_CHARACTERS = 1 << 24
_ROWS = 256
# German in Latin-1 has invalid bytes here and there, up to a sixth; in data every other byte is one.
_MOST_INVALID = 0.25
_BLOCK = 1 << 13


@dataclasses.dataclass(frozen=True)
class Document:
    """One document as it was read. Bytes that are not UTF-8 stand in `text` as lone surrogates, for cleaning to see."""

    text: str
    language: str | None = None
    id: str | None = None
    where: str = ""
    """`file:line`, for messages."""
    translation: "Document | None" = None
    """The same in another language, where the corpus is parallel."""
    code: str | None = None
    """What kind of text it is, for models that are told (CTRL)."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files become documents."""

    documents: Literal["blank-line", "file", "line"] = "blank-line"
    """What ends a document in plain text files: a blank line, the end of the file, or the end of the line."""
    text_field: str | None = None
    """Field or column that holds the text; found by its usual names when not given. In .csv and .tsv files without a
    header, the number of the column, from 0."""
    language_field: str | None = None
    """Field that names each document's language."""
    language: str | None = None
    """Language of all documents, when no field says it."""
    code_field: str | None = None
    """Field that names each document's control code: its source, genre or the like, which CTRL reads before the text."""
    code: str | None = None
    """Control code of all documents, when no field says it."""
    id_field: str | None = None
    """Field that identifies each document, kept in the store."""
    dataset_split: str = "train"
    """Which split to read of a `datasets` data set."""


def read_stream(raw: BinaryIO, path: Path, reading: Reading) -> Iterator[Document]:
    """Yield the documents of a file that is open as `raw`, by the form that the name `path` says.

    Raises: InputError, naming the file and where it can the line, for what is not of that form.
    """
    with decompressed(raw, path) as (stream, kind):
        yield from _documents(stream, kind, path, reading)


@contextlib.contextmanager
def decompressed(raw: BinaryIO, path: Path) -> Iterator[tuple[io.BufferedReader, str]]:
    """Yield the bytes within a file that is open as `raw`, and its kind (".txt", ".jsonl" ...), as its name says both.

    Raises: InputError for damaged data, also while it is read.
    """
    compression, kind = kind_of(path)
    try:
        with decompress(raw, compression) as stream:
            yield stream, kind
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path} is damaged or not {compression} data: {error}.") from error
    except OSError as error:
        if error.errno is None:
            raise InputError(f"{path} is damaged or not {compression} data: {error}.") from error
        raise
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise InputError(f"{path} is damaged or not {compression} data: {error}.") from error
        raise


def kind_of(path: Path) -> tuple[str, str]:
    """Return the compression ("" = none) and the kind that a file's name ends with.

    >>> kind_of(Path("news.jsonl.gz")), kind_of(Path("news"))
    (('.gz', '.jsonl'), ('', '.txt'))
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return compression, suffixes[-1] if suffixes else ".txt"


def is_known(path: Path) -> bool:
    """Tell whether the name ends like a file that can be read."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name.endswith(FORMATS)


def refuse_binary(start: bytes, path: Path) -> None:
    """Raise InputError when a file that begins with `start` (at most some kilobytes) is data and not UTF-8 text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text. Convert it first: iconv -f UTF-16 -t UTF-8.")
    # The block may end within a character, which is no fault of the text.
    invalid = sum("\udc80" <= character <= "\udcff" for character in start.decode("utf-8", "surrogateescape")) - 3
    if b"\0" in start or invalid > len(start) * _MOST_INVALID:
        raise InputError(
            f"{path} is a binary file or text in another encoding than UTF-8. Give text, JSON lines, CSV or Parquet "
            "files; convert old encodings with iconv -f OLD -t UTF-8."
        )


def _documents(stream: io.BufferedReader, kind: str, path: Path, reading: Reading) -> Iterator[Document]:
    if kind == ".parquet":
        yield from field_documents(_parquet(stream, path, reading), reading)
        return
    refuse_binary(stream.peek(_BLOCK)[:_BLOCK], path)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=None)
    if kind in (".csv", ".tsv"):
        yield from field_documents(_table(text, path, kind, reading), reading)
    elif kind in (".jsonl", ".ndjson", ".json"):
        yield from field_documents(json_rows(text, path, kind), reading)
    else:
        yield from _plain(text, path, reading)


def decompress(raw: BinaryIO, compression: str) -> io.BufferedReader:
    """Return a buffered stream of the decompressed bytes of `raw`."""
    if compression == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 18)
    if compression == ".bz2":
        return io.BufferedReader(bz2.BZ2File(raw), 1 << 18)
    if compression == ".xz":
        return io.BufferedReader(lzma.LZMAFile(raw), 1 << 18)
    if compression == ".zst":
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True), 1 << 18)
    return raw


def _plain(lines: io.TextIOWrapper, path: Path, reading: Reading) -> Iterator[Document]:
    gathered: list[str] = []
    first, size = 1, 0
    for number, line in enumerate(lines, 1):
        if reading.documents == "line":
            yield Document(line, reading.language, None, f"{path}:{number}", code=reading.code)
            continue
        is_break = reading.documents == "blank-line" and line.isspace()
        if (is_break and gathered) or size > MAX_CHARACTERS:
            yield Document("".join(gathered), reading.language, None, f"{path}:{first}", code=reading.code)
            gathered, size = [], 0
        if not is_break:
            if not gathered:
                first = number
            gathered.append(line)
            size += len(line)
    if gathered:
        yield Document("".join(gathered), reading.language, None, f"{path}:{first}", code=reading.code)


def json_rows(lines: io.TextIOWrapper, path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (where, object) for each object of a file of JSON lines, or of a whole JSON file. Raises: InputError."""
    number = 0
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if kind == ".json" and number == 1:
                row = None
            else:
                raise InputError(f"{path}:{number} is not a JSON object: {error}.") from error
        if kind == ".json" and number == 1 and not (isinstance(row, dict) and _has_text(row)):
            yield from _whole_json(line + lines.read(), path)
            return
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number} must be a JSON object with a text field, not {type(row).__name__}.")
        yield f"{path}:{number}", row


def _has_text(row: dict[str, Any]) -> bool:
    return any(isinstance(value, str) for value in row.values()) or isinstance(row.get("translation"), dict)


def _whole_json(content: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if isinstance(value, dict):
        lists = [part for part in value.values() if isinstance(part, list) and part and isinstance(part[0], dict)]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{path} must hold a list of JSON objects, or one object a line.")
    for number, row in enumerate(value, 1):
        yield f"{path}:{number}", row


def _table(lines: io.TextIOWrapper, path: Path, kind: str, reading: Reading) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(1 << 30)
    # Quotation marks in tab-separated files are ordinary text.
    form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {}
    rows = csv.reader(lines, **form)
    try:
        header = next(rows, [])
        if reading.text_field is not None and reading.text_field.isdigit():
            yield f"{path}:1", {str(i): value for i, value in enumerate(header)}
            header = [str(i) for i in range(len(header))]
        for row in rows:
            yield f"{path}:{rows.line_num}", dict(zip(header, row))
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num} is not a row of {kind[1:]}: {error}.") from error


def _parquet(stream: BinaryIO, path: Path, reading: Reading) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if not isinstance(stream, io.BufferedReader) or not stream.seekable() or path.suffix != ".parquet":
        # Parquet is read from its end, which a compressed stream cannot do.
        whole = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the rows are read)
        shutil.copyfileobj(stream, whole, 1 << 20)
        whole.seek(0)
        stream = whole
    try:
        file = parquet.ParquetFile(stream)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a Parquet file: {error}.") from error
    names = file.schema_arrow.names
    sample = {name: "" for name in names if pa.types.is_string(file.schema_arrow.field(name).type)}
    sample |= {name: "" for name in names if pa.types.is_large_string(file.schema_arrow.field(name).type)}
    wanted = [_text_field({**dict.fromkeys(names), **sample}, reading, str(path))]
    labels = (reading.language_field, reading.code_field, reading.id_field)
    wanted += [name for name in labels if name is not None and name in names]
    number = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=wanted):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def field_documents(rows: Iterator[tuple[str, Mapping[str, Any]]], reading: Reading) -> Iterator[Document]:
    """Yield a document for each (where, fields) of `rows`. Raises InputError when no field is the text."""
    name = None
    for where, row in rows:
        if name is None:
            name = _text_field(row, reading, where)
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{where}: field {name!r} must be text, not {type(value).__name__} ({value!r:.60}).")
        yield Document(
            value or "",
            _label(row, reading.language_field, "language_field", where) or reading.language,
            _label(row, reading.id_field, "id_field", where),
            where,
            code=_label(row, reading.code_field, "code_field", where) or reading.code,
        )


def _text_field(row: Mapping[str, Any], reading: Reading, where: str) -> str:
    """Return the field of `row` that holds the text. Raises InputError that lists the fields."""
    there = ", ".join(map(str, row)) or "none"
    if reading.text_field is not None:
        if reading.text_field not in row:
            raise InputError(f"{where}: there is no field {reading.text_field!r} (text_field). Fields: {there}.")
        return reading.text_field
    for name in TEXT_FIELDS:
        if name in row:
            return name
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if len(strings) == 1:
        return strings[0]
    raise InputError(f"{where}: which field holds the text? Say it with --reading.text-field. Fields: {there}.")


def _label(row: Mapping[str, Any], field: str | None, option: str, where: str) -> str | None:
    if field is None:
        return None
    if field not in row:
        raise InputError(f"{where}: there is no field {field!r} ({option}). Fields: {', '.join(map(str, row))}.")
    return None if row[field] is None else str(row[field])
