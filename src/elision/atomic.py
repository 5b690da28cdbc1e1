"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed into it."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elision.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    Works for a file or for a folder that the caller creates at the temporary path. A reader never sees a half-written
    result, and a crash at any instant leaves the previous one in place.

    Raises: OSError (for example a full disk), with the earlier content of `path` intact.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    _remove(temporary)
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir():
            # rename() cannot replace a folder that has content, so the old one steps aside first.
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            _remove(old)
            os.rename(path, old)
            os.rename(temporary, path)
            _remove(old)
        else:
            os.replace(temporary, path)
        _sync_entry(path.parent)
    except BaseException:
        _remove(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(folder: Path, done: str, file: str = ".lock") -> Iterator[None]:
    """Hold `folder` through a lock on `file` in it, so that two processes cannot write there at once.

    `done` is what happens to the folder, as a participle ("trained"). The system drops the lock of a killed process.

    Raises: InputError when another process holds it, or when the folder cannot be written.
    """
    folder = Path(folder)
    try:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        lock = (folder / file).open("w")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another folder with --out.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise InputError(
                f"{folder} is being {done} by another process: wait for it, or name another --out."
            ) from None
        yield


def _sync(path: Path) -> None:
    if path.is_dir():
        for child in path.rglob("*"):
            _sync_entry(child)
    _sync_entry(path)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
