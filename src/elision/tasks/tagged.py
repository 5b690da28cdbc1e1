"""Texts whose words have tags: columns of words and tags (CoNLL), JSON lines of tokens and tags, or of marked spans."""

import contextlib
import dataclasses
import io
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from elision.errors import InputError
from elision.tasks.table import read_lines, read_table

TOKENS = ("tokens", "words", "token", "word")
TAGS = ("tags", "ner_tags", "labels", "ner", "tag", "pos_tags", "upos", "label")
SPANS = ("entities", "spans", "labels", "label")
_TABLES = (".jsonl", ".ndjson", ".json", ".parquet")
_COLUMNS = (".conll", ".conllu", ".bio", ".iob", ".iob2", ".ner")
_LOOKED_AT = 40


@dataclasses.dataclass(frozen=True, slots=True)
class TaggedText:
    """A text, where its words lie in it (begin and end, exclusive), and their tags (None: to be predicted)."""

    text: str
    words: tuple[tuple[int, int], ...]
    tags: tuple[str, ...] | None = None
    where: str = ""
    """`file:line`, for messages"""

    @property
    def tokens(self) -> list[str]:
        """The words as they are written."""
        return [self.text[begin:end] for begin, end in self.words]


def joined(tokens: Sequence[str], tags: Sequence[str] | None, unit: str, where: str = "") -> TaggedText:
    """Return the text of separate words, with a space between two; of characters, with nothing."""
    space = "" if unit == "characters" else " "
    ends, at = [], 0
    for token in tokens:
        ends.append((at, at + len(token)))
        at += len(token) + len(space)
    return TaggedText(space.join(tokens), tuple(ends), None if tags is None else tuple(tags), where)


def split(text: str, unit: str, where: str = "") -> TaggedText:
    """Return a plain text with its words: what spaces part, punctuation at their ends apart; or its characters."""
    if unit == "characters":
        return TaggedText(text, tuple((n, n + 1) for n in range(len(text))), None, where)
    words: list[tuple[int, int]] = []
    for match in re.finditer(r"\S+", text):
        begin, end = match.span()
        first, last = begin, end
        while first < last and _is_punctuation(text[first]):
            first += 1
        while last > first and _is_punctuation(text[last - 1]):
            last -= 1
        if text[first:last].count(".") or (last - first == 1 and text[first].isupper()):
            # "U.S." and "J." end with a stop of their own.
            last += last < end and text[last] == "."
        words += [(n, n + 1) for n in range(begin, first)]
        words += [(first, last)] if first < last else []
        words += [(n, n + 1) for n in range(last, end)]
    return TaggedText(text, tuple(words), None, where)


def read_tagged(
    source: str, *, token_column: int = 0, tag_column: int = -1, labelled: bool = True, dataset_split: str = "train"
) -> tuple[list[TaggedText], str]:
    """Read tagged texts whole; returns them and their unit, "words" or "characters".

    Tables (JSON lines, parquet, a `datasets` name) hold lists of tokens and tags, or texts with marked spans: those
    become tags of characters, exact wherever a span ends. Every other file has a word and its tag on a line and a blank
    line after each text; `token_column` and `tag_column` count from 0, or from the end below 0.

    Raises: InputError with file and line.
    """
    if _is_table(source):
        return _from_table(read_table(source, split=dataset_split), source, labelled)
    rows = list(_from_columns(source, token_column, tag_column if labelled else None))
    if not rows:
        raise InputError(f"{source} holds no rows.")
    unit = _unit(tokens for tokens, _, _ in rows)
    return [joined(tokens, tags, unit, where) for tokens, tags, where in rows], unit


def looks_like_columns(lines: Sequence[str]) -> bool:
    """Tell whether these first lines of a file are words with columns rather than plain text."""
    rows = [line.rstrip("\r\n") for line in lines if not line.isspace() and not _is_comment(line)]
    if len(rows) < 2:
        return False
    counts = {len(_cells(row)) for row in rows}
    return len(counts) == 1 and counts.pop() > 1


def read_plain(source: str, unit: str, token_column: int = 0) -> Iterator[TaggedText]:
    """Yield texts without tags: the same files as `read_tagged`, or plain text, a text on a line ("-": standard input).

    Raises: InputError with file and line.
    """
    if source != "-" and _is_table(source):
        for where, values in read_table(source, split="test"):
            yield _without_tags(values, unit, where)
        return
    with _opened(source) as lines:
        first = [line for _, line in zip(range(_LOOKED_AT), lines)]
        columns = Path(source).suffix.lower() in _COLUMNS or looks_like_columns(first)
        if columns:
            for tokens, _, where in _columns(itertools.chain(first, lines), source, token_column, None):
                yield joined(tokens, None, unit, where)
            return
        for number, line in enumerate(itertools.chain(first, lines), 1):
            if not line.isspace():
                yield split(line.strip(), unit, f"{source}:{number}")


def _is_table(source: str) -> bool:
    path = Path(source).expanduser()
    if path.is_file():
        return any(suffix.lower() in _TABLES for suffix in path.suffixes)
    if path.is_absolute() or source.startswith((".", "~")) or path.suffix.lower() in (*_COLUMNS, ".tsv", ".txt"):
        raise InputError(f"There is no file {source}.")
    return True


@contextlib.contextmanager
def _opened(source: str) -> Iterator[Iterator[str]]:
    if source == "-":
        import sys

        yield iter(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig"))
        return
    with read_lines(Path(source).expanduser()) as lines:
        yield iter(lines)


def _from_columns(source: str, token_column: int, tag_column: int | None) -> Iterator[tuple]:
    with _opened(source) as lines:
        yield from _columns(lines, source, token_column, tag_column)


def _columns(
    lines: Iterable[str], source: str, token_column: int, tag_column: int | None
) -> Iterator[tuple[list[str], list[str] | None, str]]:
    """Yield (tokens, tags, where) for each block of lines."""
    tokens: list[str] = []
    tags: list[str] = []
    where = ""
    for number, line in enumerate(itertools.chain(lines, ["\n"]), 1):
        line = line.rstrip("\r\n")
        if not line or (line.isspace() and "\t" not in line):
            if tokens and tokens != ["-DOCSTART-"]:
                yield tokens, tags if tag_column is not None else None, where
            tokens, tags = [], []
            continue
        if _is_comment(line):
            continue
        cells = _cells(line)
        try:
            token, tag = cells[token_column], None if tag_column is None else cells[tag_column].strip()
        except IndexError:
            token, tag = None, None
        if not token or (tag_column is not None and (not tag or len(cells) < 2)):
            raise InputError(
                f"{source}:{number}: {line!r:.60} is no word with its tag: write them on one line with a tab or a space "
                f"between, and a blank line after each text"
            )
        where = where if tokens else f"{source}:{number}"
        tokens.append(token)
        tags.append(tag or "")


def _cells(line: str) -> list[str]:
    # A tab parts columns wherever there is one: the word may be a space then.
    return line.split("\t") if "\t" in line else line.split()


def _is_comment(line: str) -> bool:
    return line.startswith("## ") or (line.startswith("# ") and " = " in line)


def _from_table(rows: Iterable[tuple[str, Mapping[str, Any]]], source: str, labelled: bool) -> tuple[list, str]:
    listed = list(rows)
    if not listed:
        raise InputError(f"{source} holds no rows.")
    where, first = listed[0]
    column = _first_of(TOKENS, first)
    if column is None:
        spans = next((name for name in SPANS if isinstance(first.get(name), list)), None)
        if not isinstance(first.get("text"), str) or (labelled and spans is None):
            raise InputError(
                f"{where}: expected lists of tokens and tags, or a text with a list of entities. Columns: {', '.join(first)}."
            )
        return [_marked(values, spans, where) for where, values in listed], "characters"
    tag_column = _first_of(TAGS, first)
    if labelled and tag_column is None:
        raise InputError(f"{where}: which column holds the tags? Call it tags. Columns: {', '.join(first)}.")
    checked = []
    for where, values in listed:
        tokens, tags = values.get(column), values.get(tag_column) if labelled else None
        if not isinstance(tokens, list) or not tokens or not all(isinstance(each, str) and each for each in tokens):
            raise InputError(f"{where}: {column} must be a list of words, none of them empty")
        if labelled and (not isinstance(tags, list) or len(tags) != len(tokens)):
            have = len(tags) if isinstance(tags, list) else "no list of"
            raise InputError(f"{where}: {tag_column} must be as many as {column}: {have} tags for {len(tokens)} words")
        checked.append((tokens, None if tags is None else [str(tag) for tag in tags], where))
    unit = _unit(tokens for tokens, _, _ in checked)
    return [joined(tokens, tags, unit, where) for tokens, tags, where in checked], unit


def _without_tags(values: Mapping[str, Any], unit: str, where: str) -> TaggedText:
    column = _first_of(TOKENS, values)
    if column is not None and isinstance(values[column], list):
        return joined([str(token) for token in values[column]], None, unit, where)
    text = values.get("text", values.get("sentence"))
    if not isinstance(text, str):
        raise InputError(f"{where}: expected a list of tokens or a text. Columns: {', '.join(values)}.")
    return split(text, unit, where)


def _marked(values: Mapping[str, Any], spans: str | None, where: str) -> TaggedText:
    """Return a text whose characters are tagged B-, I- and O as its spans say: {start, end, label} or [start, end, label]."""
    text = values.get("text")
    if not isinstance(text, str) or not text:
        raise InputError(f"{where}: the text is missing")
    tags = ["O"] * len(text)
    for span in (values.get(spans) or []) if spans is not None else []:
        if isinstance(span, Mapping):
            begin, end = span.get("start", span.get("begin")), span.get("end")
            label = next((span[name] for name in ("label", "type", "tag", "entity") if name in span), None)
        else:
            begin, end, label = span if isinstance(span, list) and len(span) == 3 else (None, None, None)
        if not (isinstance(begin, int) and isinstance(end, int) and isinstance(label, str) and label):
            raise InputError(f"{where}: {span!r:.60} is no span: give start, end (exclusive) and label")
        if not 0 <= begin < end <= len(text):
            raise InputError(
                f"{where}: the span {begin} to {end} does not lie in the text, which has {len(text)} characters"
            )
        if any(tag != "O" for tag in tags[begin:end]):
            raise InputError(f"{where}: the span {begin} to {end} overlaps another: a character has one tag")
        tags[begin:end] = [f"B-{label}"] + [f"I-{label}"] * (end - begin - 1)
    return TaggedText(text, tuple((n, n + 1) for n in range(len(text))), tuple(tags), where)


def _unit(texts: Iterable[Sequence[str]]) -> str:
    """Characters, when every token is one and spaces are among them; else words."""
    blank = False
    for tokens in texts:
        if any(len(token) > 1 for token in tokens):
            return "words"
        blank = blank or any(token.isspace() for token in tokens)
    return "characters" if blank else "words"


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _first_of(names: Sequence[str], values: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in values), None)
