"""`elision embed`: what is written, in each format, for a model of pieces and for one of words."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import elision
from elision.cli import main
from elision.data.store import Store
from elision.embedding import embedded_texts
from elision.errors import InputError
from elision.export.bilm import import_h5py
from elision.recipe import Recipe
from elision.train import loop
from elision.train.loop import fit
from elision.train.pretrain import prepare_run
from tests import tiny

TEXTS = ["bado kilu, unseenword.", "me", "bado bado kilu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, store_of: Callable[[Recipe], Store]) -> dict[str, Path]:
    """A run of one step of each."""
    folder = tmp_path_factory.mktemp("runs")
    peak, loop.matmul_peak = loop.matmul_peak, lambda device, dtype: 1e9
    try:
        for name in ("elmo-tiny", "bert-tiny"):
            recipe = tiny.recipe(name, steps=1, num_samples=20)
            fit(prepare_run(recipe, store_of(recipe), folder / name))
    finally:
        loop.matmul_peak = peak
    return {name: folder / name for name in ("elmo-tiny", "bert-tiny")}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path / "texts.txt"


def embed(run: Path, lines: Path, out: Path, *options: str) -> Path:
    assert main(["embed", str(run), "--input", str(lines), "--out", str(out), "--device", "cpu", *options]) == 0
    return out


@pytest.mark.parametrize("name", ["elmo-tiny", "bert-tiny"])
def test_a_vector_for_each_text_is_that_of_loaded_embed(name: str, runs: dict, lines: Path, tmp_path: Path) -> None:
    expected = elision.load(runs[name]).embed(TEXTS).numpy()
    assert expected.shape == (3, 32)
    with np.load(embed(runs[name], lines, tmp_path / "a.npz")) as file:
        np.testing.assert_array_equal(file["vectors"], expected)
    with import_h5py().File(embed(runs[name], lines, tmp_path / "a.h5")) as file:
        np.testing.assert_array_equal(file["vectors"][...], expected)
    table = pq.read_table(embed(runs[name], lines, tmp_path / "a.parquet")).to_pylist()
    assert [row["text"] for row in table] == TEXTS
    np.testing.assert_array_equal(np.array([row["vector"] for row in table], np.float32), expected)


def test_all_layers_of_every_word_in_each_format(runs: dict, lines: Path, tmp_path: Path) -> None:
    run = runs["elmo-tiny"]
    wanted = list(embedded_texts(elision.load(run), TEXTS, "all"))
    assert [text.tokens for text in wanted] == [
        ["bado", "kilu", ",", "unseenword", "."], ["me"], ["bado", "bado", "kilu"],
    ]  # fmt: skip
    assert [tuple(text.states.shape) for text in wanted] == [(3, 5, 32), (3, 1, 32), (3, 3, 32)]
    options = ("--per", "token", "--layers", "all")
    with import_h5py().File(embed(run, lines, tmp_path / "a.h5", *options)) as file:
        index = json.loads(file["sentence_to_index"][0])
        assert index == {text: str(number) for number, text in enumerate(TEXTS)}
        for text, embedded in zip(TEXTS, wanted):
            np.testing.assert_array_equal(file[index[text]][...], embedded.states.numpy())
            assert json.loads(file[index[text]].attrs["tokens"]) == embedded.tokens
    with np.load(embed(run, lines, tmp_path / "a.npz", *options)) as file:
        assert file["starts"].tolist() == [0, 5, 6, 9]
        assert file["tokens"].tolist() == [token for text in wanted for token in text.tokens]
        np.testing.assert_array_equal(file["vectors"], np.concatenate([t.states.numpy() for t in wanted], 1))
    table = pq.read_table(embed(run, lines, tmp_path / "a.parquet", *options)).to_pylist()
    assert [row["tokens"] for row in table] == [text.tokens for text in wanted]
    np.testing.assert_array_equal(np.array(table[0]["vectors"], np.float32), wanted[0].states.numpy())


def test_the_mix_is_the_mean_of_the_layers_until_a_task_trains_it(runs: dict) -> None:
    loaded = elision.load(runs["elmo-tiny"])
    (mix,), (every,) = (list(embedded_texts(loaded, TEXTS[:1], layers)) for layers in ("mix", "all"))
    torch.testing.assert_close(mix.states[0], every.states.mean(0))
    (second,) = embedded_texts(loaded, TEXTS[:1], 1)
    assert torch.equal(second.states[0], every.states[1])


def test_a_word_never_seen_is_read_by_its_letters(runs: dict) -> None:
    loaded = elision.load(runs["elmo-tiny"])
    size = loaded.tokenizer.vocabulary.size
    one, other, same = loaded.embed(["unseenword", "otherunseen", "unseenword"])
    assert torch.equal(one, same) and not torch.allclose(one, other)
    assert loaded.tokenizer.vocabulary.size == size + 2
    # What was embedded before, and in what company, changes nothing.
    alone = elision.load(runs["elmo-tiny"]).embed("unseenword")[0]
    torch.testing.assert_close(one, alone)


def test_texts_in_many_batches_keep_their_order(runs: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = elision.load(runs["elmo-tiny"])
    whole = loaded.embed(TEXTS)
    monkeypatch.setattr("elision.embedding.EMBED_ROWS", 1)
    torch.testing.assert_close(loaded.embed(TEXTS), whole)


def test_bad_input_is_refused_and_nothing_is_written(
    runs: dict, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def refused(run: str, *options: str, out: str = "a.npz") -> str:
        arguments = ["--input", str(lines), "--out", str(tmp_path / out), *options]
        assert main(["embed", str(runs[run]), "--device", "cpu", *arguments]) == 2
        assert not (tmp_path / out).exists()
        return capsys.readouterr().err

    assert "one of .npz, .h5" in refused("elmo-tiny", out="a.csv")
    assert "layers 0 to 2" in refused("elmo-tiny", "--layers", "3")
    assert "give mix, all" in refused("elmo-tiny", "--layers", "top")
    assert "last layer only" in refused("bert-tiny", "--layers", "all")
    lines.write_text("one\n\nthree\n")
    assert "line 2" in refused("elmo-tiny")
    lines.write_text("")
    assert "is empty" in refused("elmo-tiny")
    lines.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused("elmo-tiny")
    lines.unlink()
    assert "no file" in refused("elmo-tiny")


def test_a_file_that_is_there_is_only_replaced_when_asked(
    runs: dict, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = embed(runs["elmo-tiny"], lines, tmp_path / "a.npz")
    lines.write_text("me\n")
    arguments = ["embed", str(runs["elmo-tiny"]), "--input", str(lines), "--out", str(out), "--device", "cpu"]
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    with np.load(out) as file:
        assert file["vectors"].shape == (1, 32)


def test_no_texts_are_refused(runs: dict) -> None:
    with pytest.raises(InputError, match="texts is empty"):
        elision.load(runs["elmo-tiny"]).embed([])
