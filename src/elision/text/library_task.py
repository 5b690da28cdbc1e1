"""A labelled task made of the documentation on this machine: which library does a description come from?"""

import functools
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elision.errors import InputError
from elision.text.docstrings import parse, source_files

# Label -> how its name is written. All of these are blanked in every row: a text about SciPy also names NumPy.
LIBRARIES = {
    "datasets": r"\w*huggingface\w*|hugging|hf\w*",
    "networkx": r"\w*networkx\w*|nx",
    "numpy": r"\w*numpy\w*|np|ndarrays?|ufuncs?",
    "pandas": r"\w*pandas\w*|pd",
    "scipy": r"\w*scipy\w*",
    "sklearn": r"\w*sklearn\w*|scikit-?learn\w*|scikit",
    "sympy": r"\w*sympy\w*|sympify\w*",
    "torch": r"\w*torch\w*|aten|aot_?autograd|dynamo|inductor|fsdp\w*",
}
_OTHERS = r"\w*mpmath\w*|mp|mpf|\w*narwhals?\w*|nw|\w*fsspec\w*"
BLANK = "___"
_NAMES = re.compile(rf"(?<!\w)(?:{'|'.join([*LIBRARIES.values(), _OTHERS])})(?!\w)", re.IGNORECASE)
_DOTTED = re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_ROLE = re.compile(r":(?:py:)?\w+:(?=`)")
_VERSION = re.compile(r"^\s*\.\. .*$", re.MULTILINE)
# The largest libraries have forty megabytes of source; this much documents enough functions and parses in a second.
_MAX_SOURCE_BYTES = 2_500_000
_MAX_CHARACTERS = 4_000
_MAX_WORDS = 60
_MIN_WORDS = 15
_LARGEST_OVERLAP = 0.3


class LibraryTask(NamedTuple):
    """The labels and the rows, each a dictionary with `text` and `label`, shuffled."""

    labels: list[str]
    train: list[dict[str, str]]
    valid: list[dict[str, str]]


def library_task(train_per_class: int = 32, valid_per_class: int = 60, seed: int = 0) -> LibraryTask:
    """Return descriptions of classes and functions, labelled with the library they come from.

    Names of libraries and dotted names are blanked. Of each library a sample of its source files is read, about 2.5 MB,
    without tests and vendored packages. Training and validation rows come from different modules, and a
    validation row that shares many five-word runs with a training row is left out. The texts of both, without labels,
    may be part of a model's pretraining text when that is `--corpus pydocs`: the task asks what pretraining on the
    field's text is worth when labels are few, not how a model does on unseen text.

    Raises: InputError when fewer than two installed libraries have enough documentation.
    """
    files = _files_to_read()
    sides: dict[str, tuple[list[str], list[str]]] = {label: ([], []) for label in LIBRARIES}
    taken: set[str] = set()
    for module, _, documents, _ in parse(files):
        # A hash of the module, so that whole modules fall on one side whatever is installed beside them.
        side = hashlib.blake2b(module.encode(), digest_size=1).digest()[0] % 2
        rows = sides[module.partition(".")[0]][side]
        for _, _, text in documents:
            row = blanked(text)
            if row is not None and row not in taken:
                taken.add(row)
                rows.append(row)
    labels = [
        label
        for label, (train, valid) in sides.items()
        if len(train) >= train_per_class and len(valid) >= 2 * valid_per_class
    ]
    if len(labels) < 2:
        raise InputError(
            f"The library task needs two libraries with {train_per_class} and {2 * valid_per_class} documented "
            f"functions; installed here: {', '.join(labels) or 'none'}. Lower train_per_class."
        )
    rng = np.random.Generator(np.random.Philox(seed))
    train = [(text, label) for label in labels for text in _pick(sides[label][0], train_per_class, rng)]
    known = [_runs(text) for text, _ in train]
    valid = []
    for label in labels:
        fresh = (text for text in _pick(sides[label][1], len(sides[label][1]), rng) if not _is_close(text, known))
        valid += [(text, label) for text, _ in zip(fresh, range(valid_per_class))]
    return LibraryTask(labels, _rows(train, rng), _rows(valid, rng))


def blanked(text: str) -> str | None:
    """Return the beginning of a description with the names blanked, or None when too little is left to judge by."""
    words = _ROLE.sub("", _VERSION.sub("", text[:_MAX_CHARACTERS])).split()[:_MAX_WORDS]
    words = [_blanked_word(word) for word in words]
    return " ".join(words) if sum(map(str.isalpha, words)) >= _MIN_WORDS else None


@functools.lru_cache(1 << 16)
def _blanked_word(word: str) -> str:
    return _NAMES.sub(BLANK, _DOTTED.sub(BLANK, word))


def _files_to_read() -> list[tuple[str, Path]]:
    """Return a sample of each library's source files, in the order of a hash of their names."""
    by_library: dict[str, list[tuple[str, Path]]] = {label: [] for label in LIBRARIES}
    for module, file in source_files():
        if module.partition(".")[0] in LIBRARIES:
            by_library[module.partition(".")[0]].append((module, file))
    chosen = []
    for files in by_library.values():
        size = 0
        for module, file in sorted(files, key=lambda pair: hashlib.blake2b(pair[0].encode(), digest_size=8).digest()):
            size += file.stat().st_size
            if size > _MAX_SOURCE_BYTES:
                break
            chosen.append((module, file))
    return chosen


def _pick(texts: list[str], count: int, rng: np.random.Generator) -> list[str]:
    return [texts[i] for i in rng.permutation(len(texts))[:count]]


def _runs(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def _is_close(text: str, known: list[set[str]]) -> bool:
    runs = _runs(text)
    return any(len(runs & other) > _LARGEST_OVERLAP * min(len(runs), len(other)) for other in known)


def _rows(pairs: list[tuple[str, str]], rng: np.random.Generator) -> list[dict[str, str]]:
    return [{"text": pairs[i][0], "label": pairs[i][1]} for i in rng.permutation(len(pairs))]
