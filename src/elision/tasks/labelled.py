"""Labelled texts as examples: reading them, what their labels are, and the plan that a loader deals out."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from elision.data.example import Example
from elision.errors import InputError, nearest
from elision.tasks.encoding import Encoding
from elision.tasks.table import Columns, read_table
from elision.text.tokenizer import Tokenizer

# More different float-valued labels than this are scores, not classes.
MOST_FLOAT_CLASSES = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A text (or a pair of texts) with its label: a class name, a number, or None where it is to be predicted."""

    text: str
    label: str | int | float | None = None
    pair: str | None = None
    where: str = ""
    """`file:line`, for messages"""


def read_rows(source: str, columns: Columns, split: str = "train") -> tuple[list[Row], Columns]:
    """Read a labelled table whole; returns its rows and which columns they came from.

    Raises: InputError with file and line where a text or a label is missing.
    """
    rows: list[Row] = []
    found: Columns | None = None
    for where, values in read_table(source, header=columns.header, split=split):
        if found is None:
            found = columns.resolve(list(values), where, labelled=True)
        label = values.get(found.label)
        if label is None or (isinstance(label, str) and not label.strip()):
            raise InputError(f"{where}: the label (column {found.label!r}) is missing. Fill it in, or drop the row.")
        if not isinstance(label, str | int | float):
            raise InputError(
                f"{where}: the label (column {found.label!r}) is a {type(label).__name__}, not text or number."
            )
        rows.append(
            Row(
                text_of(values, found.text, where),
                label.strip() if isinstance(label, str) else label,
                None if found.pair is None else text_of(values, found.pair, where),
                where,
            )
        )
    if found is None:
        raise InputError(f"{source} holds no rows.")
    return rows, found


def text_of(values: Any, column: str | None, where: str) -> str:
    """Return one text of a row. Raises: InputError when it is missing or no text."""
    value = values.get(column)
    if value is None:
        raise InputError(f"{where}: the text (column {column!r}) is missing. Columns of this row: {', '.join(values)}.")
    if not isinstance(value, str):
        raise InputError(f"{where}: the text (column {column!r}) is {value!r:.60}, a {type(value).__name__}, not text.")
    return value


def choose_task(rows: Sequence[Row], wanted: str) -> tuple[str, tuple[str, ...]]:
    """Return ("classification", class names in order) or ("regression", ()), as wanted or as the labels look.

    "auto" takes numbers with a fraction, or more than ten different float-valued ones, for scores.
    Raises: InputError when the labels do not fit.
    """
    if wanted == "regression" or (wanted == "auto" and _look_like_scores(rows)):
        scores([*rows])
        return "regression", ()
    first = {}
    for row in rows:
        first.setdefault(str(row.label), row)
    if len(first) < 2:
        raise InputError(
            f"all {len(rows)} labels are {next(iter(first), None)!r}: a classification needs at least 2 classes"
        )
    if len(rows) >= 20 and len(first) > len(rows) // 2:
        raise InputError(
            f"{len(first)} different labels in {len(rows)} rows are no classes ({', '.join(list(first)[:3])} ...): name "
            f"another --label-column, or say --task regression if they are scores"
        )
    return "classification", tuple(sorted(first, key=_natural))


def classes(rows: Iterable[Row], labels: Sequence[str]) -> list[int]:
    """Return the class index of every row. Raises: InputError naming file, line and the known classes."""
    index = {label: i for i, label in enumerate(labels)}
    found = []
    for row in rows:
        if str(row.label) not in index:
            known = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
            raise InputError(
                f"{row.where or 'a row'}: the label {str(row.label)!r} is none of the training data's ({known})."
                f"{nearest(str(row.label), labels)}"
            )
        found.append(index[str(row.label)])
    return found


def scores(rows: Iterable[Row]) -> list[float]:
    """Return the label of every row as a number. Raises: InputError naming file and line of one that is none."""
    found = []
    for row in rows:
        value = _number(row.label)
        if value is None:
            raise InputError(
                f"{row.where or 'a row'}: the label {row.label!r} is not a (finite) number, which a regression needs. "
                f"Correct it, or say --task classification."
            )
        found.append(value)
    return found


def _look_like_scores(rows: Sequence[Row]) -> bool:
    values = set()
    written_as_float = False
    for row in rows:
        value = _number(row.label)
        if value is None:
            return False
        written_as_float |= isinstance(row.label, float) or (isinstance(row.label, str) and not _is_integer(row.label))
        values.add(value)
    fractions = any(not value.is_integer() for value in values)
    return fractions or (written_as_float and len(values) > MOST_FLOAT_CLASSES)


def _number(label: object) -> float | None:
    if isinstance(label, bool):
        return None
    try:
        value = float(label)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _is_integer(label: str) -> bool:
    return label.lstrip("+-").isdigit()


def _natural(label: str) -> tuple[int, float, str]:
    value = _number(label)
    return (1, 0.0, label) if value is None else (0, value, label)


class LabelledPlan:
    """Rows as a plan that a Loader deals out: tokenised once, framed when asked for."""

    contiguous = False

    def __init__(
        self, rows: Sequence[Row], tokenizer: Tokenizer, encoding: Encoding, labels: Sequence[int | float] | None
    ):
        self._encoding, self.labels = encoding, labels
        self._first, self._first_at = flat_ids(tokenizer, [row.text for row in rows])
        self._second, self._second_at = None, None
        if rows and rows[0].pair is not None:
            self._second, self._second_at = flat_ids(tokenizer, [row.pair or "" for row in rows])

    def __len__(self) -> int:
        return len(self._first_at) - 1

    def example(self, index: int) -> Example:
        """Build example `index`."""
        first = self._first[self._first_at[index] : self._first_at[index + 1]]
        second = None
        if self._second is not None:
            second = self._second[self._second_at[index] : self._second_at[index + 1]]
        example = self._encoding(first, second)
        return example if self.labels is None else dataclasses.replace(example, label=self.labels[index])

    def lengths(self) -> np.ndarray:
        """Return how many tokens each example has before it is cut, special symbols included."""
        lengths = np.diff(self._first_at) + self._encoding.num_symbols(self._second_at is not None)
        return lengths if self._second_at is None else lengths + np.diff(self._second_at)


def flat_ids(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all texts end to end, and where each begins; one place more says where the last ends."""
    ids = tokenizer.encode_batch(texts)
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(part) for part in ids], out=starts[1:])
    return np.concatenate(ids) if ids else np.empty(0, np.int32), starts
