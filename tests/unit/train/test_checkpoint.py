"""Checkpoints: whole or absent, found by any name, damage named, old ones dropped."""

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from elision.errors import InputError
from elision.train import checkpoint
from elision.train.adafactor import Adafactor
from elision.train.adagrad import Adagrad
from elision.train.checkpoint import State, find, load_into, read_index, read_weights, resume, save
from elision.train.lamb import Lamb
from elision.train.optim import AdamW, Optimizer


def small_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


def stepped(model: nn.Module, settings: Optimizer = AdamW()) -> torch.optim.Optimizer:
    """Return an optimiser that has made one update."""
    optimizer = settings.build(model)
    step(model, settings, optimizer, 1)
    return optimizer


def step(model: nn.Module, settings: Optimizer, optimizer: torch.optim.Optimizer, update: int) -> None:
    torch.manual_seed(update)
    model(torch.randn(2, 3)).pow(3).sum().backward()
    settings.prepare(optimizer, update, 1e-2)
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as it is before its first checkpoint."""
    (tmp_path / "run" / "tokenizer").mkdir(parents=True)
    (tmp_path / "run" / "recipe.json").write_text("{}")
    (tmp_path / "run" / "tokenizer" / "tokenizer.json").write_text("{}")
    return tmp_path / "run"


def saved(run: Path, step: int, *, is_best: bool = False, keep: int = 2, keep_every: int | None = None) -> Path:
    model = small_model(step)
    return save(run, State(step=step), model, stepped(model), None, is_best=is_best, keep=keep, keep_every=keep_every)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_everything_comes_back_bit_for_bit(run: Path) -> None:
    model = small_model()
    optimizer = stepped(model)
    state = State(
        step=7, skipped=[3], pending={"loss": [1 / 3, 0.1]}, tokens=99, flops=1e19, seconds=0.1, best_loss=2.5
    )
    carry = {"memory": torch.randn(2, 5)}
    save(run, state, model, optimizer, carry, is_best=True, keep=2, keep_every=None)
    other = small_model(1)
    fresh = AdamW().build(other)
    found, found_carry = resume(run, other, fresh)
    assert found == state
    assert torch.equal(found_carry["memory"], carry["memory"])
    for mine, theirs in zip(other.parameters(), model.parameters()):
        assert torch.equal(mine, theirs)
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(fresh.state[mine][moment], optimizer.state[theirs][moment])


@pytest.mark.parametrize(
    "settings",
    [
        AdamW(),
        AdamW(layer_decay=1.0, bias_correction=False),
        Lamb(),
        Lamb(bias_correction=True),
        Adagrad(),
        Adafactor(),
    ],
)
def test_every_optimiser_goes_on_bit_for_bit(run: Path, settings: Optimizer) -> None:
    model = small_model()
    optimizer = stepped(model, settings)
    save(run, State(step=1), model, optimizer, None, is_best=False, keep=2, keep_every=None)
    other = small_model(1)
    fresh = settings.build(other)
    resume(run, other, fresh)
    for update in (2, 3):
        step(model, settings, optimizer, update)
        step(other, settings, fresh, update)
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_parameter_without_gradients_keeps_its_own_count_of_updates(run: Path) -> None:
    model = small_model()
    optimizer = stepped(model)
    model[1].weight.requires_grad_(False)
    step(model, AdamW(), optimizer, 2)
    model[1].weight.requires_grad_(True)
    save(run, State(step=2), model, optimizer, None, is_best=False, keep=2, keep_every=None)
    other = small_model(1)
    fresh = AdamW().build(other)
    resume(run, other, fresh)
    assert float(fresh.state[other[1].weight]["step"]) == 1
    assert float(fresh.state[other[0].weight]["step"]) == 2


def test_a_new_run_starts_at_step_zero(run: Path) -> None:
    model = small_model()
    assert resume(run, model, AdamW().build(model)) == (State(), None)


def test_a_checkpoint_is_complete_in_itself(run: Path) -> None:
    folder = saved(run, 5)
    assert sorted(path.name for path in folder.iterdir()) == [
        "optimizer.safetensors", "recipe.json", "state.json", "tokenizer", "weights.safetensors",
    ]  # fmt: skip
    assert set(json.loads((folder / "state.json").read_text())["files"]) == {
        "optimizer.safetensors",
        "weights.safetensors",
    }


def test_the_latest_and_the_best_are_kept(run: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        saved(run, step, is_best=step == 20)
    assert names(run) == ["step-00000020", "step-00000040", "step-00000050"]
    assert read_index(run) == {"last": "step-00000050", "best": "step-00000020"}


def test_every_nth_is_kept_for_good(run: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        saved(run, step, keep=1, keep_every=20, is_best=step == 10)
    assert names(run) == ["step-00000010", "step-00000020", "step-00000040", "step-00000050"]


def test_a_run_or_a_checkpoint_can_be_named(run: Path) -> None:
    for step in (10, 20):
        saved(run, step, is_best=step == 10)
    folder = run / "checkpoints"
    assert find(run) == folder / "step-00000010"
    assert find(run, "last") == folder / "step-00000020"
    assert find(run, "step-00000020") == folder / "step-00000020"
    assert find(folder / "step-00000020") == folder / "step-00000020"


def test_without_a_best_the_last_serves(run: Path) -> None:
    saved(run, 10)
    assert find(run).name == "step-00000010"


def test_what_cannot_be_found_is_explained(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist: expected a folder with recipe\.json"):
        find(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is neither a run nor a checkpoint"):
        find(tmp_path / "empty")
    with pytest.raises(InputError, match="has no checkpoint ; it has: none"):
        find(run)
    saved(run, 10)
    with pytest.raises(InputError, match="has no checkpoint step-00000099; it has: step-00000010"):
        find(run, "step-00000099")


def test_torn_weights_are_named_with_the_way_back(run: Path) -> None:
    saved(run, 10)
    weights = saved(run, 20) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    model = small_model()
    with pytest.raises(InputError, match=r"step-00000020/weights\.safetensors is torn") as refusal:
        resume(run, model, AdamW().build(model))
    assert 'to "step-00000010"' in str(refusal.value) and "checkpoints.json" in str(refusal.value)


def test_the_way_back_works(run: Path) -> None:
    saved(run, 10)
    torn = saved(run, 20)
    (torn / "weights.safetensors").write_bytes(b"")
    for path in sorted(torn.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    torn.rmdir()
    index = run / "checkpoints.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"last": "step-00000010"}))
    model = small_model()
    assert resume(run, model, AdamW().build(model))[0].step == 10


def test_one_flipped_bit_is_noticed(run: Path) -> None:
    optimizer = saved(run, 10) / "optimizer.safetensors"
    content = bytearray(optimizer.read_bytes())
    content[-1] ^= 1
    optimizer.write_bytes(content)
    model = small_model()
    with pytest.raises(InputError, match=r"optimizer\.safetensors is torn or was changed"):
        resume(run, model, AdamW().build(model))


def test_a_missing_file_is_named(run: Path) -> None:
    folder = saved(run, 10)
    (folder / "optimizer.safetensors").unlink()
    model = small_model()
    with pytest.raises(InputError, match=r"optimizer\.safetensors is missing: delete .* and start again"):
        resume(run, model, AdamW().build(model))


def test_a_torn_state_is_named(run: Path) -> None:
    (saved(run, 10) / "state.json").write_text('{"step": 1')
    model = small_model()
    with pytest.raises(InputError, match=r"state\.json is torn"):
        resume(run, model, AdamW().build(model))


def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"not at all")
    with pytest.raises(InputError, match=r"weights\.safetensors is not a whole safetensors file"):
        read_weights(tmp_path)


def test_foreign_and_missing_tensors_are_named(tmp_path: Path) -> None:
    weights = small_model().state_dict()
    renamed = {name.replace("0.weight", "9.weight"): value for name, value in weights.items()}
    with pytest.raises(InputError, match=r"missing \['0.weight'\], unknown \['9.weight'\]"):
        load_into(small_model(), renamed, tmp_path)
    with pytest.raises(InputError, match=r"0.bias has shape \(7,\), expected \(4,\)"):
        load_into(small_model(), weights | {"0.bias": torch.zeros(7)}, tmp_path)


def test_weights_hold_the_models_tensors_by_name(run: Path) -> None:
    folder = saved(run, 10)
    assert load_file(folder / "weights.safetensors").keys() == small_model().state_dict().keys()


def test_leftovers_of_a_killed_process_are_cleared_away(run: Path) -> None:
    saved(run, 10)
    half = run / "checkpoints" / ".step-00000020.123.partial"
    half.mkdir()
    save_file({"a": torch.zeros(3)}, half / "weights.safetensors")
    model = small_model()
    assert resume(run, model, AdamW().build(model))[0].step == 10
    assert names(run) == ["step-00000010"]


def test_a_checkpoint_that_was_being_replaced_when_its_process_was_killed_is_put_back(run: Path) -> None:
    folder = saved(run, 10)
    folder.rename(folder.with_name(".step-00000010.123.old"))
    model = small_model()
    assert resume(run, model, AdamW().build(model))[0].step == 10
    assert names(run) == ["step-00000010"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_a_failed_write_leaves_the_last_checkpoint_and_nothing_else(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    saved(run, 10)
    write = checkpoint.save_file

    def fail_after_the_weights(tensors: dict, path: Path, **settings: object) -> None:
        if path.name != "weights.safetensors":
            raise error
        write(tensors, path, **settings)

    monkeypatch.setattr(checkpoint, "save_file", fail_after_the_weights)
    with pytest.raises(
        OSError, match=rf"step-00000020 was not written: {reason}. The checkpoints before it are intact"
    ):
        saved(run, 20)
    assert names(run) == ["step-00000010"] and read_index(run)["last"] == "step-00000010"
    model = small_model()
    assert resume(run, model, AdamW().build(model))[0].step == 10


def test_a_skipped_batch_is_noted_in_the_last_checkpoint(run: Path) -> None:
    saved(run, 10)
    assert checkpoint.add_skipped(run, 14) == 10
    assert checkpoint.add_skipped(run, 12) == 10
    model = small_model()
    assert resume(run, model, AdamW().build(model))[0].skipped == [12, 14]
