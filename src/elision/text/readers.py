"""Raw text in, one document at a time: files of every usual form, folders, globs, `datasets` names, standard input."""

import bz2
import csv
import dataclasses
import glob
import gzip
import io
import json
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from elision import atomic
from elision.errors import InputError

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
FORMATS = (".txt", ".text", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXT_FIELDS = ("text", "content", "document", "body", "article", "passage", "sentence", "contents", "raw_content")
# A "document" without an end in sight is cut at a line end here, so that memory stays bounded.
MAX_CHARACTERS = 1 << 24
_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Document:
    """One document as it was read. Bytes that are not UTF-8 stand in `text` as lone surrogates, for cleaning to see."""

    text: str
    language: str | None = None
    id: str | None = None
    where: str = ""
    """`file:line`, for messages."""


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
    id_field: str | None = None
    """Field that identifies each document, kept in the store."""
    dataset_split: str = "train"
    """Which split to read of a `datasets` data set."""


class Source(Protocol):
    """Something that can be read from the beginning, again and again, in the same order."""

    name: str
    num_bytes: int | None
    """Size on disk, None where it is not known."""

    def identity(self) -> list[Any]:
        """Return what must stay the same for an interrupted job to continue."""
        ...

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield the documents; calls `progress` with the number of bytes read so far."""
        ...


@dataclasses.dataclass(frozen=True)
class FileSource:
    """One file, compressed or not."""

    path: Path
    reading: Reading

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self.path)

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return self.path.stat().st_size

    def identity(self) -> list[Any]:
        """Return path and size."""
        return [str(self.path), self.num_bytes]

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield the documents of the file. Raises InputError for what cannot be read as its name says."""
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
        kind = suffixes[-1] if suffixes else ".txt"
        with self.path.open("rb") as raw:
            try:
                with decompress(raw, compression) as stream:
                    for document in self._read(stream, kind):
                        progress(raw.tell())
                        yield document
            except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
                raise InputError(f"{self.path} is damaged or not {compression} data: {error}.") from error
            except OSError as error:
                if error.errno is None:
                    raise InputError(f"{self.path} is damaged or not {compression} data: {error}.") from error
                raise
            except Exception as error:
                if type(error).__name__ == "ZstdError":
                    raise InputError(f"{self.path} is damaged or not {compression} data: {error}.") from error
                raise

    def _read(self, stream: BinaryIO, kind: str) -> Iterator[Document]:
        if kind == ".parquet":
            yield from _rows(_parquet(stream, self.path, self.reading), self.reading)
            return
        _refuse_binary(stream.peek(1 << 13)[: 1 << 13], self.path)
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=None)
        if kind in (".csv", ".tsv"):
            yield from _rows(_table(text, self.path, kind, self.reading), self.reading)
        elif kind in (".jsonl", ".ndjson", ".json"):
            yield from _rows(_json(text, self.path, kind), self.reading)
        else:
            yield from _plain(text, self.path, self.reading)


@dataclasses.dataclass(frozen=True)
class DatasetSource:
    """A data set of the `datasets` library: a name, `name:configuration`, or a folder that it saved."""

    name: str
    reading: Reading
    num_bytes: int | None = None

    def identity(self) -> list[Any]:
        """Return name and split."""
        return [self.name, self.reading.dataset_split]

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Stream the rows. Raises InputError when there is no such data set or split."""
        import datasets

        split = self.reading.dataset_split
        try:
            if Path(self.name).is_dir():
                rows = datasets.load_from_disk(self.name)
                if isinstance(rows, dict):
                    if split not in rows:
                        raise InputError(f"The data set {self.name} has no split {split!r}, only: {', '.join(rows)}.")
                    rows = rows[split]
            else:
                name, _, configuration = self.name.partition(":")
                rows = datasets.load_dataset(name, configuration or None, split=split, streaming=True)
        except InputError:
            raise
        except Exception as error:
            # `datasets` raises its own, the hub's and the network's exceptions here.
            first = str(error).strip().split("\n")[0]
            raise InputError(
                f"{self.name!r} is neither a file or folder here nor a data set (split {split!r}) that `datasets` "
                f"can load: {first}"
            ) from error
        numbered = ((f"{self.name}:{i}", row) for i, row in enumerate(rows, 1))
        yield from _rows(numbered, self.reading)


@dataclasses.dataclass(frozen=True)
class SpooledSource:
    """A source that is slow to read: the first reading writes it to a file, which the later ones read."""

    source: Source
    file: Path
    """A .jsonl file, written whole or not at all."""

    @property
    def name(self) -> str:
        """The name of the source."""
        return self.source.name

    @property
    def num_bytes(self) -> int | None:
        """The size of the source."""
        return self.source.num_bytes

    def identity(self) -> list[Any]:
        """Return the identity of the source."""
        return self.source.identity()

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield the documents of the source."""
        if not self.file.is_file():
            with atomic.replacing(self.file) as temporary, temporary.open("w", encoding="utf-8") as out:
                for document in self.source.documents(progress):
                    out.write(json.dumps(dataclasses.asdict(document), ensure_ascii=True) + "\n")
        share = (self.num_bytes or 0) / max(self.file.stat().st_size, 1)
        with self.file.open("rb") as lines:
            for line in lines:
                progress(int(lines.tell() * share))
                yield Document(**json.loads(line))


@dataclasses.dataclass(frozen=True)
class TextsSource:
    """Texts that are in memory already."""

    texts: tuple[Document, ...]
    name: str = "texts"

    @property
    def num_bytes(self) -> int:
        """Size in characters, which is near enough for progress."""
        return sum(len(document.text) for document in self.texts)

    def identity(self) -> list[Any]:
        """Return the name and the size."""
        return [self.name, len(self.texts), self.num_bytes]

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield the texts."""
        done = 0
        for document in self.texts:
            done += len(document.text)
            progress(done)
            yield document


def find_sources(inputs: list[str], reading: Reading) -> list[Source]:
    """Return what to read for each input: a file, a folder (all known files below it, sorted), a glob or a data set.

    Raises: InputError for an input that is none of these.
    """
    sources: list[Source] = []
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_file():
            sources.append(FileSource(path, reading))
        elif path.is_dir() and any((path / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")):
            sources.append(DatasetSource(str(path), reading))
        elif path.is_dir():
            sources += _folder(path, reading)
        elif any(character in name for character in "*?["):
            found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            files = [match for match in found if match.is_file()]
            if not files:
                raise InputError(f"No file matches {name!r}.")
            sources += [FileSource(match, reading) for match in files]
        elif path.is_absolute() or name.startswith((".", "~")) or is_known(path) or name.count("/") > 1:
            raise InputError(f"There is no file or folder {name}.")
        else:
            sources.append(DatasetSource(name, reading))
    return sources


def spool_standard_input(folder: Path) -> Path:
    """Copy standard input to a file in `folder` (it cannot be read twice) and return that file."""
    found = sorted(folder.glob("standard-input.*"))
    if found:
        return found[0]
    stream = sys.stdin.buffer
    start = stream.peek(1 << 13)
    _refuse_binary(start, Path("standard input"))
    file = folder / ("standard-input.jsonl" if start.lstrip()[:1] == b"{" else "standard-input.txt")
    with atomic.replacing(file) as temporary, temporary.open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)
    return file


def is_known(path: Path) -> bool:
    """Tell whether the name ends like a file that can be read."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name.endswith(FORMATS)


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


def _folder(path: Path, reading: Reading) -> list[Source]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and is_known(file))
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise InputError(
            f"The folder {path} holds no file that can be read: {' '.join(FORMATS)}, "
            f"each also {' '.join(COMPRESSIONS)}."
        )
    return [FileSource(file, reading) for file in files]


def _refuse_binary(start: bytes, path: Path) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text. Convert it first: iconv -f UTF-16 -t UTF-8.")
    # Text of another encoding has some invalid bytes; data has them everywhere.
    if b"\0" in start or (len(start) >= 32 and start.decode("utf-8", "ignore").__len__() < len(start) * 0.2):
        raise InputError(f"{path} is a binary file, not text. Give text, JSON lines, CSV or Parquet files.")


def _plain(lines: io.TextIOWrapper, path: Path, reading: Reading) -> Iterator[Document]:
    gathered: list[str] = []
    first, size = 1, 0
    for number, line in enumerate(lines, 1):
        if reading.documents == "line":
            yield Document(line, reading.language, None, f"{path}:{number}")
            continue
        is_break = reading.documents == "blank-line" and line.isspace()
        if (is_break and gathered) or size > MAX_CHARACTERS:
            yield Document("".join(gathered), reading.language, None, f"{path}:{first}")
            gathered, size = [], 0
        if not is_break:
            if not gathered:
                first = number
            gathered.append(line)
            size += len(line)
    if gathered:
        yield Document("".join(gathered), reading.language, None, f"{path}:{first}")


def _json(lines: io.TextIOWrapper, path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
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
    return any(isinstance(value, str) for value in row.values())


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
    wanted = [text_field({**dict.fromkeys(names), **sample}, reading, str(path))]
    wanted += [name for name in (reading.language_field, reading.id_field) if name is not None and name in names]
    number = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=wanted):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def _rows(rows: Iterator[tuple[str, Mapping[str, Any]]], reading: Reading) -> Iterator[Document]:
    name = None
    for where, row in rows:
        if name is None:
            name = text_field(row, reading, where)
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{where}: field {name!r} must be text, not {type(value).__name__} ({value!r:.60}).")
        yield Document(
            value or "",
            _label(row, reading.language_field, "language_field", where) or reading.language,
            _label(row, reading.id_field, "id_field", where),
            where,
        )


def text_field(row: Mapping[str, Any], reading: Reading, where: str) -> str:
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
