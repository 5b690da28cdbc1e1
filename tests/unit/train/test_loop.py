"""The loop, against the same training written out by hand."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from elision.data.order import derive_seed
from elision.data.store import Store
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.train import loop
from elision.train.checkpoint import find, read_index, read_weights
from elision.train.loop import Progress, Run, evaluate, fit
from elision.train.metrics import read_metrics
from elision.train.pretrain import prepare_run
from tests import tiny

StoreOf = Callable[[Recipe], Store]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurement of the machine."""
    monkeypatch.setattr(loop, "matmul_peak", lambda device, dtype: 1e9)


def lines(run: Path, split: str) -> list[dict]:
    return [line for line in read_metrics(run) if line["split"] == split]


def by_hand(recipe: Recipe, store: Store) -> tuple[LanguageModel, list[dict[str, float]]]:
    """Train with PyTorch's own optimiser, loss and clipping; returns the model and the values of every step."""
    torch.manual_seed(derive_seed(recipe.train.seed, "weights"))
    model = tiny.model(recipe, store)
    data, train = tiny.loader(recipe, store), recipe.train
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": train.optimizer.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        betas=(train.optimizer.beta1, train.optimizer.beta2),
        eps=train.optimizer.eps,
    )
    values = []
    for step in range(train.steps):
        sums: dict[str, torch.Tensor] = {}
        counts: dict[str, int] = {}
        for index, batch in enumerate(data.microbatches(step)):
            torch.manual_seed(derive_seed(train.seed, "dropout", step, index))
            hidden = model.backbone(batch).prediction
            logits = model.vocabulary_logits(hidden).flatten(0, 1)
            part = {"clm": F.cross_entropy(logits, batch.targets.flatten(), reduction="sum", ignore_index=-100)}
            count = {"clm": int((batch.targets != -100).sum())}
            for name in part:
                sums[name] = sums.get(name, 0) + part[name]
                counts[name] = counts.get(name, 0) + count[name]
        loss = sums["clm"] / counts["clm"]
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.optimizer.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = train.optimizer.learning_rate * train.schedule.share(step, train.steps)
        optimizer.step()
        optimizer.zero_grad()
        values.append({"loss": float(loss.detach()), "grad_norm": float(norm)})
    return model, values


@pytest.mark.parametrize("microbatch_size", [None, 3])
def test_training_equals_the_same_training_written_out_by_hand(
    microbatch_size: int | None, store_of: StoreOf, tmp_path: Path
) -> None:
    recipe = tiny.recipe("gpt2-tiny", steps=12, log_every=4, microbatch_size=microbatch_size)
    store = store_of(recipe)
    run = prepare_run(recipe, store, tmp_path / "run")
    state = fit(run)
    model, values = by_hand(recipe, store)
    for (name, ours), theirs in zip(run.model.named_parameters(), model.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-6, msg=name)
    # A line speaks of all steps since the line before.
    logged = lines(tmp_path / "run", "train")
    assert [line["step"] for line in logged] == [4, 8, 12]
    for line in logged:
        since = values[line["step"] - 4 : line["step"]]
        for name in ("loss", "grad_norm"):
            assert line[name] == pytest.approx(sum(value[name] for value in since) / 4, rel=1e-4)
        assert line["clm"] == pytest.approx(line["loss"], rel=1e-6)
    assert logged[-1]["learning_rate"] == pytest.approx(
        recipe.train.optimizer.learning_rate * recipe.train.schedule.share(11, 12)
    )
    assert logged[-1]["tokens"] == state.tokens == 12 * 8 * 24


def test_held_out_values_are_means_over_the_same_examples_without_dropout(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = tiny.recipe("bert-tiny", dropout=0.5, microbatch_size=3, eval_examples=10)
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run")
    values = evaluate(run, torch.float32)
    assert values == evaluate(run, torch.float32)
    assert run.model.training
    run.model.eval()
    sums, counts = {"mlm": 0.0, "nsp": 0.0}, {"mlm": 0, "nsp": 0}
    with torch.no_grad():
        for batch in run.held_out.in_order(10):
            for name, term in run.model(batch)[0].items():
                sums[name] += float(term.sum)
                counts[name] += term.count
    assert counts["nsp"] == 10
    for name in sums:
        assert values[name] == pytest.approx(sums[name] / counts[name], rel=1e-5)
    assert values["loss"] == pytest.approx(values["mlm"] + values["nsp"])
    split = store_of(recipe).split("validation")
    bits = values["mlm"] / math.log(2) * split.num_tokens / split.num_bytes
    assert values["bits_per_byte"] == pytest.approx(bits)


def test_the_weight_of_a_term_scales_its_share_of_the_loss_and_not_its_own_value(
    store_of: StoreOf, tmp_path: Path
) -> None:
    recipe = tiny.recipe("bert-tiny", steps=1, log_every=1)
    weighted = dataclasses.replace(
        recipe, objectives=(recipe.objectives[0], dataclasses.replace(recipe.objectives[1], weight=0.25))
    )
    found = {}
    for name, each in (("plain", recipe), ("weighted", weighted)):
        fit(prepare_run(each, store_of(recipe), tmp_path / name))
        (found[name],) = lines(tmp_path / name, "train")
    assert found["weighted"]["nsp"] == found["plain"]["nsp"]
    assert found["plain"]["loss"] == pytest.approx(found["plain"]["mlm"] + found["plain"]["nsp"], rel=1e-6)
    assert found["weighted"]["loss"] == pytest.approx(found["plain"]["mlm"] + 0.25 * found["plain"]["nsp"], rel=1e-6)


def test_the_best_checkpoint_is_the_one_with_the_lowest_held_out_loss(store_of: StoreOf, tmp_path: Path) -> None:
    # A rate far too high: the held-out loss goes up again.
    recipe = tiny.recipe("gpt2-tiny", steps=30, eval_every=3, checkpoint_every=30, learning_rate=0.05, clip_norm=0.0)
    run = prepare_run(recipe, store_of(recipe), tmp_path / "run")
    state = fit(run)
    held_out = lines(tmp_path / "run", "validation")
    assert [line["step"] for line in held_out] == list(range(3, 31, 3))
    best = min(held_out, key=lambda line: line["loss"])
    assert best["step"] < 30
    assert read_index(tmp_path / "run") == {"last": "step-00000030", "best": f"step-{best['step']:08d}"}
    assert state.best_loss == best["loss"]
    run.model.load_state_dict(read_weights(find(tmp_path / "run")))
    assert evaluate(run, torch.float32)["loss"] == best["loss"]


def test_how_often_to_evaluate_follows_from_the_steps_when_not_said(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = tiny.recipe("gpt2-tiny", steps=43)
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "run"))
    assert [line["step"] for line in lines(tmp_path / "run", "validation")] == [*range(2, 43, 2), 43]


def test_how_often_something_is_watched_changes_no_weight(store_of: StoreOf, tmp_path: Path) -> None:
    weights = []
    for name, settings in (
        ("seldom", {"log_every": 50, "eval_every": 50, "checkpoint_every": 50}),
        ("often", {"log_every": 1, "eval_every": 2, "checkpoint_every": 3, "eval_examples": 5, "microbatch_size": 8}),
    ):
        recipe = tiny.recipe("bert-tiny", steps=7, **settings)
        run = prepare_run(recipe, store_of(recipe), tmp_path / name)
        fit(run)
        weights.append(run.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_dropout_acts_in_training(store_of: StoreOf, tmp_path: Path) -> None:
    losses = []
    for name, dropout in (("with", 0.5), ("without", 0.0)):
        recipe = tiny.recipe("gpt2-tiny", steps=1, log_every=1, dropout=dropout)
        fit(prepare_run(recipe, store_of(recipe), tmp_path / name))
        losses.append(lines(tmp_path / name, "train")[0]["loss"])
    assert losses[0] != losses[1]


def test_reports_come_as_the_lines_do(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = tiny.recipe("gpt2-tiny", steps=6, log_every=3, eval_every=3)
    reports: list[Progress] = []
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "run", report=reports.append))
    assert [(report.step, report.split) for report in reports] == [
        (3, "train"), (3, "validation"), (6, "train"), (6, "validation"),
    ]  # fmt: skip
    assert all(report.steps == 6 for report in reports)
    for report, line in zip(reports, read_metrics(tmp_path / "run")):
        assert report.values == {name: value for name, value in line.items() if name not in ("step", "split")}


def test_a_run_without_held_out_text_trains_and_saves(store_of: StoreOf, tmp_path: Path) -> None:
    recipe = tiny.recipe("gpt2-tiny", steps=4, log_every=2)
    store = tiny.text_store(tmp_path / "store", recipe.tokenizer, validation=0.0)
    run = prepare_run(recipe, store, tmp_path / "run")
    assert isinstance(run, Run) and run.held_out is None
    assert fit(run).step == 4
    assert read_index(tmp_path / "run") == {"last": "step-00000004", "best": None}
    assert find(tmp_path / "run").name == "step-00000004"
