"""The benches run at toy size and say something finite. How fast anything is, is never a test."""

import dataclasses
import json
import math
import shlex
from pathlib import Path

import pytest
import torch
from bench import report
from bench.data import loader_for, works
from bench.loader import measure as measure_loader
from bench.pairs import Pair, compare, resident_bytes, worker
from bench.pretrain import cases, measure, parser, with_length
from bench.sides import Ours, Settings, Theirs

from elision import recipes
from elision.data.example import NO_TARGET
from elision.data.store import Store
from elision.recipe import Recipe
from tests import tiny


def toy(name: str) -> Recipe:
    recipe = tiny.recipe(name, dropout=0.0, attention_dropout=0.0)
    return dataclasses.replace(recipe, tokenizer=dataclasses.replace(recipe.tokenizer, vocab_size=300))


class Counting:
    """A side that fails on a given step."""

    def __init__(self, fails_at: int):
        self.steps, self.fails_at = 0, fails_at

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.fails_at:
            raise ArithmeticError("on purpose")

    def facts(self) -> dict[str, float]:
        return {"steps": self.steps}


def test_both_sides_do_the_same_number_of_steps_and_a_failure_is_named() -> None:
    with worker("one", Counting, 10) as one, worker("two", Counting, 0) as two:
        pair = compare(one, two, rounds=3, steps_per_round=2, warmup_steps=1)
        assert pair.our_facts == pair.their_facts == {"steps": 7}
        assert all(math.isfinite(ratio) and ratio > 0 for ratio in pair.ratios)
        with pytest.raises(RuntimeError, match=r"one failed[\s\S]*on purpose"):
            one.run(3)


def test_the_ratio_is_the_median_within_rounds() -> None:
    summary = Pair((1.0, 2.0, 10.0), (3.0, 4.0, 30.0), {}, {}).summary()
    assert (summary["ratio"], summary["ratio_min"], summary["ratio_max"]) == (3.0, 2.0, 3.0)


def test_peak_memory_is_never_below_memory_in_use() -> None:
    in_use = resident_bytes(peak=False)
    # The kernel counts pages for each core and adds them up now and then.
    assert resident_bytes(peak=True) > in_use - (1 << 20) and in_use > 1 << 20


@pytest.mark.parametrize("name", ["bert-tiny", "gpt2-tiny"])
@pytest.mark.parametrize("lengths", ["full", "real"])
def test_both_sides_read_the_same_tokens_and_targets(name: str, lengths: str, wordpiece_store: Store) -> None:
    recipe = toy(name)
    store = wordpiece_store if name == "bert-tiny" and lengths == "real" else None
    for work in works(recipe, store, lengths, rows=4, count=2):
        seen = work.padded.doc_ids.numpy() > 0
        ours, held = work.ours.inputs.numpy(), work.ours.doc_ids.numpy() > 0
        assert sorted(ours[held]) == sorted(work.padded.inputs.numpy()[seen])
        if name == "bert-tiny":
            theirs = work.padded.targets.numpy()
            mine = work.ours.targets.numpy()
            assert sorted(mine[mine != NO_TARGET]) == sorted(theirs[theirs != NO_TARGET])
        if lengths == "full":
            assert seen.all() and work.ours.whole_rows


@pytest.mark.parametrize("name", ["bert-tiny", "gpt2-tiny"])
def test_both_models_are_of_one_size_and_start_at_the_loss_of_a_guess(name: str) -> None:
    recipe = toy(name)
    settings, data = Settings(recipe, "float32"), works(recipe, None, "full", rows=2, count=1)
    mine, other = Ours(settings, data), Theirs(settings, data)
    assert mine.model.num_parameters() == sum(parameter.numel() for parameter in other.model.parameters())
    loss = other.model(**other.batches[0]).loss
    terms, _ = mine.model(mine.batches[0])
    own = sum(float(term.sum.detach()) / term.count for term in terms.values())
    guess = math.log(300) + (math.log(2) if len(recipe.objectives) > 1 else 0)
    assert abs(own - guess) < 0.3 and abs(float(loss.detach()) - guess) < 0.3


def test_a_training_case_gives_finite_figures_and_lands_in_the_readme(tmp_path: Path) -> None:
    given = "--shapes bert-tiny --lengths full --precision float32 --rows 2 --steps 1 --rounds 2 --threads 1"
    options = parser().parse_args(shlex.split(given))
    (case,) = cases(options)
    row = measure(dataclasses.replace(case, recipe=toy("bert-tiny")), None)
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"] and row["our_peak_bytes"] > 0
    results = {"machine": report.machine() | {"load_before": 0.0}, "pretrain": [row], "prepare": "a  table"}
    json.dumps(results)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_readme(results, readme)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert f"{row['ratio']:.2f}x" in text and torch.__version__ in text


def test_the_readme_of_the_benches_has_a_place_for_results() -> None:
    text = report.README.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1


def test_the_loader_is_measured_beside_its_trainer(wordpiece_store: Store) -> None:
    recipe = toy("bert-tiny")
    loader = loader_for(recipe, wordpiece_store, rows=4)
    rounds = []
    row = measure_loader(recipe, loader, 2, 0.05, 1, lambda: rounds.append(1))
    assert len(rounds) == 2 and all(math.isfinite(v) and v > 0 for v in row.values() if isinstance(v, float))


def test_a_length_brings_its_number_of_targets() -> None:
    assert with_length(recipes.get("bert-base"), 512).noise.max_targets == 77
