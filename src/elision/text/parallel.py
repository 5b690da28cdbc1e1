"""Parallel text in: two aligned files, tables with a column for each side, translation memories (TMX).

Every source yields a document for each pair, whose `translation` is the other side: the same in another language, or
whatever else is to be written from it (a summary, a reply). A side may be empty: what is made of the pair, cleaning
decides.
"""

import csv
import dataclasses
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from elision.errors import InputError
from elision.text.formats import COMPRESSIONS, Document, decompressed, json_rows, kind_of, refuse_binary
from elision.text.tmx import translation_units

TABLES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".parquet")
MEMORY = ".tmx"
_BLOCK = 1 << 20
# Asking a file for its position costs as much as reading a short pair.
_PROGRESS_PAIRS = 256

Languages = tuple[str, str] | tuple[None, None]
# The columns of pairs that are no translations.
SIDES = ("source", "target")


@dataclasses.dataclass(frozen=True)
class AlignedSource:
    """Two plain text files, line by line translations of each other."""

    first: Path
    second: Path
    languages: Languages

    @property
    def name(self) -> str:
        """Both paths."""
        return f"{self.first} + {self.second}"

    @property
    def num_bytes(self) -> int:
        """Size of both on disk."""
        return self.first.stat().st_size + self.second.stat().st_size

    def identity(self) -> list[Any]:
        """Return paths, size and languages."""
        return [self.name, self.num_bytes, *self.languages]

    def check(self) -> None:
        """Raise InputError, with both counts, when the files are not equally long."""
        one, other = _count_lines(self.first), _count_lines(self.second)
        if one != other:
            raise InputError(
                f"{self.first} has {one:,} lines, but {self.second} has {other:,}: in parallel text line n of one is the "
                f"translation of line n of the other. Leave the line empty where a translation is missing."
            )

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield a document for each line. Raises: InputError when one file ends before the other."""
        with self.first.open("rb") as raw, self.second.open("rb") as other:
            pairs = itertools.zip_longest(_lines(raw, self.first), _lines(other, self.second))
            for number, (here, there) in enumerate(pairs, 1):
                if here is None or there is None:
                    self.check()
                    raise InputError(f"{self.name} changed while they were read: start again.")
                if number % _PROGRESS_PAIRS == 0:
                    progress(raw.tell() + other.tell())
                yield _pair(here, there, self.languages, f"{self.first}:{number}", f"{self.second}:{number}")


@dataclasses.dataclass(frozen=True)
class PairsSource:
    """One file that holds both sides: a table (tsv, csv, JSON lines, Parquet) or a translation memory (tmx)."""

    path: Path
    languages: Languages
    fields: tuple[str, str] | None = None
    """Columns of the two sides, by name or by number from 0; found when not given (not in a tmx, which has none)."""

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self.path)

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return self.path.stat().st_size

    def identity(self) -> list[Any]:
        """Return path, size, languages and fields."""
        return [self.name, self.num_bytes, *self.languages, *(self.fields or ())]

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield a document for each row. Raises: InputError for what is not of the form that the name says."""
        with self.path.open("rb") as raw, decompressed(raw, self.path) as (stream, kind):
            if kind == MEMORY:
                pairs = translation_units(stream, self.path, self.languages)
            elif kind in (".tsv", ".csv"):
                pairs = self._cells(_text(stream, self.path), kind)
            else:
                pairs = self._values(_records(stream, kind, self.path))
            for number, (where, here, there) in enumerate(pairs):
                if number % _PROGRESS_PAIRS == 0:
                    progress(raw.tell())
                yield _pair(here, there, self.languages, where, where)

    def _cells(self, lines: io.TextIOWrapper, kind: str) -> Iterator[tuple[str, str, str]]:
        """Yield both sides of each row of a tsv or csv file, with or without a header."""
        csv.field_size_limit(1 << 30)
        # Quotation marks in tab-separated files are ordinary text.
        rows = csv.reader(lines, **({"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {}))
        try:
            first = next(rows, [])
            columns, has_header = self._columns(first)
            for row in rows if has_header else itertools.chain([first], rows):
                here, there = (row[column] if column < len(row) else "" for column in columns)
                yield f"{self.path}:{rows.line_num}", here, there
        except csv.Error as error:
            raise InputError(f"{self.path}:{rows.line_num} is not a row of {kind[1:]}: {error}.") from error

    def _columns(self, first: list[str]) -> tuple[tuple[int, int], bool]:
        """Return the numbers of the two columns, and whether the first row of a table is a header."""
        if self.fields is not None and all(name.isdigit() for name in self.fields):
            one, other = map(int, self.fields)
            if max(one, other) >= len(first):
                raise self._unknown(first, "there are columns")
            return (one, other), False
        wanted = self._wanted
        if all(name in first for name in wanted):
            return (first.index(wanted[0]), first.index(wanted[1])), True
        if self.fields is None and len(first) == 2:
            return (0, 1), False
        raise self._unknown(first, "the first row holds")

    def _values(self, records: Iterator[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str, str]]:
        """Yield both sides of each record; `{"translation": {"en": ..., "ne": ...}}` is looked into."""
        names: tuple[str, str] | None = None
        for where, record in records:
            nested = record.get("translation")
            row = nested if isinstance(nested, dict) else record
            if names is None:
                names = self._names(row)
            sides = []
            for name in names:
                value = row.get(name)
                if value is not None and not isinstance(value, str):
                    raise InputError(f"{where}: field {name!r} must be text, not {type(value).__name__}.")
                sides.append(value or "")
            yield where, sides[0], sides[1]

    def _names(self, row: Mapping[str, Any]) -> tuple[str, str]:
        wanted = self._wanted
        if all(name in row for name in wanted):
            return wanted
        texts = [name for name, value in row.items() if isinstance(value, str)]
        if self.fields is None and len(texts) == 2:
            return texts[0], texts[1]
        raise self._unknown(list(row), "the first record has the fields")

    @property
    def _wanted(self) -> tuple[str, str]:
        """The names that the columns of both sides should have."""
        return self.fields or (SIDES if self.languages[0] is None else self.languages)

    def _unknown(self, there: Sequence[str], what: str) -> InputError:
        shown = ", ".join(name if len(name) <= 40 else f"{name[:40]}..." for name in there) or "nothing"
        looked = "By the languages" if self.languages[0] is not None else "Without languages"
        looked = "By --parallel-fields" if self.fields is not None else looked
        wanted = " and ".join(self._wanted)
        return InputError(
            f"{self.path}: which columns are the two sides? {looked} they would be {wanted}, but {what}: {shown}. Say it "
            f"with --parallel-fields ONE OTHER (names, or numbers from 0 in a table without header)."
        )


def parallel_sources(
    files: Sequence[str | Path], languages: Sequence[str], fields: tuple[str, str] | None = None
) -> list[AlignedSource | PairsSource]:
    """Return the sources of parallel text that `files` are.

    Tables and translation memories stand for themselves; other files are taken in twos, aligned line by line.
    `languages` names those of the first and the second side: two for all, or two for each source in turn; none where
    the pairs are no translations.

    Raises: InputError for a file that is missing, has no partner or not as many lines as it, for languages that do not
    number as the sources do, and for a translation memory without languages.
    """
    paths = [Path(file).expanduser() for file in files]
    for path in paths:
        if not path.is_file():
            raise InputError(f"There is no file {path} (--parallel).")
    groups: list[tuple[Path, ...]] = []
    waiting: Path | None = None
    for path in paths:
        if kind_of(path)[1] in (*TABLES, MEMORY):
            groups.append((path,))
        elif waiting is None:
            waiting = path
        else:
            groups.append((waiting, path))
            waiting = None
    if waiting is not None:
        raise InputError(
            f"--parallel: {waiting} has no partner. Give aligned text files in twos (train.en train.ne), or one file that "
            f"holds both sides ({' '.join((*TABLES, MEMORY))}, each also {' '.join(COMPRESSIONS)})."
        )
    if len(languages) not in (0, 2, 2 * len(groups)):
        more = "" if len(groups) == 1 else f", or {2 * len(groups)}, two for each of the {len(groups)} corpora"
        raise InputError(
            f"--languages must name the language of each side of the parallel text, 2 for all of it{more}; got "
            f"{' '.join(languages)}. Leave it out where the pairs are no translations."
        )
    sources: list[AlignedSource | PairsSource] = []
    for number, group in enumerate(groups):
        at = 2 * number if len(languages) > 2 else 0
        pair: Languages = (languages[at], languages[at + 1]) if languages else (None, None)
        if languages and (pair[0] == pair[1] or not all(pair)):
            raise InputError(
                f"--languages: the two sides must be of different languages, not {pair[0]!r} and {pair[1]!r}. Leave it out "
                f"where the pairs are no translations."
            )
        if not languages and kind_of(group[0])[1] == MEMORY:
            raise InputError(f"{group[0]} holds its text by language: say with --languages which two the sides are of.")
        if len(group) == 1:
            sources.append(PairsSource(group[0], pair, fields))
        else:
            source = AlignedSource(*group, pair)
            source.check()
            sources.append(source)
    return sources


def _pair(here: str, there: str, languages: Languages, where: str, where_there: str) -> Document:
    return Document(here, languages[0], None, where, Document(there, languages[1], None, where_there))


def _records(stream: io.BufferedReader, kind: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if kind != ".parquet":
        yield from json_rows(_text(stream, path), path, kind)
        return
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # Parquet is read from its end, which a compressed stream cannot do.
    whole = pa.PythonFile(stream) if path.suffix == ".parquet" else pa.BufferReader(stream.read())
    try:
        file = parquet.ParquetFile(whole)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a Parquet file: {error}.") from error
    rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
    for number, row in enumerate(rows, 1):
        yield f"{path}:{number}", row


def _text(stream: io.BufferedReader, path: Path) -> io.TextIOWrapper:
    refuse_binary(stream.peek(1 << 13)[: 1 << 13], path)
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _lines(raw: io.BufferedReader, path: Path) -> Iterator[str]:
    """Yield the lines of a file. Only a newline ends one: other characters that may would shift all that follows."""
    with decompressed(raw, path) as (stream, _):
        refuse_binary(stream.peek(1 << 13)[: 1 << 13], path)
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
        for line in text:
            yield line.rstrip("\r\n")


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as raw, decompressed(raw, path) as (stream, _):
        while block := stream.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")
