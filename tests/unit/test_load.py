"""elision.load: what it takes, what it refuses, what its logits promise."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import elision
from elision.errors import InputError
from elision.export.writing import write_folder
from elision.loaded import Loaded
from tests import tiny
from tests.unit.export.test_folders import checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    return checkpoint(place / "ours", tiny.recipe("bert-tiny"))


@pytest.fixture(scope="module")
def bert(folder: Path) -> Loaded:
    return elision.load(folder)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return elision.load(checkpoint(tmp_path_factory.mktemp("gpt2") / "ours", tiny.recipe("gpt2-tiny")))


def test_import_elision_leaves_torch_out_and_load_is_there() -> None:
    code = (
        "import sys, elision; assert 'torch' not in sys.modules; assert callable(elision.load); import elision.loaded; "
        "assert callable(elision.load) and not hasattr(elision, 'no_such_name')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_run_checkpoint_and_hugging_face_folder_give_equal_logits(folder: Path, bert: Loaded, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run / "checkpoints" / "step-00000002")
    shutil.copytree(folder, run / "checkpoints" / "step-00000004")
    (run / "recipe.json").write_text((folder / "recipe.json").read_text())
    (run / "checkpoints.json").write_text(json.dumps({"last": "step-00000004", "best": "step-00000002"}))
    write_folder(bert, tmp_path / "hf")
    expected = bert.logits([6, 7, 8])
    for path in (run, str(run), run / "checkpoints" / "step-00000004", tmp_path / "hf"):
        loaded = elision.load(path)
        assert torch.equal(loaded.logits([6, 7, 8]), expected)
        assert not loaded.model.training
    assert elision.load(run).path.name == "step-00000002"
    assert elision.load(run, which="last").path.name == "step-00000004"
    assert loaded.tokenizer.fingerprint == bert.tokenizer.fingerprint
    assert loaded.recipe.backbone == bert.recipe.backbone


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "is a file: give the folder it lies in"),
        (lambda path: path.mkdir(), "holds no model \\(there is nothing\\)"),
        (lambda path: (path.mkdir(), (path / "notes.txt").touch()), "there is notes.txt"),
        (lambda path: (path.mkdir(), (path / "manifest.json").touch()), "looks like a token store"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{")), "config.json is not JSON"),
    ],
)
def test_what_holds_no_model_is_refused_saying_what_is_there(make: object, message: str, tmp_path: Path) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        elision.load(tmp_path / "x")


def test_a_hugging_face_folder_without_tokenizer_still_gives_logits(bert: Loaded, tmp_path: Path) -> None:
    write_folder(bert, tmp_path / "hf")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (tmp_path / "hf" / name).unlink()
    loaded = elision.load(tmp_path / "hf")
    assert torch.equal(loaded.logits([6, 7]), bert.logits([6, 7]))
    with pytest.raises(InputError, match="holds no tokenizer"):
        _ = loaded.tokenizer


def test_a_torn_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "torn")
    weights = tmp_path / "torn" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(InputError, match=r"weights\.safetensors is not a whole safetensors file"):
        elision.load(tmp_path / "torn")


def test_ids_may_be_lists_arrays_or_tensors(bert: Loaded) -> None:
    expected = bert.logits([[6, 7, 8]])
    assert expected.shape == (1, 3, bert.model.backbone.vocab_size)
    for ids in ([6, 7, 8], np.array([6, 7, 8], np.uint16), torch.tensor([[6, 7, 8]], dtype=torch.int32)):
        assert torch.equal(bert.logits(ids), expected)
    assert not expected.requires_grad


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_padding_on_either_side_changes_nothing(side: str, name: str, request: pytest.FixtureRequest) -> None:
    loaded = request.getfixturevalue(name)
    alone = loaded.logits([6, 7, 8, 9])
    ids, real = ([0, 0, 0, 6, 7, 8, 9], [0, 0, 0, 1, 1, 1, 1]) if side == "left" else ([6, 7, 8, 9, 0], [1, 1, 1, 1, 0])
    padded = loaded.logits(ids, visible=torch.tensor([real]).bool())
    assert torch.isfinite(padded).all()
    assert torch.allclose(padded[0, [bool(r) for r in real]], alone[0], atol=1e-5)


def test_a_token_that_is_not_to_be_seen_changes_nothing_but_itself(bert: Loaded) -> None:
    visible = torch.ones(1, 4, 4, dtype=torch.bool)
    visible[0, [0, 1, 3], 2] = False
    one, other = bert.logits([6, 7, 8, 9], visible), bert.logits([6, 7, 99, 9], visible)
    assert torch.equal(one[0, [0, 1, 3]], other[0, [0, 1, 3]])
    assert not torch.allclose(one[0, 2], other[0, 2])
    assert not torch.allclose(one[0, 0], bert.logits([6, 7, 8, 9])[0, 0])
    assert torch.isfinite(bert.logits([6, 7, 8, 9], torch.zeros(1, 4, 4, dtype=torch.bool))).all()


def test_positions_and_segments_reach_the_model(bert: Loaded) -> None:
    plain = bert.logits([6, 7, 8])
    assert torch.equal(bert.logits([6, 7, 8], positions=[0, 1, 2], type_ids=[0, 0, 0]), plain)
    assert not torch.allclose(bert.logits([6, 7, 8], positions=[3, 4, 5]), plain)
    assert not torch.allclose(bert.logits([6, 7, 8], type_ids=[0, 1, 1]), plain)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"ids": [6, 100000]}, r"ids\[0\]\[1\] is 100000: the vocabulary of this model goes from 0 to"),
        ({"ids": [[6, 7], [8, -1]]}, r"ids\[1\]\[1\] is -1"),
        ({"ids": [6] * 33}, "a sequence of 33 tokens is longer than the position table of 32"),
        ({"ids": []}, "ids is empty"),
        ({"ids": [0.5]}, "expected whole numbers"),
        ({"ids": [[6, 7], [8]]}, "rows must be equally long"),
        ({"ids": "text"}, "ids is not a table of whole numbers"),
        ({"ids": [6, 7], "visible": [[True]]}, r"visible has shape \(1, 1\): expected \(1, 2\)"),
        ({"ids": [6, 7], "visible": [[1, 2]]}, "numbers other than 0 and 1"),
        ({"ids": [6, 7], "type_ids": [0, 2]}, r"type_ids\[0\]\[1\] is 2: the segment table"),
        ({"ids": [6, 7], "positions": [0, 32]}, r"positions\[0\]\[1\] is 32: the position table"),
        ({"ids": [6, 7], "positions": [0]}, "they must agree"),
    ],
)
def test_input_that_does_not_fit_is_refused_naming_it(bert: Loaded, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bert.logits(**arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_computes(folder: Path, bert: Loaded, dtype: torch.dtype) -> None:
    logits = elision.load(folder, dtype=dtype).logits([[6, 7, 8], [9, 10, 0]], visible=[[1, 1, 1], [1, 1, 0]])
    expected = bert.logits([[6, 7, 8], [9, 10, 0]], visible=[[1, 1, 1], [1, 1, 0]])
    assert logits.dtype == dtype
    assert torch.allclose(logits[:, :2].float(), expected[:, :2], atol=2e-2)


def test_a_text_embeds_alike_alone_and_among_longer_ones(bert: Loaded) -> None:
    vectors = bert.embed(["ba do", "ba do kilu me no ra su ti ve", "lu"])
    assert vectors.shape == (3, bert.recipe.backbone.hidden_size)
    assert torch.allclose(vectors[:1], bert.embed("ba do"), atol=1e-5)
    assert not torch.allclose(vectors[0], vectors[2])
    with pytest.raises(InputError, match="texts is empty"):
        bert.embed([])


def test_blanks_may_be_written_in_four_ways_and_keep_the_text_around_them(bert: Loaded) -> None:
    found = [bert.fill(f"Ba {blank} KI.", top_k=3) for blank in ("[MASK]", "<mask>", "{mask}", "_____")]
    assert all(filled == found[0] for filled in found)
    (candidates,) = found[0].blanks
    assert [c.probability for c in candidates] == sorted((c.probability for c in candidates), reverse=True)
    assert found[0].text.startswith("Ba") and found[0].text.endswith(" KI.")
    ids = bert.tokenizer.encode("Ba [MASK] KI.", add_special_tokens=True)
    at = ids.index(bert.tokenizer.vocabulary.mask)
    probabilities = bert.logits(ids, type_ids=[0] * len(ids))[0, at].softmax(-1)
    assert candidates[0].probability == pytest.approx(float(probabilities[candidates[0].id]), rel=1e-4)
    assert float(probabilities[5:].max()) == pytest.approx(candidates[0].probability, rel=1e-4)


def test_several_blanks_are_filled_and_special_symbols_never_offered(bert: Loaded) -> None:
    size = bert.tokenizer.vocabulary.size
    filled = bert.fill("___ do ___", top_k=size + 10)
    assert len(filled.blanks) == 2
    offered = {candidate.token for candidate in filled.blanks[0]}
    assert "[PAD]" not in offered and "[MASK]" not in offered
    assert len(filled.blanks[0]) == size - 5


def test_fill_refuses_a_text_without_blank_and_a_causal_model(bert: Loaded, gpt2: Loaded) -> None:
    with pytest.raises(InputError, match="has no blank"):
        bert.fill("ba do")
    with pytest.raises(InputError, match="Use `elision generate`"):
        gpt2.fill("ba [MASK]")
    with pytest.raises(InputError, match="longer than the position table"):
        bert.fill("ba do ki lu " * 20 + "___")
    with pytest.raises(InputError, match="top_k is 0"):
        bert.fill("___", top_k=0)
