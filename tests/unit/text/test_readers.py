import bz2
import gzip
import io
import json
import lzma
import random

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zstandard

from elision.errors import InputError
from elision.text.readers import Document, Reading, SpooledSource, TextsSource, find_sources, spool_standard_input


def read(path, **reading):
    sources = find_sources([str(path)], Reading(**reading))
    return [document for source in sources for document in source.documents(lambda n: None)]


def texts(path, **reading):
    return [document.text.strip() for document in read(path, **reading)]


COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    # Two frames in a row are one file.
    ".zst": lambda data: zstandard.compress(data[:10]) + zstandard.compress(data[10:]),
}


@pytest.mark.parametrize("compression", COMPRESS)
def test_every_format_is_read_under_every_compression(tmp_path, compression):
    rows = [{"text": "eins, zwei", "lang": "de"}, {"text": "하나\n둘", "lang": "ko"}]
    table = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), table)
    files = {
        "a.txt": "eins, zwei\n\n\n하나\n둘\n".encode(),
        "a.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "a.json": json.dumps(rows, indent=1).encode(),
        "a.csv": 'lang,text\nde,"eins, zwei"\nko,"하나\n둘"\n'.encode(),
        "a.parquet": table.getvalue(),
    }
    for name, data in files.items():
        path = tmp_path / (name + compression)
        path.write_bytes(COMPRESS[compression](data))
        assert texts(path) == ["eins, zwei", "하나\n둘"], name
        if not name.endswith(".txt"):
            assert [document.language for document in read(path, language_field="lang")] == ["de", "ko"], name


def test_a_field_or_the_caller_says_the_control_code(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "source": "Books"}\n{"text": "b", "source": null}\n{"text": "c", "source": 7}\n'
    )
    assert [document.code for document in read(tmp_path / "a.jsonl", code_field="source")] == ["Books", None, "7"]
    both = read(tmp_path / "a.jsonl", code_field="source", code="Web")
    assert [document.code for document in both] == ["Books", "Web", "7"]
    parquet.write_table(pa.table({"text": ["a"], "source": ["News"], "n": [1]}), tmp_path / "a.parquet")
    assert [document.code for document in read(tmp_path / "a.parquet", code_field="source")] == ["News"]
    (tmp_path / "a.txt").write_text("a\n\nb\n")
    for documents in ("blank-line", "line"):
        assert {document.code for document in read(tmp_path / "a.txt", code="Web", documents=documents)} == {"Web"}
    with pytest.raises(InputError, match=r"there is no field 'kind' \(code_field\)"):
        read(tmp_path / "a.jsonl", code_field="kind")


def test_tsv_keeps_quotation_marks_as_text(tmp_path):
    (tmp_path / "a.tsv").write_text('id\tdocument\n1\t"no end\n2\tb\n')
    documents = read(tmp_path / "a.tsv", id_field="id")
    assert [(d.text, d.id) for d in documents] == [('"no end', "1"), ("b", "2")]


def test_a_column_number_reads_a_table_without_header(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tfirst\n0\tsecond\n")
    assert texts(tmp_path / "a.tsv", text_field="1") == ["first", "second"]


def test_plain_text_ends_documents_as_asked(tmp_path):
    (tmp_path / "a.txt").write_text("\n\none\ntwo\n \nthree\n")
    assert texts(tmp_path / "a.txt") == ["one\ntwo", "three"]
    assert texts(tmp_path / "a.txt", documents="file") == ["one\ntwo\n \nthree"]
    assert [t for t in texts(tmp_path / "a.txt", documents="line") if t] == ["one", "two", "three"]
    assert [d.where for d in read(tmp_path / "a.txt")] == [f"{tmp_path}/a.txt:3", f"{tmp_path}/a.txt:6"]


def test_folders_and_globs_are_read_in_sorted_order(tmp_path):
    for name in ("b/2.txt", "a/1.txt", "c/.hidden/x.txt", "c/notes.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path) == ["a/1.txt", "b/2.txt"]
    assert texts(f"{tmp_path}/*/2.*") == ["b/2.txt"]


def test_a_saved_data_set_is_read(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"content": ["x", "y"]}).save_to_disk(str(tmp_path / "set"))
    assert texts(tmp_path / "set") == ["x", "y"]


def test_standard_input_is_spooled_by_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b'{"text": "a"}\n'))))
    file = spool_standard_input(tmp_path)
    assert file.name == "standard-input.jsonl"
    assert texts(file) == ["a"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"\x00\x01\x02" * 100, "a.txt is a binary file"),
        ("a.txt", bytes(range(128, 256)) * 4, "a.txt is a binary file"),
        ("a.txt", random.Random(0).randbytes(100).replace(b"\0", b"\1"), "a.txt is a binary file"),
        ("a.txt", "한국어 문장입니다. ".encode("cp949") * 20, "a.txt is a binary file or text in another encoding"),
        ("a.txt", "hi".encode("utf-16"), "a.txt is UTF-16"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a.jsonl:2 is not a JSON object"),
        ("a.jsonl", b'["a"]\n', "a.jsonl:1 must be a JSON object"),
        ("a.jsonl", b'{"text": 3}\n', "field 'text' must be text, not int"),
        ("a.csv", b"x,y\na,b\n", "which field holds the text.* Fields: x, y"),
        ("a.txt.gz", b"no gzip", "a.txt.gz is damaged"),
        ("a.txt.gz", gzip.compress(b"word " * 5000, mtime=0)[:-20], "a.txt.gz is damaged"),
        ("a.txt.xz", b"no xz", "a.txt.xz is damaged"),
        ("a.txt.zst", b"no zstd at all", "a.txt.zst is damaged"),
        ("a.parquet", b"no parquet", "a.parquet is not a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_text_with_a_few_invalid_bytes_or_cut_within_a_character_is_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("Grüße aus München. ".encode("latin-1") * 1000)
    assert len(texts(tmp_path / "a.txt")) == 1
    (tmp_path / "b.txt").write_bytes("x한".encode() * 5000)
    assert texts(tmp_path / "b.txt") == ["x한" * 5000]


def test_a_slow_source_is_read_once_and_its_documents_come_while_it_is(tmp_path):
    given = tuple(Document(f"text {i}", "en", str(i), f"x:{i}") for i in range(5))
    source = SpooledSource(TextsSource(given), tmp_path / "spool.jsonl")
    broken_off = source.documents(lambda n: None)
    assert next(broken_off) == given[0]
    broken_off.close()
    assert list(tmp_path.iterdir()) == []
    reached = []
    assert list(source.documents(reached.append)) == list(given)
    assert reached[0] < reached[-1] == source.num_bytes
    nowhere = SpooledSource(TextsSource(given), tmp_path / "spool.jsonl")
    assert list(nowhere.documents(reached.append)) == list(given)
    assert reached[-1] == source.num_bytes


def test_absent_inputs_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no file or folder"):
        read(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="No file matches"):
        read(f"{tmp_path}/*.txt")
    with pytest.raises(InputError, match="holds no file that can be read"):
        read(tmp_path)


def test_an_unknown_field_is_refused_with_the_fields_there_are(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "lang": "de"}\n')
    with pytest.raises(InputError, match=r"no field 'language' \(language_field\). Fields: text, lang"):
        read(tmp_path / "a.jsonl", language_field="language")
