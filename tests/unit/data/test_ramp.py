"""Batches that grow: every step's examples by arithmetic, and runs that are the same however they are cut."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from elision.data.loader import Loader
from elision.data.ramp import BatchRamp, BatchSizes
from elision.data.store import Store
from elision.errors import InputError
from elision.recipe import Recipe
from elision.train import loop
from elision.train.checkpoint import read_weights
from elision.train.loop import Interrupted, Progress, fit
from elision.train.metrics import read_metrics
from elision.train.pretrain import loader_of, prepare_run
from elision.train.settings import Train
from tests import tiny

RAMPS = [
    BatchRamp(1, 1),
    BatchRamp(2, 12),
    BatchRamp(8, 100),
    BatchRamp(3, 50, increment=2),
    BatchRamp(1, 1000),
    BatchRamp(7, 3, increment=5),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurement of the machine."""
    monkeypatch.setattr(loop, "matmul_peak", lambda device, dtype: 1e9)


def growing(ramp: BatchRamp | None = BatchRamp(2, 30), **train: object) -> Recipe:
    return tiny_recipe("gpt2-tiny", ramp=ramp, **train)


def tiny_recipe(name: str, **train: object) -> Recipe:
    recipe = tiny.recipe(name)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **train))


def loader(recipe: Recipe, store: Store, **settings: object) -> Loader:
    train = recipe.train
    return loader_of(
        recipe, store.split("train"), store.tokenizer.vocabulary, train.batch_size, ramp=train.ramp, **settings
    )


@pytest.mark.parametrize("ramp", RAMPS, ids=str)
def test_the_table_gives_what_counting_step_by_step_gives(ramp: BatchRamp) -> None:
    sizes, examples = BatchSizes(20, ramp), 0
    for step in range(700):
        assert (sizes.of_step(step), sizes.examples_before(step)) == (ramp.size_after(examples, 20), examples)
        assert sizes.steps_reading(examples) == step
        examples += sizes.of_step(step)
    assert sizes.of_step(10**12) == 20
    assert sizes.examples_before(10**12 + 1) - sizes.examples_before(10**12) == 20


def test_batches_grow_linearly_in_the_examples_read_from_the_first_size_to_the_full_one() -> None:
    ramp = BatchRamp(initial_size=16, num_examples=2_000_000)
    assert [ramp.size_after(round(2e6 * share), 1600) for share in (0, 0.25, 0.5, 0.75, 1)] == [
        16,
        412,
        808,
        1204,
        1600,
    ]
    sizes = BatchSizes(1600, ramp)
    end = int(sizes.steps_reading(2e6)) + 1
    seen = [sizes.of_step(step) for step in range(end + 2)]
    assert seen == sorted(seen) and seen[0] == 16 and seen[-1] == 1600


def test_an_increment_keeps_sizes_apart_by_its_multiples() -> None:
    sizes = BatchSizes(20, BatchRamp(4, 100, increment=8))
    assert sorted({sizes.of_step(step) for step in range(60)}) == [4, 12, 20]


def test_without_a_ramp_all_steps_are_alike() -> None:
    sizes = BatchSizes(12)
    assert [sizes.of_step(step) for step in (0, 5)] == [12, 12]
    assert [sizes.examples_before(step) for step in (0, 5)] == [0, 60]
    assert sizes.steps_reading(30) == 2.5


def test_steps_read_one_stretch_of_the_order_after_another_and_leave_nothing_out(bytes_store: Store) -> None:
    mine = loader(growing(), bytes_store)
    whole = loader(growing(None), bytes_store)
    epochs, indices = (np.concatenate(column) for column in zip(*(mine.examples_of(step) for step in range(20))))
    expected = [np.concatenate(column) for column in zip(*(whole.examples_of(step) for step in range(20)))]
    assert len(epochs) == mine.sizes.examples_before(20) < 20 * 8
    assert epochs.tolist() == expected[0][: len(epochs)].tolist()
    assert indices.tolist() == expected[1][: len(indices)].tolist()


def test_ranks_share_a_small_batch_as_they_share_a_whole_one(bytes_store: Store) -> None:
    mine = loader(growing(), bytes_store)
    for step in (0, 3, 9):
        ranks = [dataclasses.replace(mine, rank=rank, num_ranks=2).examples_of(step)[1] for rank in range(2)]
        together = mine.examples_of(step)[1]
        assert ranks[0].tolist() == together[::2].tolist() and ranks[1].tolist() == together[1::2].tolist()


def test_tokens_are_counted_by_the_examples_of_each_step(bytes_store: Store) -> None:
    mine = loader(growing(), bytes_store)
    for step in (0, 1, 7, 30):
        read = sum(batch.num_tokens for earlier in range(step) for batch in mine.microbatches(earlier))
        assert mine.tokens_by(step) == read == mine.sizes.examples_before(step) * 24


def test_of_several_kinds_each_grows_by_itself(bytes_store: Store) -> None:
    mine = loader(growing(), bytes_store)
    both = dataclasses.replace(mine, turns=(dataclasses.replace(mine, turn="other", seed=2),))
    sizes = [sum(batch.num_examples for batch in both.microbatches(step)) for step in range(10)]
    assert sizes == [size for step in range(5) for size in [mine.sizes.of_step(step)] * 2]
    tokens = list(itertools.accumulate((24 * size for size in sizes), initial=0))
    assert [both.tokens_by(step) for step in range(11)] == tokens
    assert [both.steps_reading(count / 24) for count in tokens[::2]] == list(range(0, 12, 2))


def test_a_run_that_was_interrupted_while_batches_grew_goes_on_bit_for_bit(bytes_store: Store, tmp_path: Path) -> None:
    recipe = growing(steps=12, log_every=1, checkpoint_every=3)
    fit(prepare_run(recipe, bytes_store, tmp_path / "whole"))

    def stop(progress: Progress) -> None:
        if progress.step == 4 and progress.split == "train":
            raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        fit(prepare_run(recipe, bytes_store, tmp_path / "cut", report=stop))
    fit(prepare_run(recipe, bytes_store, tmp_path / "cut"))
    whole, cut = (read_weights(tmp_path / name / "checkpoints" / "step-00000012") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    sizes = BatchSizes(8, recipe.train.ramp)
    lines = [line for line in read_metrics(tmp_path / "whole") if line["split"] == "train"]
    assert [line["batch_size"] for line in lines] == [sizes.of_step(step) for step in range(12)]
    assert lines[-1]["tokens"] == 24 * sizes.examples_before(12)


def test_growing_batches_of_eight_are_those_of_four_times_two(bytes_store: Store, tmp_path: Path) -> None:
    weights = []
    for size in (8, 2):
        recipe = growing(steps=6, microbatch_size=size)
        recipe = dataclasses.replace(
            recipe, backbone=dataclasses.replace(recipe.backbone, dropout=0.0, attention_dropout=0.0)
        )
        run = prepare_run(recipe, bytes_store, tmp_path / str(size))
        run.model.double()
        fit(run)
        weights.append(read_weights(tmp_path / str(size) / "checkpoints" / "step-00000006"))
    for name, mine in weights[0].items():
        torch.testing.assert_close(mine, weights[1][name], rtol=0, atol=1e-9, msg=name)


def test_a_budget_of_tokens_counts_what_small_batches_leave_over(bytes_store: Store, tmp_path: Path) -> None:
    budget = 24 * BatchSizes(8, BatchRamp(2, 30)).examples_before(25)
    run = prepare_run(growing(budget=f"{budget} tokens"), bytes_store, tmp_path / "run")
    assert run.train.steps == 25
    plain = prepare_run(growing(None, budget=f"{24 * 8 * 25} tokens"), bytes_store, tmp_path / "plain")
    assert plain.train.steps == 25


def test_streams_that_go_on_from_step_to_step_cannot_grow(store_of, tmp_path: Path) -> None:
    recipe = tiny_recipe("xlnet-tiny", ramp=BatchRamp(2, 30))
    with pytest.raises(InputError, match=r"MemoryStreams makes streams .* set train\.ramp to None"):
        prepare_run(recipe, store_of(recipe), tmp_path / "run")


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match=r"ramp\.initial_size is 0"):
        BatchRamp(initial_size=0)
    with pytest.raises(InputError, match=r"train\.ramp\.initial_size is 32, but train\.batch_size is 16"):
        Train(batch_size=16, ramp=BatchRamp(32, 100))


def test_a_ramp_goes_through_the_recipes_file(tmp_path: Path) -> None:
    recipe = growing()
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
