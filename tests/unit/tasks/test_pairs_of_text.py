"""Pairs of texts from tables and aligned files, and what is wrong with them said with file and line."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from elision.errors import InputError
from elision.tasks.pairs_of_text import PairColumns, read_pairs, read_sources


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("source", "target"), ("source", "target")),
        (("id", "Question", "Answer"), ("Question", "Answer")),
        (("document", "summary", "id"), ("document", "summary")),
        (("Q", "A", "label"), ("Q", "A")),
        (("prompt", "completion"), ("prompt", "completion")),
        (("sentence", "label"), ("sentence", "label")),
        (("deutsch", "english"), ("deutsch", "english")),
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path: Path, names: tuple[str, ...], found: tuple[str, str]) -> None:
    path = written(tmp_path / "t.tsv", "\t".join(names) + "\n" + "\t".join(f"a {name}" for name in names) + "\n")
    (pair,), columns = read_pairs([path])
    assert (columns.source, columns.target) == found
    assert (pair.source, pair.targets) == (f"a {found[0]}", (f"a {found[1]}",))
    assert pair.where.endswith("t.tsv:2")


def test_lists_are_sentences_of_a_source_and_references_of_a_target(tmp_path: Path) -> None:
    rows = [{"source": ["One.", "Two."], "target": ["1 2", "1, 2", "1 2"], "paper": 7}]
    path = written(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    (pair,), _ = read_pairs([path])
    assert (pair.source, pair.targets) == ("One. Two.", ("1 2", "1, 2"))


def test_instructions_take_their_input_along_where_there_is_one(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "Hi"},
    ]
    path = written(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    pairs, columns = read_pairs([path])
    assert columns.context == "input"
    assert [pair.source for pair in pairs] == ["Add.\n\n1 2", "Greet."]


def test_translations_by_language_are_named_by_a_path(tmp_path: Path) -> None:
    table = pa.table({"translation": [{"en": "yes", "de": "ja"}]})
    parquet.write_table(table, tmp_path / "t.parquet")
    (pair,), _ = read_pairs([str(tmp_path / "t.parquet")], PairColumns("translation.de", "translation.en"))
    assert (pair.source, pair.targets) == ("ja", ("yes",))


def test_numbers_count_as_texts_to_be_written(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", json.dumps({"text": "fine", "label": 1}) + "\n")
    assert read_pairs([path])[0][0].targets == ("1",)


def test_aligned_files_are_read_line_by_line_without_lines_that_are_empty_in_both(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.en.gz", "wt", encoding="utf-8") as stream:
        stream.write("one\n\ntwo\n")
    other = written(tmp_path / "a.de", "eins\n\nzwei\n")
    pairs, _ = read_pairs([str(tmp_path / "a.en.gz"), other])
    assert [(pair.source, pair.targets[0]) for pair in pairs] == [("one", "eins"), ("two", "zwei")]


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("one\ntwo\n", "eins\n", r"a\.de has 1 lines, but .*a\.en has 2"),
        ("one\n", "eins\nzwei\ndrei\n", r"a\.en has 1 lines, but .*a\.de has 3"),
        ("one\ntwo\n", "eins\n \n", r"a\.de:2 is empty, but .*a\.en:2 is not. Fill it in"),
        ("\n", "\n", "hold no text"),
    ],
)
def test_what_is_not_aligned_is_refused_with_file_and_line(
    tmp_path: Path, source: str, target: str, words: str
) -> None:
    paths = [written(tmp_path / "a.en", source), written(tmp_path / "a.de", target)]
    with pytest.raises(InputError, match=words):
        read_pairs(paths)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.tsv", "", "holds no rows"),
        ("t.tsv", "source\ttarget\n", "holds no rows"),
        ("t.tsv", "source\ttarget\na\tb\nc\t\n", r"t\.tsv:3: the target \(column 'target'\) is missing. Fill it in"),
        ("t.tsv", "source\ttarget\n\tb\n", r"t\.tsv:2: the source \(column 'source'\) is missing"),
        ("t.tsv", "one\ttwo\tthree\nx\ty\tz\n", "which columns hold the source and the target.*--source-column"),
        ("t.jsonl", '{"source": "a", "target": []}\n', r"t\.jsonl:1: the target .* is an empty list"),
        ("t.jsonl", '{"source": "a", "target": {"b": 1}}\n', "a dict, not text"),
        ("t.txt", "plain\nlines\n", "give two aligned files"),
    ],
)
def test_bad_tables_are_refused_with_file_line_and_fix(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_pairs([written(tmp_path / name, text)])


def test_a_misspelt_column_names_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path / "t.tsv", "article\ttl\nx\ty\n")
    with pytest.raises(InputError, match=r"--source-column.*Did you mean 'article'"):
        read_pairs([path], PairColumns(source="artcle"))


def test_a_table_beside_another_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.tsv", "source\ttarget\nx\ty\n")
    with pytest.raises(InputError, match="is a table, which holds both sides"):
        read_pairs([path, path])
    with pytest.raises(InputError, match=r"There is no file .*missing\.en"):
        read_pairs([str(tmp_path / "missing.en"), path.replace(".tsv", ".de")])


def test_sources_are_read_a_line_each_with_the_empty_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "t.en", "one, two\n\nthree\n")
    assert [pair.source for _, pair in read_sources(path, PairColumns())] == ["one, two", "", "three"]


def test_sources_of_a_table_come_from_the_column_of_the_training_if_it_is_there(tmp_path: Path) -> None:
    path = written(tmp_path / "t.tsv", "mine\ttext\na\tb\n")
    assert [pair.source for _, pair in read_sources(path, PairColumns("mine"))] == ["a"]
    assert [pair.source for _, pair in read_sources(path, PairColumns("gone"))] == ["b"]
