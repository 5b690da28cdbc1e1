"""Runs that go wrong: what is said, and what is left."""

import dataclasses
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from elision.atomic import locked
from elision.data.store import Store
from elision.errors import InputError
from elision.recipe import Recipe
from elision.train import loop
from elision.train.checkpoint import find, read_index, read_weights
from elision.train.loop import Interrupted, NonFiniteLoss, OutOfMemory, Progress, Run, fit
from elision.train.metrics import read_metrics
from elision.train.pretrain import prepare_run
from tests import tiny

StoreOf = Callable[[Recipe], Store]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurement of the machine."""
    monkeypatch.setattr(loop, "matmul_peak", lambda device, dtype: 1e9)


def small(**settings: object) -> Recipe:
    return tiny.recipe("gpt2-tiny", **{"steps": 20, "log_every": 4, "eval_every": 10, "checkpoint_every": 5} | settings)


def poisoned(run: Run, data_step: int) -> Run:
    """Make the loss of whatever reads a data step infinite, however often it is read."""
    prints = {batch.fingerprint() for batch in run.data.microbatches(data_step)}
    forward = run.model.forward

    def spoilt(batch, carry=None):
        terms, carry = forward(batch, carry)
        if run.model.training and batch.fingerprint() in prints:
            name = next(iter(terms))
            terms[name] = dataclasses.replace(terms[name], sum=terms[name].sum * float("inf"))
        return terms, carry

    run.model.forward = spoilt
    return run


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(find(folder, "last"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_not_finite_stops_and_names_step_term_and_batch(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    run = poisoned(prepare_run(recipe, store_of(recipe), tmp_path / "run"), data_step=13)
    with pytest.raises(NonFiniteLoss) as failure:
        fit(run)
    said = str(failure.value)
    (batch,) = run.data.microbatches(13)
    assert "clm is inf at step 13" in said
    assert batch.fingerprint() in said and str(batch.examples[0]) in said
    assert "train.non_finite" in said and "learning_rate" in said
    # Found before anything of it was saved.
    assert read_index(tmp_path / "run")["last"] == "step-00000010"
    assert all(torch.isfinite(tensor).all() for tensor in last_weights(tmp_path / "run").values())
    assert max(line["step"] for line in read_metrics(tmp_path / "run")) <= 12


@pytest.mark.parametrize("bad_step", [2, 13])
def test_skipping_goes_on_without_the_batch_as_if_it_had_never_been(
    bad_step: int, store_of: StoreOf, tmp_path: Path
) -> None:
    recipe = small(non_finite="skip")
    reports: list[Progress] = []
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run", report=reports.append)
    state = fit(poisoned(run, bad_step))
    assert state.step == 20 and state.skipped == [bad_step]
    assert [report.values for report in reports if report.split == "skip"] == [{"data_step": bad_step}]
    # The same run on data that lacks that step from the start.
    other = prepare_run(recipe, store_of(recipe), tmp_path / "other")
    stream = type(other.data).stream
    lacking = dataclasses.replace(other.data)
    object.__setattr__(lacking, "stream", lambda first, last, skipped: stream(other.data, first, last, {bad_step}))
    fit(dataclasses.replace(other, data=lacking))
    assert same(last_weights(tmp_path / "run"), last_weights(tmp_path / "other"))
    steps = [line["step"] for line in read_metrics(tmp_path / "run") if line["split"] == "train"]
    assert steps == [4, 8, 12, 16, 20]


def test_several_bad_batches_are_all_skipped(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small(non_finite="skip")
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run")
    state = fit(poisoned(poisoned(run, 6), 7))
    assert state.skipped == [6, 7] and state.step == 20
    assert all(torch.isfinite(tensor).all() for tensor in last_weights(tmp_path / "run").values())


def test_a_gradient_that_is_not_finite_is_caught_too(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run")
    calls = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * float("nan") if len(calls) == 3 else gradient

    run.model.backbone.embeddings.positions.table.weight.register_hook(spoil)
    with pytest.raises(NonFiniteLoss, match="grad_norm is nan at step 2"):
        fit(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_end(
    number: signal.Signals, store_of: StoreOf, tmp_path: Path
) -> None:
    recipe = small()

    def stop(progress: Progress) -> None:
        if progress.step == 8:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"{number.name}: saved .* at step 8. Start the same command again"):
        fit(prepare_run(recipe, store_of(recipe), tmp_path / "run", report=stop))
    assert signal.getsignal(number) == before
    assert read_index(tmp_path / "run")["last"] == "step-00000008"
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "run"))
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "undisturbed"))
    assert same(last_weights(tmp_path / "run"), last_weights(tmp_path / "undisturbed"))


def test_a_file_that_cannot_be_written_leaves_the_last_good_checkpoint(store_of: StoreOf, tmp_path: Path) -> None:
    """The system itself refuses to write more than the weights; the run then goes on from what it has."""
    recipe = small()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(progress: Progress) -> None:
        if progress.step == 8:
            weights = find(tmp_path / "run", "last") / "weights.safetensors"
            resource.setrlimit(resource.RLIMIT_FSIZE, (weights.stat().st_size + 5000, hard))

    try:
        with pytest.raises(OSError, match=r"step-00000010 was not written: .*File too large"):
            fit(prepare_run(recipe, store_of(recipe), tmp_path / "run", report=limit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005"]
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "run"))
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "undisturbed"))
    assert same(last_weights(tmp_path / "run"), last_weights(tmp_path / "undisturbed"))


def test_a_finished_run_started_again_changes_nothing(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "run"))
    weights, lines = last_weights(tmp_path / "run"), read_metrics(tmp_path / "run")
    assert fit(prepare_run(recipe, store_of(recipe), tmp_path / "run")).step == 20
    assert same(last_weights(tmp_path / "run"), weights)
    assert read_metrics(tmp_path / "run") == lines


def test_another_recipe_in_the_same_folder_is_refused_field_by_field(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    prepare_run(recipe, store_of(recipe), tmp_path / "run")
    other = small(learning_rate=0.5, num_layers=1)
    with pytest.raises(InputError) as refusal:
        prepare_run(other, store_of(other), tmp_path / "run")
    said = str(refusal.value)
    assert "backbone.num_layers was 2, now 1" in said
    assert "train.optimizer.learning_rate was 0.001, now 0.5" in said
    assert "--out" in said


def test_how_a_run_is_watched_may_change_on_resume(store_of: StoreOf, tmp_path: Path) -> None:
    prepare_run(small(), store_of(small()), tmp_path / "run")
    watched = small(log_every=1, eval_every=3, checkpoint_every=9, keep_checkpoints=5, keep_every=7, non_finite="skip")
    run = prepare_run(watched, store_of(watched), tmp_path / "run")
    assert run.train == watched.train


def test_another_store_is_refused(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    prepare_run(recipe, store_of(recipe), tmp_path / "run")
    made = store_of(recipe).tokenizer
    other = tiny.id_store(tmp_path / "other", made, [[[10, 11, 12] * 30], [[13, 14] * 30]], validation=0.5)
    with pytest.raises(InputError, match=r"was trained on the store .*, not on .*other .*go on with the same --data"):
        prepare_run(recipe, other, tmp_path / "run")


def test_a_folder_with_other_files_is_refused(store_of: StoreOf, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="holds files that are no run of elision: name an empty folder with --out"):
        prepare_run(small(), store_of(small()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_start_that_was_killed_while_it_laid_out_its_folder_can_be_repeated(
    store_of: StoreOf, tmp_path: Path
) -> None:
    recipe = small()
    prepare_run(recipe, store_of(recipe), tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / ".run.json.77.partial").write_text("{")
    assert fit(prepare_run(recipe, store_of(recipe), tmp_path / "run")).step == 20
    # With work in it, it is no longer what an early kill leaves.
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(InputError, match="holds files that are no run"):
        prepare_run(recipe, store_of(recipe), tmp_path / "run")


def test_a_torn_description_of_a_run_is_named(store_of: StoreOf, tmp_path: Path) -> None:
    prepare_run(small(), store_of(small()), tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"format": 1')
    with pytest.raises(InputError, match=r"run\.json is torn or foreign"):
        prepare_run(small(), store_of(small()), tmp_path / "run")


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True)"
    )
    (tmp_path / "run").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; input()", str(tmp_path / "run" / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="is being trained by another process"), locked(tmp_path / "run", "trained"):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path / "run", "trained"):
        pass


def test_a_budget_of_tokens_becomes_steps_once_and_for_all(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small(budget="3000 tokens")
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run")
    assert run.train.steps == round(3000 / (8 * 24)) and run.train.budget is None
    assert Recipe.load(tmp_path / "run" / "recipe.json").train == run.train
    assert prepare_run(recipe, store_of(recipe), tmp_path / "run").train == run.train
    assert prepare_run(small(budget="7 steps"), store_of(recipe), tmp_path / "seven").train.steps == 7
    flops = run.model.num_flops(run.data.microbatches(0)[0])
    by_flops = small(budget=f"{9 * flops:.0f} flops")
    assert prepare_run(by_flops, store_of(recipe), tmp_path / "flops").train.steps == 9
    timed = prepare_run(small(budget="30s"), store_of(recipe), tmp_path / "timed")
    assert 1 <= timed.train.steps < 100_000


def test_a_run_starts_from_the_weights_of_another(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "first"))
    longer = small(seed=2)
    run = prepare_run(longer, store_of(recipe), tmp_path / "second", init_from=find(tmp_path / "first", "last"))
    assert same(run.model.state_dict(), last_weights(tmp_path / "first"))
    fit(run)
    assert not same(last_weights(tmp_path / "second"), last_weights(tmp_path / "first"))


def test_weights_of_another_shape_are_refused_as_a_start(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "first"))
    wider = small(feedforward_size=96)
    with pytest.raises(InputError, match=r"does not fit this recipe: .*feedforward.*expected"):
        prepare_run(wider, store_of(recipe), tmp_path / "second", init_from=tmp_path / "first")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes."),
    ],
    ids=["gpu", "python", "cpu"],
)
def test_too_little_memory_is_said_with_the_way_out_and_the_run_goes_on(
    store_of: StoreOf, tmp_path: Path, error: Exception
) -> None:
    recipe = small()
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run")
    forward, calls = run.model.forward, []

    def exhausted(batch, carry=None):
        calls.append(1)
        if len(calls) > 8:
            raise error
        return forward(batch, carry)

    run.model.forward = exhausted
    with pytest.raises(OutOfMemory, match=r"set train\.microbatch_size to 4 \(now 8\)"):
        fit(run)
    assert read_index(tmp_path / "run")["last"] == "step-00000005"
    again = prepare_run(small(microbatch_size=4), store_of(recipe), tmp_path / "run")
    assert again.train.microbatch_size == 4
    assert fit(again).step == 20


def test_other_errors_keep_their_name(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = small()
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run")

    def broken(batch, carry=None):
        raise RuntimeError("a defect of ours")

    run.model.forward = broken
    with pytest.raises(RuntimeError, match="a defect of ours"):
        fit(run)
