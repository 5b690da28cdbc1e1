"""ELMo's own files, and the whole network against plain loops over the arrays of such a file."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import elision
from elision.cli import main
from elision.data.store import Store
from elision.errors import InputError
from elision.export import bilm
from elision.export.writing import write_folder
from elision.recipe import Recipe
from elision.train.loop import fit
from elision.train.pretrain import prepare_run
from tests import tiny

h5py = bilm.import_h5py()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, store_of: Callable[[Recipe], Store]) -> Path:
    """A run of three steps, with weights large enough for the limits to matter."""
    from unittest import mock

    folder = tmp_path_factory.mktemp("elmo") / "run"
    recipe = tiny.recipe("elmo-tiny", steps=3, num_highways=2, num_samples=50)
    with mock.patch("elision.train.loop.matmul_peak", lambda device, dtype: 1e9):
        prepared = prepare_run(recipe, store_of(recipe), folder)
        with torch.no_grad():
            for layer in prepared.model.backbone.layers:
                layer.state_weight.mul_(4)
                layer.bias.normal_()
                layer.projection.mul_(30)
        fit(prepared)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    out = run.parent / "bilm"
    write_folder(elision.load(run), out)
    return out


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def limited(values: list[float], limit: float) -> list[float]:
    return [max(-limit, min(limit, value)) for value in values]


def times(vector: list[float], matrix: np.ndarray) -> list[float]:
    """vector @ matrix, in plain sums."""
    columns = matrix.T.tolist()
    return [sum(a * b for a, b in zip(vector, column)) for column in columns]


def word_vector(word: str, arrays: dict[str, np.ndarray], options: dict) -> list[float]:
    """The characters of a word, convolutions, the largest of each, ReLU, highways, linear: in plain loops."""
    if word in ("<S>", "</S>"):
        characters = [258, 256 if word == "<S>" else 257, 259]
    else:
        characters = [258, *word.encode()[:48], 259]
    characters += [260] * (50 - len(characters))
    embedded = [arrays["char_embed"][c].tolist() for c in characters]
    found: list[float] = []
    for n, (reach, number) in enumerate(options["char_cnn"]["filters"]):
        weight, bias = arrays[f"CNN/W_cnn_{n}"], arrays[f"CNN/b_cnn_{n}"]
        kernel = weight[0].reshape(-1, number)
        most = [-math.inf] * number
        for at in range(50 - reach + 1):
            window = [value for place in embedded[at : at + reach] for value in place]
            most = [max(a, b) for a, b in zip(most, times(window, kernel))]
        found += [max(0.0, value + b) for value, b in zip(most, bias.tolist())]
    for n in range(options["char_cnn"]["n_highway"]):
        carry = times(found, arrays[f"CNN_high_{n}/W_carry"])
        transform = times(found, arrays[f"CNN_high_{n}/W_transform"])
        gates = [sigmoid(a + b) for a, b in zip(carry, arrays[f"CNN_high_{n}/b_carry"].tolist())]
        new = [max(0.0, a + b) for a, b in zip(transform, arrays[f"CNN_high_{n}/b_transform"].tolist())]
        found = [g * a + (1 - g) * b for g, a, b in zip(gates, new, found)]
    return [a + b for a, b in zip(times(found, arrays["CNN_proj/W_proj"]), arrays["CNN_proj/b_proj"].tolist())]


def lstm(words: list[list[float]], arrays: dict[str, np.ndarray], cell: str, options: dict) -> list[list[float]]:
    """One layer of one direction: gates in the order i, j, f, o, 1 added to f, memory and projected state limited."""
    kernel, bias, projection = arrays[f"{cell}/W_0"], arrays[f"{cell}/B"].tolist(), arrays[f"{cell}/W_P_0"]
    size = options["lstm"]["dim"]
    hidden, memory, outputs = [0.0] * options["lstm"]["projection_dim"], [0.0] * size, []
    for word in words:
        gates = [a + b for a, b in zip(times(word + hidden, kernel), bias)]
        i, j, f, o = (gates[n * size : (n + 1) * size] for n in range(4))
        memory = [sigmoid(f[k] + 1) * memory[k] + sigmoid(i[k]) * math.tanh(j[k]) for k in range(size)]
        memory = limited(memory, options["lstm"]["cell_clip"])
        hidden = times([sigmoid(o[k]) * math.tanh(memory[k]) for k in range(size)], projection)
        hidden = limited(hidden, options["lstm"]["proj_clip"])
        outputs.append(hidden)
    return outputs


def reference_layers(words: list[str], arrays: dict[str, np.ndarray], options: dict) -> list[np.ndarray]:
    """All layers of a text, [number of words, width] each."""
    vectors = [word_vector(word, arrays, options) for word in words]
    sides = []
    for direction in range(2):
        states = vectors if direction == 0 else vectors[::-1]
        layers = []
        for n in range(options["lstm"]["n_layers"]):
            outputs = lstm(states, arrays, f"RNN_{direction}/RNN/MultiRNNCell/Cell{n}/LSTMCell", options)
            if n:
                outputs = [[a + b for a, b in zip(new, old)] for new, old in zip(outputs, states)]
            states = outputs
            layers.append(states if direction == 0 else states[::-1])
        sides.append(layers)
    joined = [np.concatenate([a, b], 1) for a, b in zip(*sides)]
    return [np.concatenate([vectors, vectors], 1), *joined]


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(folder / "weights.hdf5") as file:
        file.visititems(lambda name, item: arrays.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    return {name: value.astype(np.float64) for name, value in arrays.items()}


def test_the_network_is_what_the_formulas_say_of_the_exported_arrays(run: Path, exported: Path) -> None:
    arrays, options = arrays_of(exported), json.loads((exported / "options.json").read_text())
    loaded = elision.load(run, dtype=torch.float64)
    text = "bado kilu unheardofword " + loaded.tokenizer.symbols()[7]
    from elision.embedding import embedded_texts

    (ours,) = embedded_texts(loaded, [text], layers="all")
    expected = reference_layers(["<S>", *text.split(), "</S>"], arrays, options)
    assert len(expected) == ours.states.shape[0] == 3
    for layer, (one, other) in enumerate(zip(ours.states.numpy(), expected)):
        np.testing.assert_allclose(one, other[1:-1], atol=1e-10, err_msg=f"layer {layer}")
    # The limits are met, or nothing would be said of them.
    below = np.abs(expected[1])
    assert below.max() == 3 and (below < 3).any()


def test_names_and_shapes_are_those_of_the_published_files(exported: Path) -> None:
    shapes = {name: value.shape for name, value in arrays_of(exported).items()}
    cells = {
        f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell/{name}": shape
        for direction in range(2)
        for layer in range(2)
        for name, shape in (("W_0", (32, 192)), ("B", (192,)), ("W_P_0", (48, 16)))
    }
    highways = {
        f"CNN_high_{n}/{name}": shape
        for n in range(2)
        for name, shape in (
            ("W_carry", (32, 32)), ("b_carry", (32,)), ("W_transform", (32, 32)), ("b_transform", (32,)),
        )
    }  # fmt: skip
    assert shapes == {
        "char_embed": (261, 16),
        "CNN/W_cnn_0": (1, 1, 16, 8),
        "CNN/b_cnn_0": (8,),
        "CNN/W_cnn_1": (1, 2, 16, 8),
        "CNN/b_cnn_1": (8,),
        "CNN/W_cnn_2": (1, 3, 16, 16),
        "CNN/b_cnn_2": (16,),
        "CNN_proj/W_proj": (32, 16),
        "CNN_proj/b_proj": (16,),
        "softmax/W": (100, 16),
        "softmax/b": (100,),
        **cells,
        **highways,
    }
    assert json.loads((exported / "options.json").read_text()) == {
        "lstm": {
            "use_skip_connections": True,
            "projection_dim": 16,
            "cell_clip": 3.0,
            "proj_clip": 3.0,
            "dim": 48,
            "n_layers": 2,
        },
        "char_cnn": {
            "activation": "relu",
            "filters": [[1, 8], [2, 8], [3, 16]],
            "n_highway": 2,
            "embedding": {"dim": 16},
            "n_characters": 262,
            "max_characters_per_token": 50,
        },
        "bidirectional": True,
        "dropout": 0.1,
    }
    assert (exported / "vocab.txt").read_text().splitlines()[:3] == ["<S>", "</S>", "<UNK>"]


def test_what_is_written_and_read_again_is_the_same_model(run: Path, exported: Path, tmp_path: Path) -> None:
    ours, again = elision.load(run), elision.load(exported)
    assert again.notes == []
    mine, theirs = ours.model.state_dict(), again.model.state_dict()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name
    assert again.recipe.backbone == dataclasses.replace(ours.recipe.backbone)
    text = "bado kilu, something new"
    assert torch.equal(ours.embed(text), again.embed(text))
    write_folder(elision.load(exported), tmp_path / "twice")
    before, after = arrays_of(exported), arrays_of(tmp_path / "twice")
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    for file in ("options.json", "vocab.txt"):
        assert (tmp_path / "twice" / file).read_text() == (exported / file).read_text()


def test_the_commands_import_and_export_such_folders(run: Path, exported: Path, tmp_path: Path, capsys) -> None:
    assert main(["import", str(exported), str(tmp_path / "imported")]) == 0
    assert main(["export", str(tmp_path / "imported"), str(tmp_path / "again")]) == 0
    assert "ELMo's options and weights" in capsys.readouterr().err
    assert (tmp_path / "again" / "options.json").read_text() == (exported / "options.json").read_text()


def test_an_imported_model_can_be_trained_further(
    exported: Path, tmp_path: Path, store_of: Callable[[Recipe], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elision.train.loop.matmul_peak", lambda device, dtype: 1e9)
    imported = elision.load(exported)
    recipe = tiny.recipe("elmo-tiny", steps=2, num_highways=2)
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run", init_from=exported)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    assert all(torch.equal(before[name], value) for name, value in imported.model.state_dict().items())
    fit(run)
    assert not torch.equal(run.model.state_dict()["heads.bilm.weight"], before["heads.bilm.weight"])


def test_without_vocabulary_and_output_table_texts_are_still_read(exported: Path, tmp_path: Path) -> None:
    arrays = arrays_of(exported)
    with h5py.File(tmp_path / "elmo_small_weights.hdf5", "w") as file:
        for name, value in arrays.items():
            if not name.startswith("softmax"):
                file[name] = value.astype(np.float32)
    (tmp_path / "elmo_small_options.json").write_text((exported / "options.json").read_text())
    bare = elision.load(tmp_path)
    assert len(bare.notes) == 2 and "output table" in bare.notes[1]
    text = "bado kilu zzz"
    torch.testing.assert_close(bare.embed(text), elision.load(exported).embed(text))
    with h5py.File(tmp_path / "elmo_small_softmax_weights.hdf5", "w") as file:
        file["softmax/W"], file["softmax/b"] = arrays["softmax/W"], arrays["softmax/b"]
    with pytest.raises(InputError, match="100 rows"):
        elision.load(tmp_path)
    (tmp_path / "vocab-elmo.txt").write_text((exported / "vocab.txt").read_text())
    assert elision.load(tmp_path).notes == []


def test_files_that_do_not_fit_are_refused_by_name(exported: Path, tmp_path: Path) -> None:
    import shutil

    def changed(change: Callable[[Path], None]) -> str:
        shutil.rmtree(tmp_path / "folder", ignore_errors=True)
        shutil.copytree(exported, tmp_path / "folder")
        change(tmp_path / "folder")
        with pytest.raises(InputError) as error:
            elision.load(tmp_path / "folder")
        return str(error.value)

    def option(section: str, name: str, value: object) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            options = json.loads((folder / "options.json").read_text())
            options[section][name] = value
            if value is None:
                del options[section][name]
            (folder / "options.json").write_text(json.dumps(options))

        return change

    def without(name: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            with h5py.File(folder / "weights.hdf5", "a") as file:
                del file[name]

        return change

    assert "activation" in changed(option("char_cnn", "activation", "tanh"))
    assert "n_characters" in changed(option("char_cnn", "n_characters", 300))
    assert "projection_dim" in changed(option("lstm", "projection_dim", None))
    assert "has shape (32, 192)" in changed(option("lstm", "dim", 40))
    assert "has no CNN_proj/W_proj" in changed(without("CNN_proj/W_proj"))
    assert "not a whole HDF5 file" in changed(lambda folder: (folder / "weights.hdf5").write_bytes(b"x" * 100))
    assert "not valid JSON" in changed(lambda folder: (folder / "options.json").write_text("{"))
    assert "first lines" in changed(lambda folder: (folder / "vocab.txt").write_text("a\nb\n"))
    assert "twice" in changed(
        lambda folder: (folder / "vocab.txt").write_text((exported / "vocab.txt").read_text() + "<S>\n")
    )


def test_a_model_with_the_head_of_a_task_is_not_written(run: Path, tmp_path: Path) -> None:
    loaded = elision.load(run)
    loaded.task = type("Task", (), {"type": "classification"})()
    with pytest.raises(InputError, match="no place for its head"):
        write_folder(loaded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_h5py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"elision\[elmo\]"):
        bilm.import_h5py()
