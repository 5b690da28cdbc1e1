import errno
import hashlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tyro

from elision import atomic, recipes
from elision.cli import main
from elision.cli.prepare import Prepare, choose_tokenizer, needed_roles
from elision.data.store import Store
from elision.errors import InputError
from elision.text.cleaning import Cleaning
from elision.text.codes import with_codes
from elision.text.prepare import prepare, prepare_texts
from elision.text.readers import Reading
from elision.text.tokenizer import ByteLevelBPE, Unigram, WordPiece


def sentence(rng):
    return " ".join("".join(rng.choices("abcdeghiklmnoprst", k=rng.randint(2, 7))) for _ in range(8)).capitalize() + "."


def corpus(path, num_documents):
    rng = random.Random(0)
    documents = [" ".join(sentence(rng) for _ in range(5)) for _ in range(num_documents)]
    documents[50] = documents[10]
    path.write_text("\n\n".join(documents) + "\n")
    return path


def hashes(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


COMMAND = """
import sys
from elision.text import pipeline
from elision.text.cleaning import Cleaning
from elision.text.prepare import prepare
from elision.text.tokenizer import WordPiece
pipeline.BATCH_CHARACTERS = 8_000
prepare([sys.argv[1]], sys.argv[2], WordPiece(300), validation=0.1, shard_tokens=5_000)
"""


def test_killed_at_any_moment_prepare_ends_with_the_same_bytes(tmp_path):
    text = corpus(tmp_path / "text.txt", 1500)

    def start(out):
        return subprocess.Popen([sys.executable, "-c", COMMAND, str(text), str(out)], stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    expected = hashes(tmp_path / "whole")
    out = tmp_path / "killed"
    kills = 0
    # Each round is killed when one more shard has appeared, a little later each time.
    for wanted in (1, 3, 6):
        process = start(out)
        while process.poll() is None and len(list(out.glob("*.arrow"))) < wanted:
            time.sleep(0.002)
        time.sleep(0.003 * wanted)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    assert start(out).wait() == 0
    assert hashes(out) == expected
    Store.open(out).verify()


def test_an_unfinished_store_goes_on_only_with_the_same_settings(tmp_path, monkeypatch):
    text = corpus(tmp_path / "text.txt", 100)
    out = tmp_path / "store"
    monkeypatch.setattr("elision.data.shards.StoreWriter.finish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare([str(text)], out, WordPiece(300))
    monkeypatch.undo()
    with pytest.raises(InputError, match="unfinished"):
        Store.open(out)
    with pytest.raises(InputError, match=r"unfinished store .*: validation \(0.02 there, 0.5 now\)"):
        prepare([str(text)], out, WordPiece(300), validation=0.5)
    assert prepare([str(text)], out, WordPiece(300)).split("train").num_documents > 90
    # The same again returns the finished store; anything else is refused.
    assert prepare([str(text)], out, WordPiece(300)).splits == ["train", "validation"]
    with pytest.raises(
        InputError, match=r"already holds a store .*: tokenizer\.vocab_size \(300 there, 301 now\)\. Give"
    ):
        prepare([str(text)], out, WordPiece(301))
    with pytest.raises(InputError, match=r"tokenizer \(a WordPiece to train there, a ByteLevelBPE to train now\)"):
        prepare([str(text)], out, ByteLevelBPE(301))
    other = corpus(tmp_path / "other.txt", 101)
    with pytest.raises(InputError, match=r"inputs \(.*text\.txt .* B there, .*other\.txt .* B now\)"):
        prepare([str(other)], out, WordPiece(300))
    # A refusal leaves the store as it was.
    assert not (out / ".work").exists()


def test_a_full_disk_is_reported_and_finished_shards_stay(tmp_path, monkeypatch):
    import pyarrow as pa

    text = corpus(tmp_path / "text.txt", 400)
    new_file, calls = pa.ipc.new_file, []

    def full_after_two(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return new_file(*arguments)

    monkeypatch.setattr(pa.ipc, "new_file", full_after_two)
    with pytest.raises(OSError, match="No space left"):
        prepare([str(text)], tmp_path / "store", WordPiece(300), shard_tokens=5_000)
    assert len(list((tmp_path / "store").glob("*.arrow"))) == 2
    monkeypatch.undo()
    assert (
        prepare([str(text)], tmp_path / "store", WordPiece(300), shard_tokens=5_000).split("train").num_documents > 300
    )


def test_cleaning_is_counted_in_the_manifest(tmp_path):
    texts = [
        "One document. Two sentences.",
        "One document. Two sentences.",
        "",
        "cafe\u0301 here.",
        "a\x00b is cleaned.",
    ]
    report = prepare_texts(texts, tmp_path / "s", ByteLevelBPE(300)).manifest["cleaning"]
    assert report["duplicate_documents"] == report["empty_documents"] == 1
    assert report["nfc_documents"] == report["control_characters"] == 1
    store = prepare_texts(texts, tmp_path / "t", ByteLevelBPE(300), cleaning=Cleaning(duplicates=False))
    assert sum(store.split(name).num_documents for name in store.splits) == 4


def test_command_prints_counts_and_the_next_command(tmp_path, capsys):
    text = corpus(tmp_path / "text.txt", 100)
    out = tmp_path / "store"
    assert main(["prepare", str(text), "--out", str(out), "--tokenizer", "wordpiece", "--vocab-size", "300"]) == 0
    printed = capsys.readouterr().out
    assert "1 exact duplicates" in printed
    assert f"next: elision pretrain RECIPE --data {out}" in printed
    assert Store.open(out).split("train").num_documents + Store.open(out).split("validation").num_documents == 99


def test_every_code_of_the_corpus_gets_a_symbol_of_its_own(tmp_path, capsys):
    novels, news = corpus(tmp_path / "novels.txt", 60), tmp_path / "news.jsonl"
    rng = random.Random(5)
    rows = [{"text": sentence(rng), "kind": kind} for kind in ("World News", "Sports") * 20]
    news.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "store"
    command = ["prepare", f"code:Books={novels}", "--out", str(out), "--tokenizer", "bpe", "--vocab-size", "320"]
    assert main(command) == 0
    assert Store.open(out).codes == ["Books"] and Store.open(out).tokenizer.symbols()[:2] == [
        "<|endoftext|>",
        "<|Books|>",
    ]
    assert "codes       Books" in capsys.readouterr().out
    again = prepare(
        [f"code:Books={novels}", news], tmp_path / "two", ByteLevelBPE(320), reading=Reading(code_field="kind")
    )
    assert again.codes == ["Books", "Sports", "World News"]
    symbols = again.tokenizer.symbols()[1:4]
    assert symbols == ["<|Books|>", "<|Sports|>", "<|World News|>"]
    assert again.tokenizer.encode("<|World News|>") == [3]
    # The language comes after the code.
    both = prepare(f"code:Books=en={novels}", tmp_path / "three", ByteLevelBPE(320))
    assert (both.codes, both.languages) == (["Books"], ["en"])


def test_a_code_with_the_symbol_of_another_meaning_and_a_field_that_names_no_kinds_are_refused():
    with pytest.raises(InputError, match=r"'endoftext' would be written <\|endoftext\|>"):
        with_codes(ByteLevelBPE(300), {"endoftext", "Books"})
    with pytest.raises(InputError, match="1,001 different codes"):
        with_codes(ByteLevelBPE(300), {str(number) for number in range(1001)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer", "bpe"], "There is nothing to read"),
        (["{text}"], "Which tokenizer"),
        (["{text}", "--tokenizer", "x/y", "--recipe", "bert-tiny"], "leaves --recipe nothing to say"),
        (["{text}", "--tokenizer", "wordpiece", "--recipe", "gpt2-tiny"], "gpt2-tiny needs the special symbols eos"),
        (
            ["{text}", "--tokenizer", "unigram", "--layout", "t5", "--recipe", "bert-tiny"],
            "unigram with layout t5 has no cls and no sep and no mask. Leave out --layout",
        ),
        (["{text}", "--tokenizer", "wordpiece", "--layout", "t5"], "--layout t5 does not go with wordpiece"),
        (["{text}", "--tokenizer", "bpe", "--layout", "t5"], "bpe, whose layouts are: gpt2, blenderbot, roberta"),
        (
            ["{text}", "--recipe", "gpt2-tiny", "--layout", "albert"],
            "bpe, whose layouts are: gpt2, blenderbot, roberta",
        ),
        (["{text}", "--tokenizer", "x/y", "--layout", "t5"], "only go with a tokenizer to train"),
        (["{text}", "--tokenizer", "{text}x"], "There is no tokenizer at"),
        (["{text}", "--tokenizer", "bpe", "--vocab-size", "100"], "vocab_size = 100"),
        (["{text}", "--tokenizer", "bpe", "--validation", "1.5"], "validation = 1.5"),
        (["{empty}", "--tokenizer", "bpe"], "The corpus is empty"),
        (["{binary}", "--tokenizer", "bpe"], "binary.txt is a binary file"),
        (["{text}", "--tokenizer", "bpe", "--out", "{text}"], "is a file"),
        (["{text}", "--tokenizer", "bpe", "--out", "{folder}"], "folder with other files"),
        (["{text}", "--tokenizer", "bpe", "--case", "fold"], "--case does not go with"),
    ],
)
def test_bad_input_is_explained_without_a_traceback(tmp_path, capsys, arguments, message):
    (tmp_path / "empty.txt").write_text("\n\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 99)
    names = {"text": corpus(tmp_path / "text.txt", 60), "folder": tmp_path}
    names |= {"empty": tmp_path / "empty.txt", "binary": tmp_path / "binary.txt"}
    given = [argument.format(**names) for argument in arguments]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "store")]
    assert main(["prepare", *given]) == 2
    assert message in capsys.readouterr().err


def test_the_same_command_again_says_in_one_line_that_there_is_nothing_to_do(tmp_path, capsys):
    text = corpus(tmp_path / "text.txt", 60)
    command = ["prepare", str(text), "--out", str(tmp_path / "store"), "--tokenizer", "bpe", "--vocab-size", "300"]
    assert main(command) == 0
    before = hashes(tmp_path / "store")
    capsys.readouterr()
    started = time.monotonic()
    assert main(command) == 0
    assert time.monotonic() - started < 5
    printed = capsys.readouterr().out
    assert "holds this very store already" in printed
    assert printed.count("\n") == 1
    assert hashes(tmp_path / "store") == before
    assert main([*command, "--validation", "0.3"]) == 2
    assert "validation (0.02 there, 0.3 now)" in capsys.readouterr().err


def test_paths_one_or_many_are_inputs_as_strings_are(tmp_path, monkeypatch):
    text = corpus(tmp_path / "text.txt", 60)
    monkeypatch.chdir(tmp_path)
    prints = {
        prepare(given, tmp_path / f"store-{i}", WordPiece(300)).split("train").num_tokens
        for i, given in enumerate((text, str(text), [text], Path("text.txt"), (p for p in [text])))
    }
    assert len(prints) == 1
    # A relative path and its name are one input; a path is never the name of a data set.
    assert prepare("text.txt", tmp_path / "store-3", WordPiece(300)).manifest["settings"]["inputs"][0][0] == "text.txt"
    with pytest.raises(InputError, match="There is no file or folder"):
        prepare(Path("imdb"), tmp_path / "none", WordPiece(300))


@pytest.mark.parametrize(
    ("recipe", "kind", "layout", "expected"),
    [
        (None, "unigram", None, Unigram()),
        (None, "unigram", "albert", Unigram(layout="albert")),
        (None, "bpe", "roberta", ByteLevelBPE(layout="roberta")),
        ("bert-tiny", None, None, WordPiece(30522)),
        ("bert-tiny", "wordpiece", None, WordPiece(30522)),
        ("bert-tiny", "unigram", None, Unigram(30522, layout="albert", lowercase=True)),
        ("bert-tiny", "unigram", "xlnet", Unigram(30522, layout="xlnet", lowercase=True)),
        ("bert-tiny", "bpe", None, ByteLevelBPE(30522, layout="roberta")),
        ("gpt2-tiny", "unigram", None, Unigram(50257, layout="t5")),
        ("gpt2-tiny", None, "roberta", ByteLevelBPE(50257, layout="roberta")),
    ],
)
def test_a_kind_beside_a_recipe_comes_in_a_layout_that_the_recipe_can_use(recipe, kind, layout, expected):
    assert choose_tokenizer(recipe, kind, layout) == expected


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_prepare_commands_of_the_readme_choose_a_tokenizer(name):
    text = (Path(__file__).parents[3] / name).read_text(encoding="utf-8")
    commands = re.findall(r"^    (?:.*\| )?elision prepare (.*)$", text, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        options = tyro.cli(Prepare, args=shlex.split(command, comments=True))
        assert choose_tokenizer(options.recipe, options.tokenizer, options.layout, options.vocab_size, options.case)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipes_own_tokenizer_has_the_symbols_it_needs(name):
    recipe = recipes.get(name)
    assert set(needed_roles(recipe)) <= set(recipe.tokenizer.roles)


@pytest.mark.parametrize(("recipe", "kind"), [("bert-tiny", "unigram"), ("bert-tiny", "bpe"), ("gpt2-tiny", "unigram")])
def test_a_recipe_plans_and_hides_on_a_store_of_another_kind(tmp_path, recipe, kind):
    text, out = corpus(tmp_path / "text.txt", 60), tmp_path / "store"
    options = ["--recipe", recipe, "--tokenizer", kind, "--vocab-size", "400", "--out", str(out)]
    assert main(["prepare", str(text), *options]) == 0
    store, parts = Store.open(out), recipes.get(recipe)
    vocabulary = store.tokenizer.vocabulary
    parts.noise.check(vocabulary)
    assert len(parts.segmenter.plan(store.split("train"), vocabulary, 0, parts.noise.lookahead)) > 0


def test_a_trained_tokenizer_is_used_as_it_is(tmp_path):
    tokenizer = WordPiece(200).train(["some words to train on"] * 3)
    tokenizer.save(tmp_path / "tokenizer")
    store = prepare([str(corpus(tmp_path / "text.txt", 60))], tmp_path / "store", tmp_path / "tokenizer")
    assert store.tokenizer_fingerprint == tokenizer.fingerprint
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["tokenizer"]["kind"] == "WordPiece"


def test_two_runs_into_one_folder_are_refused_by_name(tmp_path):
    text = corpus(tmp_path / "text.txt", 60)
    refused = pytest.raises(InputError, match="store is being prepared by another process")
    with atomic.locked(tmp_path / "store", "prepared", ".work/lock"), refused:
        prepare([str(text)], tmp_path / "store", WordPiece(300))
    prepare([str(text)], tmp_path / "store", WordPiece(300))
    assert not (tmp_path / "store" / ".work").exists()
    prepare([str(text)], tmp_path / "store", WordPiece(300))
    assert not (tmp_path / "store" / ".work").exists()


def test_help_shows_each_example_on_a_line_of_its_own(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    lines = [line.strip(" │") for line in capsys.readouterr().out.splitlines()]
    assert "For example:" in lines
    assert sum(line.startswith("elision prepare ") for line in lines) == 6
