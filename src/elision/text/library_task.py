"""A labelled task made of the documentation on this machine: which library does a description come from?"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elision.errors import InputError
from elision.text.docstrings import parse, source_files

# Label -> how its name is written. All of these are blanked in every row: a text about SciPy also names NumPy.
LIBRARIES = {
    "torch": r"\w*torch\w*|aten|aot_?autograd|dynamo|inductor|fsdp\w*",
    "numpy": r"\w*numpy\w*|np|ndarrays?|ufuncs?",
    "sympy": r"\w*sympy\w*|sympify\w*",
    "scipy": r"\w*scipy\w*",
    "sklearn": r"\w*sklearn\w*|scikit-?learn\w*",
    "networkx": r"\w*networkx\w*|nx",
    "pandas": r"\w*pandas\w*|pd",
    "pygments": r"\w*pygments?\w*|lexers?",
    "mpmath": r"\w*mpmath\w*|mp|mpf",
    "datasets": r"\w*huggingface\w*|hugging face|hf\w*",
    "rich": r"",
    "PIL": r"pil|pillow",
    "narwhals": r"\w*narwhals?\w*|nw",
    "fsspec": r"\w*fsspec\w*",
    "jinja2": r"\w*jinja\w*",
}
NUM_CLASSES = 10
BLANK = "___"
_NAMES = re.compile(rf"(?<!\w)(?:{'|'.join(filter(None, LIBRARIES.values()))})(?!\w)", re.IGNORECASE)
_DOTTED = re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_ROLE = re.compile(r":(?:py:)?\w+:(?=`)")
_VERSION = re.compile(r"^\s*\.\. .*$", re.MULTILINE)
_MAX_FILES = 320
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

    Names of libraries and dotted names are blanked. Training and validation rows come from different modules, and a
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
        for _, _, text in documents:
            row = blanked(text)
            if row is not None and row not in taken:
                taken.add(row)
                sides[module.partition(".")[0]][side].append(row)
    enough = [
        label
        for label, (train, valid) in sides.items()
        if len(train) >= train_per_class and len(valid) >= 2 * valid_per_class
    ]
    labels = sorted(enough[:NUM_CLASSES])
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
    text = _DOTTED.sub(BLANK, _ROLE.sub("", _VERSION.sub("", text)))
    words = _NAMES.sub(BLANK, text).split()
    meaningful = sum(word.isalpha() for word in words[:_MAX_WORDS])
    return " ".join(words[:_MAX_WORDS]) if meaningful >= _MIN_WORDS else None


def _files_to_read() -> list[tuple[str, Path]]:
    """Return a sample of each library's source files: the largest have thousands, and none needs more."""
    by_library: dict[str, list[tuple[str, Path]]] = {label: [] for label in LIBRARIES}
    for module, file in source_files():
        if module.partition(".")[0] in LIBRARIES:
            by_library[module.partition(".")[0]].append((module, file))
    chosen = [
        sorted(files, key=lambda pair: hashlib.blake2b(pair[0].encode(), digest_size=8).digest())[:_MAX_FILES]
        for files in by_library.values()
    ]
    return [pair for files in chosen for pair in files]


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
