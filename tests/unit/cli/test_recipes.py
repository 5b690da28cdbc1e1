import dataclasses
import json

import pytest

from elision import recipes
from elision.cli.recipes import export_class, main
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.show.cost import cost_of
from elision.show.parts import field_docs, parts_of


def test_the_table_lists_every_recipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main([]) == 0
    words = capsys.readouterr().out.split()
    assert all(name in words for name in recipes.names())


def test_a_size_says_how_it_differs_from_the_first_of_its_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main([])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.split("\n") if line.split()}
    assert lines["bert-base-whole-word"].split()[-1] == "whole_words"
    assert lines["bert-base"].split()[-1] == "128"


def test_json_holds_the_published_parameter_counts(capsys):
    assert main(["--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(found) == recipes.names()
    # With both heads, as in BertForPreTraining; GPT-2 with its tied table.
    assert found["bert-base"]["num_parameters"] == 110_106_428
    assert found["gpt2-small"]["num_parameters"] == 124_439_808
    assert found["gpt2-xl"]["num_parameters"] == 1_557_611_200


def test_recipes_name_the_class_that_they_export_as(capsys):
    main(["--json"])
    found = {entry["name"]: entry["exports_as"] for entry in json.loads(capsys.readouterr().out)}
    assert (found["bert-base"], found["gpt2-small"]) == ("BertForPreTraining", "GPT2LMHeadModel")
    bert = recipes.get("bert-tiny")
    odd = dataclasses.replace(bert, backbone=dataclasses.replace(bert.backbone, norm="pre"))
    assert export_class(odd) is None


def test_parameters_without_memory_are_those_of_the_real_model():
    recipe = recipes.get("gpt2-tiny")
    model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size)
    assert cost_of(recipe).num_parameters == model.num_parameters()


def test_flops_are_three_times_the_forward_pass_of_stack_and_head():
    recipe = recipes.get("gpt2-tiny")
    width, length, vocab_size = recipe.backbone.hidden_size, recipe.segmenter.max_length, recipe.tokenizer.vocab_size
    forward = recipe.backbone.flops_per_token(length) + 2 * width * vocab_size
    assert cost_of(recipe).flops_per_token == pytest.approx(3 * forward)


def test_only_places_with_a_target_pay_for_the_vocabulary():
    recipe = recipes.get("bert-tiny")
    sparse, dense = (
        cost_of(dataclasses.replace(recipe, noise=dataclasses.replace(recipe.noise, rate=rate, max_targets=None)))
        for rate in (0.125, 0.25)
    )
    width, vocab_size = recipe.backbone.hidden_size, recipe.tokenizer.vocab_size
    difference = dense.flops_per_token - sparse.flops_per_token
    # The last block, after attention, works only on places that are read, so a target pays for that part of it too.
    vocabulary, last_block = 2 * width * (vocab_size + width), recipe.backbone.skippable_flops
    assert difference == pytest.approx(3 * 0.125 * (vocabulary + last_block))


def test_one_recipe_is_told_with_its_paper_all_settings_and_the_commands(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["bert-tiny"]) == 0
    out = capsys.readouterr().out
    assert "Devlin" in out and "elision pretrain bert-tiny" in out
    for part in parts_of(recipes.get("bert-tiny")):
        assert part.name in out
        assert all(f"{name} = " in out for name in part.settings)
        for doc in field_docs(part.kind).values():
            assert doc.split(";")[0] in out


def test_one_recipe_as_json_can_be_read_back(capsys):
    from elision.recipe import Recipe

    assert main(["gpt2-tiny", "--json"]) == 0
    assert Recipe.from_dict(json.loads(capsys.readouterr().out)["settings"]) == recipes.get("gpt2-tiny")


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'gpt2-tiny'"):
        main(["gpt2-tinny"])


def test_the_layers_of_an_encoder_and_its_decoder_are_told_apart(capsys):
    main(["--json"])
    found = {entry["name"]: entry["num_layers"] for entry in json.loads(capsys.readouterr().out)}
    assert (found["bart-base"], found["gpt2-small"]) == ("6 + 6", 12)
