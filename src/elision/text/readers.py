"""Sources of raw text that can be read again and again: files, folders, globs, `datasets` names, standard input."""

import dataclasses
import glob
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from elision import atomic
from elision.errors import InputError
from elision.text.formats import (
    COMPRESSIONS,
    FORMATS,
    Document,
    Reading,
    field_documents,
    is_known,
    read_stream,
    refuse_binary,
)

__all__ = [
    "DatasetSource",
    "Document",
    "FileSource",
    "Reading",
    "Source",
    "SpooledSource",
    "TextsSource",
    "find_sources",
    "spool_standard_input",
]

# Asking a file for its position costs as much as reading a short document.
_PROGRESS_DOCUMENTS = 64


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
        """Return path and size, and the language and the code where they are said."""
        return [str(self.path), self.num_bytes, *_said(self.reading)]

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield the documents of the file. Raises InputError for what cannot be read as its name says."""
        with self.path.open("rb") as raw:
            for number, document in enumerate(read_stream(raw, self.path, self.reading)):
                if number % _PROGRESS_DOCUMENTS == 0:
                    progress(raw.tell())
                yield document


@dataclasses.dataclass(frozen=True)
class DatasetSource:
    """A data set of the `datasets` library: a name, `name:configuration`, or a folder that it saved."""

    name: str
    reading: Reading
    num_bytes: int | None = None

    def identity(self) -> list[Any]:
        """Return name and split, and the language and the code where they are said."""
        return [self.name, self.reading.dataset_split, *_said(self.reading)]

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
        yield from field_documents(numbered, self.reading)


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
        """Yield the documents of the source; a first reading that is broken off leaves no file."""
        if not self.file.is_file():
            with atomic.replacing(self.file) as temporary, temporary.open("wb") as out:
                for document in self.source.documents(progress):
                    yield document
                    out.write(json.dumps(vars(document)).encode() + b"\n")
            return
        share = (self.num_bytes or 0) / max(self.file.stat().st_size, 1)
        with self.file.open("rb") as lines:
            read = 0
            for line in lines:
                read += len(line)
                progress(int(read * share))
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


def _said(reading: Reading) -> list[str]:
    language = [reading.language] if reading.language else []
    return language + ([f"code:{reading.code}"] if reading.code else [])


def spool_standard_input(folder: Path) -> Path:
    """Copy standard input to a file in `folder` (it cannot be read twice) and return that file."""
    found = sorted(folder.glob("standard-input.*"))
    if found:
        return found[0]
    stream = sys.stdin.buffer
    start = stream.peek(1 << 13)
    refuse_binary(start, Path("standard input"))
    file = folder / ("standard-input.jsonl" if start.lstrip()[:1] == b"{" else "standard-input.txt")
    with atomic.replacing(file) as temporary, temporary.open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)
    return file


def _folder(path: Path, reading: Reading) -> list[Source]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and is_known(file))
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise InputError(
            f"The folder {path} holds no file that can be read: {' '.join(FORMATS)}, "
            f"each also {' '.join(COMPRESSIONS)}."
        )
    return [FileSource(file, reading) for file in files]
