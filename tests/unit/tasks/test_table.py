"""Tables of every form, and the columns that are found in them."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from elision.errors import InputError
from elision.tasks.labelled import Row, read_rows
from elision.tasks.table import Columns, read_table

FOUND = Columns("text", None, "label")


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": 'a "b", c', "label": "x"}, {"text": "라", "label": "y"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files = [
        write(tmp_path / "a.csv", '\ufefftext,label\n"a ""b"", c",x\n라,y\n'),
        write(tmp_path / "a.tsv", 'text\tlabel\na "b", c\tx\n라\ty\n'),
        write(tmp_path / "tabs.csv", 'text\tlabel\na "b", c\tx\n\n라\ty\n'),
        write(tmp_path / "a.txt", 'text\tlabel\r\na "b", c\tx\r\n라\ty\r\n'),
        write(tmp_path / "a.jsonl", lines),
        write(tmp_path / "a.json", json.dumps(rows)),
        str(tmp_path / "a.jsonl.gz"),
        str(tmp_path / "a.parquet"),
    ]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for file in files:
        read, columns = read_rows(file, Columns())
        assert [(row.text, row.label) for row in read] == [('a "b", c', "x"), ("라", "y")], file
        assert columns == FOUND


def test_a_stray_quote_in_a_tab_separated_file_is_text(tmp_path: Path) -> None:
    file = write(tmp_path / "mrpc.tsv", 'Quality\t#1 String\t#2 String\n1\t"He said\tit is\n0\tno"\tyes\n')
    rows, columns = read_rows(file, Columns())
    assert rows == [Row('"He said', "1", "it is", f"{file}:2"), Row('no"', "0", "yes", f"{file}:3")]
    assert columns == Columns("#1 String", "#2 String", "Quality")


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    first = write(tmp_path / "train.tsv", "ID\tText\tLabel\n1\ta\tx\n")
    second = write(tmp_path / "dev.tsv", "ID\tLabel\tText\n1\ty\tb\n")
    assert read_rows(first, Columns())[0][0].text == "a"
    assert read_rows(second, Columns())[0][0] == Row("b", "y", None, f"{second}:2")


def test_without_a_header_columns_go_by_number(tmp_path: Path) -> None:
    file = write(tmp_path / "cola.tsv", "gj04\t1\t\tHe left.\ngj04\t0\t*\tLeft he.\n")
    rows, _ = read_rows(file, Columns(text="3", label="1", header=False))
    assert rows == [Row("He left.", "1", None, f"{file}:1"), Row("Left he.", "0", None, f"{file}:2")]


def test_unknown_columns_are_refused_with_the_list_of_those_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "id\tutter\tkind\n1\ta\tb\n")
    with pytest.raises(InputError, match=r"holds the label\? .*--label-column\. Columns: id, utter, kind"):
        read_rows(file, Columns())
    with pytest.raises(
        InputError, match=r"no column 'utterr' \(--text-column\)\. Did you mean 'utter'\? Columns: id, utter"
    ):
        read_rows(file, Columns(text="utterr", label="kind"))
    with pytest.raises(InputError, match="holds the text"):
        read_rows(file, Columns(label="kind"))


@pytest.mark.parametrize("row", ["a\t", "a", "a\t  "])
def test_a_missing_label_is_refused_with_file_and_line(tmp_path: Path, row: str) -> None:
    file = write(tmp_path / "a.tsv", f"text\tlabel\nfine\tx\n{row}\n")
    with pytest.raises(InputError, match=r"a\.tsv:3: the label \(column 'label'\) is missing"):
        read_rows(file, Columns())


def test_text_that_is_no_text_is_refused_with_file_and_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"text": "x", "label": 1}\n{"text": 5, "label": 1}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: the text \(column 'text'\) is 5, a int"):
        read_rows(file, Columns())


def test_damaged_empty_and_absent_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip at all")
    (tmp_path / "b.csv").write_bytes(b"\x00\x01\x02")
    (tmp_path / "c.csv").write_bytes("text,label\nä,x\n".encode("latin-1"))
    for name, what in (("a.csv.gz", "damaged"), ("b.csv", "binary"), ("c.csv", "not UTF-8"), ("d.csv", "no file")):
        with pytest.raises(InputError, match=what):
            list(read_table(str(tmp_path / name)))
    with pytest.raises(InputError, match="holds no rows"):
        read_rows(write(tmp_path / "e.csv", "text,label\n"), Columns())


def test_a_data_set_folder_gives_rows_with_class_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "set"))
    folder = str(tmp_path / "set")
    assert [(r.text, r.label) for r in read_rows_of(folder)] == [("a", "yes"), ("b", "no")]
    with pytest.raises(InputError, match="no split 'test', only: train"):
        read_rows_of(folder + "@test")


def read_rows_of(source: str) -> list[Row]:
    return read_rows(source, Columns())[0]
