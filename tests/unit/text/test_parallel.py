"""Parallel text: from files to pairs in a store."""

import csv
import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from elision.cli import main
from elision.data.store import Split, Store
from elision.errors import InputError
from elision.text.parallel import AlignedSource, PairsSource, parallel_sources
from elision.text.prepare import prepare
from elision.text.tokenizer import ByteLevelBPE

PAIRS = [("a dog", "कुकुर"), ('the "big" cat, here', "ठूलो बिरालो"), ("rain\u2028falls", "पानी पर्छ"), ("two", "दुई")]
EN_NE = ("en", "ne")


def sides(source: AlignedSource | PairsSource) -> list[tuple[str, str]]:
    documents = list(source.documents(lambda done: None))
    assert all(document.language == "en" and document.translation.language == "ne" for document in documents)
    return [(document.text, document.translation.text) for document in documents]


def aligned(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> list[Path]:
    files = [folder / "train.en", folder / "train.ne"]
    for file, column in zip(files, zip(*pairs)):
        file.write_text("".join(f"{line}\n" for line in column), encoding="utf-8", newline="")
    return files


def test_line_n_of_two_files_is_a_pair_and_only_a_newline_ends_a_line(tmp_path):
    (source,) = parallel_sources(aligned(tmp_path), EN_NE)
    assert sides(source) == PAIRS
    assert source.identity() == [source.name, source.num_bytes, "en", "ne"]


def test_compressed_and_windows_files_align_too(tmp_path):
    first, second = aligned(tmp_path)
    packed = tmp_path / "train.en.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    second.write_bytes(second.read_bytes().replace(b"\n", b"\r\n")[:-2])
    (source,) = parallel_sources([packed, second], EN_NE)
    assert sides(source) == PAIRS


def test_files_of_different_length_are_refused_with_both_counts_before_any_work(tmp_path):
    first, second = aligned(tmp_path)
    second.write_text("एक\n" * 3)
    with pytest.raises(InputError, match=r"train.en has 4 lines, but .*train.ne has 3"):
        parallel_sources([first, second], EN_NE)
    # Also when that happens later on.
    with pytest.raises(InputError, match=r"train.en has 4 lines, but .*train.ne has 3"):
        sides(AlignedSource(first, second, EN_NE))


def write_tsv(path: Path, header: list[str]) -> None:
    rows = [header, *PAIRS] if header else PAIRS
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="")


def write_csv(path: Path, header: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[header[0], "more", header[1]], *([en, "-", ne] for en, ne in PAIRS)])


def write_json(path: Path, header: list[str]) -> None:
    path.write_text("".join(json.dumps({"id": n, **dict(zip(header, p))}) + "\n" for n, p in enumerate(PAIRS)))


def write_nested_json(path: Path, header: list[str]) -> None:
    path.write_text("".join(json.dumps({"translation": dict(zip(header, pair))}) + "\n" for pair in PAIRS))


def write_parquet(path: Path, header: list[str]) -> None:
    parquet.write_table(pa.table(dict(zip(header, zip(*PAIRS)))), path)


@pytest.mark.parametrize(
    ("name", "write", "header", "fields"),
    [
        ("a.tsv", write_tsv, [], None),
        ("a.tsv", write_tsv, [], ("0", "1")),
        ("a.tsv", write_tsv, ["en", "ne"], None),
        ("a.tsv", write_tsv, ["source", "target"], ("source", "target")),
        ("a.csv", write_csv, ["en", "ne"], None),
        ("a.csv", write_csv, ["source", "target"], ("source", "target")),
        ("a.jsonl", write_json, ["en", "ne"], None),
        ("a.json", write_json, ["source", "target"], None),
        ("a.jsonl", write_json, ["source", "target"], ("source", "target")),
        ("a.jsonl", write_nested_json, ["en", "ne"], None),
        ("a.json", write_nested_json, ["en", "ne"], None),
        ("a.parquet", write_parquet, ["en", "ne"], None),
        ("a.parquet", write_parquet, ["source", "target"], ("source", "target")),
    ],
)
def test_tables_give_their_pairs_by_language_by_field_or_as_the_only_two_columns(tmp_path, name, write, header, fields):
    write(tmp_path / name, header)
    (source,) = parallel_sources([tmp_path / name], EN_NE, fields)
    assert sides(source) == PAIRS


def test_the_sides_of_a_table_can_be_asked_for_the_other_way_round(tmp_path):
    write_tsv(tmp_path / "a.tsv", ["ne", "en"])
    (source,) = parallel_sources([tmp_path / "a.tsv"], EN_NE)
    assert sides(source) == [(there, here) for here, there in PAIRS]


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        ("a\tb\tc\n", None, "which columns are the two sides.*the first row holds: a, b, c"),
        ("a\tb\n", ("en", "ne"), "By --parallel-fields they would be en and ne"),
        ("a\tb\n", ("0", "2"), "there are columns: a, b"),
        ("", None, "the first row holds: nothing"),
    ],
)
def test_columns_that_cannot_be_told_are_refused_with_those_there_are(tmp_path, content, fields, message):
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        sides(parallel_sources([tmp_path / "a.tsv"], EN_NE, fields)[0])


def test_a_side_that_is_no_text_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"en": "a", "ne": "b"}\n{"en": "a", "ne": 3}\n')
    with pytest.raises(InputError, match=r"a.jsonl:2: field 'ne' must be text, not int"):
        sides(parallel_sources([tmp_path / "a.jsonl"], EN_NE)[0])


TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="en-US"><seg>Fish &amp; <hi>chips</hi><ph x="1">{\\b}</ph></seg></tuv>
    <tuv xml:lang="de"><seg>nicht</seg></tuv><tuv xml:lang="ne"><seg>माछा &#65;</seg></tuv></tu>
<tu><tuv lang="NE"><seg>एक</seg></tuv><tuv lang="EN"><seg>one</seg></tuv><tuv lang="EN"><seg>first</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>alone</seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>keins</seg></tuv></tu>
</body></tmx>
"""


def test_translation_memories_give_text_without_codes_by_language_in_any_order(tmp_path):
    (tmp_path / "a.tmx").write_text(TMX, encoding="utf-8")
    (tmp_path / "b.tmx.gz").write_bytes(gzip.compress(TMX.encode()))
    for source in parallel_sources([tmp_path / "a.tmx", tmp_path / "b.tmx.gz"], EN_NE):
        assert sides(source) == [("Fish & chips", "माछा A"), ("one", "एक"), ("alone", "")]
    where = [document.where for document in source.documents(lambda done: None)]
    assert [place.rpartition(":")[2] for place in where] == ["4", "6", "7"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TMX.replace('"tmx14.dtd"', '"x" [<!ENTITY e SYSTEM "file:///etc/passwd">]').replace("alone", "&e;"), "entity 'e'"),
        (TMX.replace('"tmx14.dtd"', '"x" [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]').replace("alone", "&b;"), "entity 'a'"),
        (TMX.replace("alone", "&undeclared;"), "entity 'undeclared'"),
        (TMX[:300], "not well-formed XML"),
        (TMX.replace("ne", "hi").replace("NE", "hi"), "no translation unit in both en and ne. Its languages: EN, de, en"),
    ],
)  # fmt: skip
def test_translation_memories_that_cannot_be_read_safely_are_refused(tmp_path, content, message):
    (tmp_path / "a.tmx").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        sides(PairsSource(tmp_path / "a.tmx", EN_NE))


@pytest.mark.parametrize(
    ("files", "languages", "message"),
    [
        (["train.en"], EN_NE, "train.en has no partner"),
        (["train.en", "train.ne"], ("en",), "--languages must name .* got en"),
        (["train.en", "train.ne"], ("en", "en"), "of different languages, .* Leave it out where"),
        (["train.tmx"], (), "train.tmx holds its text by language: say with --languages"),
        (["train.en", "train.xx"], EN_NE, "There is no file .*train.xx"),
        (["train.en", "train.ne", "train.ne", "train.en"], ("en", "ne", "hi"), "or 4, two for each of the 2 corpora"),
    ],
)
def test_what_is_missing_is_named(tmp_path, files, languages, message):
    aligned(tmp_path)
    (tmp_path / "train.tmx").write_text(TMX)
    with pytest.raises(InputError, match=message):
        parallel_sources([tmp_path / name for name in files], languages)


def test_each_corpus_may_have_languages_of_its_own(tmp_path):
    first, second = aligned(tmp_path)
    sources = parallel_sources([first, second, second, first], ("en", "ne", "hi", "de"))
    assert [source.languages for source in sources] == [("en", "ne"), ("hi", "de")]


@pytest.mark.parametrize("header", [["source", "target"], ["question", "answer"]])
@pytest.mark.parametrize(
    ("name", "write"), [("a.csv", write_csv), ("a.jsonl", write_json), ("a.parquet", write_parquet)]
)
def test_pairs_without_languages_are_source_and_target_or_the_only_two_columns(tmp_path, name, write, header):
    write(tmp_path / name, header)
    (source,) = parallel_sources([tmp_path / name], ())
    if header[0] != "source" and name == "a.csv":
        with pytest.raises(
            InputError, match=r"Without languages they would be source and target, but .* question, more"
        ):
            list(source.documents(lambda done: None))
        return
    documents = list(source.documents(lambda done: None))
    assert [(document.text, document.translation.text) for document in documents] == PAIRS
    assert {document.language for document in documents} | {d.translation.language for d in documents} == {None}


def test_pairs_without_languages_are_stored_as_pairs(tmp_path):
    pairs = invented(30)
    sources = parallel_sources(aligned(tmp_path, pairs), ())
    store = prepare(sources, tmp_path / "store", ByteLevelBPE(300), validation=0)
    split = store.split("train")
    assert split.num_pairs == len(set(pairs)) and store.languages == [] and (split.language_codes == -1).all()
    decode = store.tokenizer.decode
    assert {(decode(split.document(i)), decode(split.document(i + 1))) for i in split.pair_starts} == set(pairs)


def invented(number: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [
        tuple(" ".join("".join(rng.choices("abcdefgh", k=4)) for _ in range(rng.randint(1, 6))) for _ in range(2))
        for _ in range(number)
    ]


def stored(split: Split) -> list[tuple[str, str]]:
    """Decode the pairs of a split, checking that each side says its language."""
    decode = split.store.tokenizer.decode
    found = []
    for first in split.pair_starts.tolist():
        assert (split.language(first), split.language(first + 1)) == EN_NE
        found.append((decode(split.document(first)), decode(split.document(first + 1))))
    return found


def test_pairs_survive_splits_and_shards_together(tmp_path):
    pairs = invented(300)
    sources = parallel_sources(aligned(tmp_path, pairs), EN_NE)
    (tmp_path / "ne.txt").write_text("\n\n".join(there + " more" for _, there in pairs[:50]))
    inputs = [f"ne={tmp_path / 'ne.txt'}", *sources]
    store = prepare(inputs, tmp_path / "store", ByteLevelBPE(300), validation=0.2, shard_tokens=500)
    parts = {name: stored(store.split(name)) for name in store.splits}
    assert sorted(parts["train"] + parts["validation"]) == sorted(pairs)
    assert len(parts["validation"]) == store.split("validation").num_pairs > 20
    assert len(store.manifest["splits"]["train"]["shards"]) > 5
    assert store.languages == ["en", "ne"]
    train = store.split("train")
    assert sum(train.language(i) == "en" for i in range(train.num_documents)) == train.num_pairs
    assert Store.open(tmp_path / "store").fingerprint == store.fingerprint


def test_two_pairs_are_split_as_wholes(tmp_path):
    pairs = invented(2)
    store = prepare(parallel_sources(aligned(tmp_path, pairs), EN_NE), tmp_path / "store", ByteLevelBPE(300))
    assert sorted(stored(store.split("train")) + stored(store.split("validation"))) == sorted(pairs)
    # One pair cannot be divided.
    alone = prepare(parallel_sources(aligned(tmp_path, pairs[:1]), EN_NE), tmp_path / "one", ByteLevelBPE(300))
    assert alone.splits == ["train"] and stored(alone.split("train")) == pairs[:1]


def test_a_copy_is_a_copy_of_the_whole_pair_and_half_pairs_are_counted(tmp_path):
    pairs = [("yes", "हो"), ("yes", "हजुर"), ("yes", "हो"), ("", "खाली"), ("empty", "  "), ("broken", "\x01")]
    store = prepare(
        parallel_sources(aligned(tmp_path, pairs), EN_NE), tmp_path / "store", ByteLevelBPE(300), validation=0
    )
    assert stored(store.split("train")) == pairs[:2]
    assert store.manifest["cleaning"]["incomplete_pairs"] == 3
    assert store.manifest["cleaning"]["duplicate_documents"] == 1


def test_a_store_without_pairs_says_nothing_of_them(tmp_path):
    (tmp_path / "a.txt").write_text("one two\n\nthree four\n\nfive")
    store = prepare([tmp_path / "a.txt"], tmp_path / "store", ByteLevelBPE(300))
    assert len(store.split("train").pair_starts) == store.split("train").num_pairs == 0
    assert "num_pairs" not in json.dumps(store.manifest)
    assert "translated" not in store.split("train")._batch(0).schema.names


def test_the_command_line_takes_both_kinds_of_text_and_says_what_there_is(tmp_path, capsys):
    pairs = invented(40)
    first, second = map(str, aligned(tmp_path, pairs))
    (tmp_path / "mono.txt").write_text("\n\n".join(here + " x" for here, _ in pairs))
    out = str(tmp_path / "store")
    command = ["prepare", f"en={tmp_path / 'mono.txt'}", "--parallel", first, second, "--languages", "en", "ne"]
    command += ["--out", out, "--tokenizer", "bpe", "--vocab-size", "300"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "pairs" in said and "languages   en, ne" in said
    assert Store.open(out).split("train").language(0) == "en"
    # The same command is the same store; another language is not.
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([part.replace("en=", "hi=") for part in command]) == 2
    assert main(["prepare", f"{tmp_path / 'mono.txt'}", "--languages", "en", "ne", "--tokenizer", "bpe"]) == 2
