"""A run that is killed, stopped and started again ends bit for bit like one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elision.data.store import Store
from elision.recipe import Recipe
from elision.train.checkpoint import find, read_index
from elision.train.metrics import read_metrics
from tests import tiny

MEASURED = ("tokens_per_second", "flop_utilisation", "seconds", "peak_memory_bytes")
"""What a line of metrics says of the machine rather than of the model."""


def start(recipe: Path, store: Store, run: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from elision.cli import main; sys.exit(main())"]
    command += ["pretrain", "--config", str(recipe), "--data", str(store.path), "--out", str(run), "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"it ended before the moment to disturb it:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def steps_logged(run: Path) -> int:
    lines = read_metrics(run)
    return lines[-1]["step"] if lines else 0


def lines_of(run: Path) -> list[dict]:
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in read_metrics(run)]


@pytest.mark.parametrize(
    "name", ["bert-tiny", "gpt2-tiny", "xlnet-tiny", "elmo-tiny", "transformer-xl-tiny", "t5-tiny", "gpt3-tiny"]
)
def test_killed_and_resumed_equals_undisturbed(name: str, tmp_path: Path, store_of: Callable[[Recipe], Store]) -> None:
    recipe = tiny.recipe(name, steps=90, num_samples=20, log_every=3, eval_every=10, checkpoint_every=7, keep_every=35)
    store = store_of(recipe)
    recipe.save(tmp_path / "recipe.json")
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    left_alone = start(tmp_path / "recipe.json", store, undisturbed)

    def partial_checkpoint() -> bool:
        return any((run / "checkpoints").glob(".step-*.partial"))

    def past(step: int) -> Callable[[], bool]:
        return lambda: steps_logged(run) >= step

    rng = random.Random(os.getpid())
    disturbances: dict[str, list[tuple[Callable[[], bool], signal.Signals]]] = {
        "bert-tiny": [
            ((run / "recipe.json").exists, signal.SIGKILL),
            (partial_checkpoint, signal.SIGKILL),
            (past(rng.randint(16, 40)), signal.SIGTERM),
            (past(rng.randint(45, 75)), signal.SIGKILL),
        ],
        "gpt2-tiny": [(past(rng.randint(3, 35)), signal.SIGKILL), (past(rng.randint(40, 75)), signal.SIGINT)],
        # With a memory that the checkpoint carries.
        "xlnet-tiny": [(past(rng.randint(10, 60)), signal.SIGKILL)],
        # With one that every token sees, of streams that go on.
        "transformer-xl-tiny": [(past(rng.randint(10, 60)), signal.SIGKILL)],
        # With two sides, and an optimiser that keeps rows and columns of its squares.
        "t5-tiny": [(past(rng.randint(10, 60)), signal.SIGKILL)],
        # With batches that grow and a schedule that counts tokens.
        "gpt3-tiny": [(past(rng.randint(10, 60)), signal.SIGKILL)],
        # With the states of LSTMs, and words that are sampled.
        "elmo-tiny": [(past(rng.randint(10, 60)), signal.SIGKILL)],
    }
    for moment, how in disturbances[name]:
        process = start(tmp_path / "recipe.json", store, run)
        wait_for(process, moment)
        time.sleep(rng.random() * 0.02)
        process.send_signal(how)
        said = process.communicate(timeout=120)[0]
        if how == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 128 + how, said
            assert f"{how.name}: saved" in said and "same command again" in said
            assert "Traceback" not in said
            assert read_index(run)["last"] is not None
    last = start(tmp_path / "recipe.json", store, run)
    said = last.communicate(timeout=120)[0]
    assert last.returncode == 0, said
    assert "going on from step" in said
    assert left_alone.wait(timeout=120) == 0, left_alone.communicate()[0]

    ours, theirs = find(run, "last"), find(undisturbed, "last")
    assert ours.name == theirs.name == "step-00000090"
    assert (theirs / "carry.safetensors").exists() == (name in ("xlnet-tiny", "elmo-tiny", "transformer-xl-tiny"))
    for file in sorted(path.name for path in theirs.glob("*.safetensors")):
        assert (ours / file).read_bytes() == (theirs / file).read_bytes(), file
    assert lines_of(run) == lines_of(undisturbed)
    assert read_index(run) == read_index(undisturbed)
    # Every third step and the last, each once; every tenth is evaluated.
    assert [line["step"] for line in lines_of(run) if line["split"] == "train"] == list(range(3, 91, 3))
    assert [line["step"] for line in lines_of(run) if line["split"] == "validation"] == list(range(10, 91, 10))
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert kept >= {read_index(run)["best"], "step-00000035", "step-00000070", "step-00000090"}
    assert not [name for name in kept if not name.startswith("step-")], "what a killed run leaves is cleared away"
