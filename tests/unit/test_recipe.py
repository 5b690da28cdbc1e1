"""Recipes: parts that do not fit are refused with the reason; JSON in and out names what is wrong."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from elision import recipes
from elision.data.noise import NextToken, TokenMask
from elision.data.segment import Chunks
from elision.errors import InputError
from elision.model.position import LearnedPositions
from elision.objectives import CausalLM, MaskedLM, NextSentence
from elision.recipe import Recipe
from elision.train.optim import AdamW

BERT, GPT2 = recipes.get("bert-tiny"), recipes.get("gpt2-tiny")


def test_every_size_of_a_paper_is_listed_in_the_order_of_its_file() -> None:
    names = recipes.names()
    assert len(set(names)) == len(names)
    bert = [name for name in names if name.startswith("bert-")]
    assert bert[:6] == ["bert-tiny", "bert-mini", "bert-small", "bert-medium", "bert-base", "bert-large"]
    assert "bert-base-whole-word" in bert
    assert [name for name in names if name.startswith("gpt2-")][-4:] == [
        "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["bert-base", "bert_base", "BERT/base", "bert:base", " bert.base "])
def test_a_name_may_be_spelt_with_other_separators(name: str) -> None:
    assert recipes.get(name) == recipes.get("bert-base")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bert-bsae", "Did you mean 'bert-base'?"),
        ("gpt2-smal", "Did you mean 'gpt2-small'?"),
        ("bert", "Its sizes are: bert-tiny, bert-mini"),
        ("gpt2", "Its sizes are: gpt2-tiny"),
    ],
)
def test_an_unknown_recipe_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InputError) as refusal:
        recipes.get(name)
    assert f"There is no recipe {name!r}." in str(refusal.value) and hint in str(refusal.value)


def test_a_recipe_with_nothing_near_gets_no_silly_suggestion() -> None:
    with pytest.raises(InputError) as refusal:
        recipes.get("zzzzqqq")
    assert "Did you mean" not in str(refusal.value) and "elision recipes" in str(refusal.value)


def test_whole_word_recipes_differ_in_name_and_noise_alone() -> None:
    plain, whole = recipes.get("bert-base"), recipes.get("bert-base-whole-word")
    assert whole.noise == dataclasses.replace(plain.noise, whole_words=True)
    assert dataclasses.replace(whole, name=plain.name, noise=plain.noise) == plain


@pytest.mark.parametrize(
    ("recipe", "parts", "message"),
    [
        (BERT, {"segmenter": dataclasses.replace(BERT.segmenter, max_length=513)},
         "segmenter.max_length is 513, but backbone.positions.num_positions is 512"),
        (BERT, {"objectives": ()}, "objectives is empty"),
        (BERT, {"backbone": dataclasses.replace(BERT.backbone, num_types=1)}, "set backbone.num_types to 2"),
        (BERT, {"noise": NextToken(), "objectives": (NextSentence(),)}, "NextToken needs a segmenter that can hand over"),
        (BERT, {"segmenter": Chunks(max_length=128)}, "NextSentence needs 2 labels for each example, but Chunks gives none"),
        (BERT, {"objectives": (CausalLM(),)}, "CausalLM restores next tokens, but TokenMask leaves out masked ones"),
        (GPT2, {"objectives": (MaskedLM(),)}, "MaskedLM restores masked tokens, but NextToken leaves out next ones"),
        (GPT2, {"backbone": dataclasses.replace(GPT2.backbone, visibility="bidirectional")},
         "CausalLM needs backbone.visibility 'causal', not 'bidirectional'"),
        (GPT2, {"noise": TokenMask(), "objectives": (MaskedLM(),)},
         "MaskedLM needs backbone.visibility 'bidirectional', not 'causal'"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused_with_the_reason(recipe: Recipe, parts: dict, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        dataclasses.replace(recipe, **parts)
    assert message in str(refusal.value)


def test_parts_of_different_papers_that_fit_do_combine() -> None:
    mixed = dataclasses.replace(
        BERT, name="chunked", segmenter=Chunks(max_length=128), objectives=(MaskedLM(),), train=GPT2.train
    )
    assert Recipe.from_dict(mixed.to_dict()) == mixed


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """Return BERT-tiny as plain values with one of them set."""
    values = json.loads(json.dumps(BERT.to_dict()))
    at = values
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["backbone", "num_layer"], 3,
         "recipe.backbone.num_layer is not a field of Transformer. Did you mean 'num_layers'?"),
        (["trian"], {}, "recipe.trian is not a field of Recipe. Did you mean 'train'?"),
        (["train", "optimizer", "lr"], 0.1, "recipe.train.optimizer.lr is not a field of AdamW."),
        (["noise", "type"], "TokenMsk",
         "recipe.noise.type is 'TokenMsk': expected one of"),
        (["backbone", "type"], "LSTM", "recipe.backbone.type is 'LSTM': expected"),
        (["backbone", "num_layers"], "two", "recipe.backbone.num_layers is 'two': expected int"),
        (["backbone", "num_layers"], 2.5, "recipe.backbone.num_layers is 2.5: expected int"),
        (["backbone", "num_layers"], True, "recipe.backbone.num_layers is True: expected int"),
        (["backbone", "pooler"], 1, "recipe.backbone.pooler is 1: expected bool"),
        (["backbone", "norm"], "middle", "recipe.backbone.norm is 'middle': expected one of 'post', 'pre'"),
        (["backbone", "positions"], 512, "recipe.backbone.positions.type is None: expected one of LearnedPositions"),
        (["objectives"], {}, "recipe.objectives is {}: expected a list"),
        (["objectives", 0, "wieght"], 1.0, "recipe.objectives[0].wieght is not a field of MaskedLM. Did you mean 'weight'?"),
        (["train", "eval_every"], "often", "recipe.train.eval_every is 'often'"),
        (["train", "steps"], 0, "train.steps is 0: it must be at least 1"),
        (["segmenter", "max_length"], 9999, "segmenter.max_length is 9999"),
    ],
)  # fmt: skip
def test_json_that_is_wrong_is_named_to_the_field(path: list[Any], value: Any, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        Recipe.from_dict(changed(path, value))
    assert message in str(refusal.value)


def test_a_missing_field_is_named_and_one_with_a_default_may_be_left_out() -> None:
    values = BERT.to_dict()
    del values["backbone"]["num_layers"]
    with pytest.raises(InputError, match=r"recipe\.backbone\.num_layers is missing: Transformer needs it"):
        Recipe.from_dict(values)
    values = BERT.to_dict()
    del values["noise"]["rate"]
    assert Recipe.from_dict(values) == BERT


def test_whole_numbers_serve_where_a_fraction_is_expected() -> None:
    assert Recipe.from_dict(changed(["backbone", "dropout"], 0)).backbone.dropout == 0.0


def test_none_and_long_fractions_survive() -> None:
    odd = dataclasses.replace(
        BERT, train=dataclasses.replace(BERT.train, optimizer=AdamW(learning_rate=0.1 + 0.2), eval_every=7)
    )
    assert Recipe.from_dict(json.loads(json.dumps(odd.to_dict()))) == odd
    assert odd.train.microbatch_size is None


def test_recipes_are_saved_and_loaded(tmp_path: Path) -> None:
    BERT.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == BERT


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no recipe at"), (b"{", "it is not JSON"), (b"\xff\xfe", "it is not JSON"),
     (b"[]", "expected a JSON object")],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        Recipe.load(path)
    assert message in str(refusal.value) and str(path) in str(refusal.value)


def test_recipes_are_frozen_and_equal_by_value() -> None:
    assert recipes.get("bert-tiny") == BERT and hash(BERT) == hash(recipes.get("bert-tiny"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        BERT.name = "other"
    assert LearnedPositions(8) != LearnedPositions(9)


def test_override_changes_fields_by_dotted_name() -> None:
    recipe = recipes.get("bert-tiny")
    changed = recipe.override({"train.steps": 7, "backbone.init.std": 0.05, "objectives.1.weight": 0.5})
    assert (changed.train.steps, changed.backbone.init.std, changed.objectives[1].weight) == (7, 0.05, 0.5)
    assert (
        changed.override({"train.steps": recipe.train.steps, "backbone.init.std": 0.02, "objectives.1.weight": 1.0})
        == recipe
    )


@pytest.mark.parametrize("name", ["train.stepps", "objectives.2.weight", "objectives.x", "name.length", "nothing"])
def test_override_names_an_unknown_field(name: str) -> None:
    with pytest.raises(InputError, match=f"has no field '{name}'"):
        recipes.get("bert-tiny").override({name: 1})


def test_override_checks_values() -> None:
    with pytest.raises(InputError, match=r"recipe\.train\.steps is 'many': expected int"):
        recipes.get("bert-tiny").override({"train.steps": "many"})
    with pytest.raises(InputError, match="max_length is 1024"):
        recipes.get("bert-tiny").override({"segmenter.max_length": 1024})
