"""Texts in twos: what is read and what is to be written of it. Tables, JSON lines with several references, aligned files."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from elision.errors import InputError, nearest
from elision.tasks.table import read_lines, read_table
from elision.text.formats import COMPRESSIONS

# Usual names of the two columns, compared without regard to case; the first two that are both there are taken.
PAIRS = (
    ("source", "target"), ("source", "summary"), ("src", "tgt"), ("src", "trg"), ("document", "summary"),
    ("article", "highlights"), ("article", "summary"), ("dialogue", "summary"), ("text", "summary"),
    ("abstract", "title"), ("question", "answer"), ("q", "a"), ("question", "answers"), ("instruction", "output"),
    ("instruction", "response"), ("prompt", "completion"), ("prompt", "response"), ("input", "output"),
    ("input", "target"), ("text", "target"), ("text", "label"), ("sentence", "label"),
)  # fmt: skip
SOURCES = (*dict.fromkeys(source for source, _ in PAIRS), "sentence", "content")
# What an instruction is about stands in a column of its own, which some rows leave empty.
CONTEXTS = {"instruction": "input"}
# Files whose name says that they are tables, and not texts line by line.
TABLES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclasses.dataclass(frozen=True, slots=True)
class TextPair:
    """A text that is read, and what may be written of it: references, each as good as the others. () = nobody has said."""

    source: str
    targets: tuple[str, ...] = ()
    where: str = ""
    """`file:line`, for messages"""


@dataclasses.dataclass(frozen=True)
class PairColumns:
    """Which columns of a table hold what; None = find it by its usual names."""

    source: str | None = None
    """the text that is read: a name, a path of names (translation.en), or a number counted from 0"""
    target: str | None = None
    """the text that is written; a list in JSON lines is several references"""
    context: str | None = None
    """more to read, which follows the source after an empty line where it is not empty"""
    header: bool = True
    """whether the first line of a csv or tsv file names the columns"""

    def resolve(self, there: Sequence[str], where: str, *, labelled: bool) -> "PairColumns":
        """Return the same with every name filled in, for a table with the columns `there`; `labelled`: targets are needed.

        Raises: InputError that lists the columns there are.
        """
        source, target, context = (
            _named(wanted, there, where, option)
            for wanted, option in (
                (self.source, "--source-column"),
                (self.target, "--target-column"),
                (self.context, "--context-column"),
            )
        )
        if source is None or (target is None and labelled):
            source, target = self._found(there, source, target, labelled)
        if source is None or (target is None and labelled):
            shown = ", ".join(name if len(name) <= 40 else f"{name[:40]}..." for name in there)
            hint = " If the file has no header, add --no-header and give numbers from 0." if self.header else ""
            if list(there) == ["text"]:
                hint = " Plain lines hold one text each: give two aligned files, the sources and the targets."
            raise InputError(
                f"{where}: which columns hold the source and the target? Say it with --source-column and "
                f"--target-column. Columns: {shown}.{hint}"
            )
        if context is None and source.lower() in CONTEXTS:
            context = _folded(CONTEXTS[source.lower()], there)
        return PairColumns(source, target, None if context in (source, target) else context, self.header)

    def _found(
        self, there: Sequence[str], source: str | None, target: str | None, labelled: bool
    ) -> tuple[str | None, str | None]:
        for names in PAIRS:
            first, second = (_folded(name, there) for name in names)
            if first is not None and second is not None and source in (None, first) and target in (None, second):
                return first, second
        rest = [name for name in there if name not in (source, target, self.context)]
        if not labelled and source is None:
            source = next((found for name in SOURCES if (found := _folded(name, rest)) is not None), None)
            source = source or (there[0] if len(there) == 1 else None)
        if len(there) == 2 and (source is None or target is None):
            # Two columns: what is left, or the first is read and the second written.
            source = source or rest.pop(0)
            target = target or next((name for name in rest if name != source), None)
        return source, target


def read_pairs(
    sources: Sequence[str], columns: PairColumns = PairColumns(), split: str = "train", *, labelled: bool = True
) -> tuple[list[TextPair], PairColumns]:
    """Read pairs whole: from one table (or `datasets` name), or from two files aligned line by line.

    labelled: targets must be there. Returns the pairs and which columns they came from.
    Raises: InputError with file and line where a side is missing, or no side is there at all.
    """
    if len(sources) > 2 or not sources:
        raise InputError(
            f"{len(sources)} files ({', '.join(sources)}): give one table, or two aligned files, the sources and the targets"
        )
    if len(sources) == 2:
        for name in sources:
            if any(suffix in TABLES for suffix in Path(name).suffixes):
                raise InputError(
                    f"{name} is a table, which holds both sides: give it alone, or two plain texts that are aligned line by "
                    f"line"
                )
        return list(read_aligned(Path(sources[0]), Path(sources[1]))), columns
    found: PairColumns | None = None
    pairs = []
    for where, values in read_table(sources[0], header=columns.header, split=split):
        if found is None:
            found = columns.resolve(_paths(values), where, labelled=labelled)
        pairs.append(pair_of(values, found, where, labelled=labelled))
    if found is None:
        raise InputError(f"{sources[0]} holds no rows: give a table of sources and targets.")
    return pairs, found


def pair_of(values: Mapping[str, Any], columns: PairColumns, where: str, *, labelled: bool) -> TextPair:
    """Return the pair of one row. Raises: InputError when a side is missing, empty or no text."""
    source = _text(values, columns.source, where, "source")
    if columns.context is not None:
        context = _text(values, columns.context, where, "context", empty=True)
        source = f"{source}\n\n{context}" if context.strip() else source
    if not labelled:
        return TextPair(source, (), where)
    value = _at(values, columns.target)
    references = value if isinstance(value, list) else [value]
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        # Answers in the form of SQuAD's rows.
        references = value["text"]
    texts = tuple(_checked(each, columns.target, where, "target") for each in references)
    if not texts:
        raise InputError(
            f"{where}: the target (column {columns.target!r}) is an empty list. Fill it in, or drop the row."
        )
    return TextPair(source, tuple(dict.fromkeys(texts)), where)


def read_aligned(source: Path, target: Path) -> Iterator[TextPair]:
    """Yield a pair for each line of two files; lines that are empty on both sides are left out.

    Raises: InputError naming file and line when one side of a line is empty, or one file is longer than the other.
    """
    for path in (source, target):
        if not path.is_file():
            raise InputError(f"There is no file {path}.")
    num_pairs = 0
    with read_lines(source) as ours, read_lines(target) as theirs:
        number = 0
        while True:
            one, other = ours.readline(), theirs.readline()
            number += 1
            if not one and not other:
                break
            if not one or not other:
                short, long = (source, target) if not one else (target, source)
                rest = 1 + sum(1 for _ in (theirs if not one else ours))
                raise InputError(
                    f"{short} has {number - 1:,} lines, but {long} has {number - 1 + rest:,}: line n of one must be the "
                    f"target of line n of the other. Leave no line out."
                )
            one, other = one.strip(), other.strip()
            if not one and not other:
                continue
            if not one or not other:
                empty, full = (source, target) if not one else (target, source)
                raise InputError(
                    f"{empty}:{number} is empty, but {full}:{number} is not. Fill it in, or empty the line in both."
                )
            num_pairs += 1
            yield TextPair(one, (other,), f"{source}:{number}")
    if not num_pairs:
        raise InputError(f"{source} and {target} hold no text.")


def read_sources(source: str, columns: PairColumns) -> Iterator[tuple[str, TextPair]]:
    """Yield (where, pair without targets) for each row of a table, or each line of a plain text."""
    if source != "-" and not _is_table(source) and Path(source).is_file():
        with read_lines(Path(source)) as lines:
            for number, line in enumerate(lines, 1):
                # A line in, a line out: an empty one too, so that what comes out stays aligned.
                yield f"{source}:{number}", TextPair(line.rstrip("\r\n"), (), f"{source}:{number}")
        return
    found: PairColumns | None = None
    for where, values in read_table(source, header=columns.header, split="test"):
        if found is None:
            there = _paths(values)
            usual = columns if columns.source in there or columns.source is None else PairColumns(header=columns.header)
            found = dataclasses.replace(usual, target=None).resolve(there, where, labelled=False)
        yield where, pair_of(values, found, where, labelled=False)
    if found is None:
        raise InputError(f"{source} holds no rows.")


def _is_table(source: str) -> bool:
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in TABLES


def _paths(values: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns; those of a row within a row (a translation by language) as paths, too."""
    paths = []
    for name, value in values.items():
        if isinstance(value, dict) and value and all(isinstance(each, str) for each in value.values()):
            paths += [f"{name}.{inner}" for inner in value]
        else:
            paths.append(name)
    return paths


def _at(values: Mapping[str, Any], column: str | None) -> Any:
    if column in values or column is None:
        return values.get(column)
    outer, _, inner = column.partition(".")
    found = values.get(outer)
    return found.get(inner) if isinstance(found, dict) else None


def _text(values: Mapping[str, Any], column: str | None, where: str, what: str, empty: bool = False) -> str:
    value = _at(values, column)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        # A document as the list of its sentences.
        value = " ".join(value)
    if empty and value is None:
        return ""
    return _checked(value, column, where, what, empty)


def _checked(value: Any, column: str | None, where: str, what: str, empty: bool = False) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Class numbers, years: what is written of a text may well be a number.
        value = str(value)
    if value is None or (isinstance(value, str) and not empty and not value.strip()):
        raise InputError(f"{where}: the {what} (column {column!r}) is missing. Fill it in, or drop the row.")
    if not isinstance(value, str):
        raise InputError(
            f"{where}: the {what} (column {column!r}) is {value!r:.60}, a {type(value).__name__}, not text."
        )
    return value.strip()


def _named(wanted: str | None, there: Sequence[str], where: str, option: str) -> str | None:
    if wanted is None or wanted in there:
        return wanted
    if wanted.isdigit() and int(wanted) < len(there):
        return there[int(wanted)]
    raise InputError(
        f"{where}: there is no column {wanted!r} ({option}).{nearest(wanted, there)} Columns: {', '.join(there)}."
    )


def _folded(name: str, there: Sequence[str]) -> str | None:
    return next((column for column in there if column.lower() == name), None)
