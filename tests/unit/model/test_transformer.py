"""The Transformer: sizes and initial weights as published, decoding with a cache, what it refuses."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from elision import recipes
from elision.data.batch import collate
from elision.data.example import Example
from elision.errors import InputError
from elision.model.init import NormalInit
from elision.model.language_model import LanguageModel
from elision.model.position import LearnedPositions
from tests import tiny


def on_meta(name: str, vocab_size: int) -> LanguageModel:
    """Build a published model without its memory."""
    recipe = recipes.get(name)
    with torch.device("meta"):
        return LanguageModel(recipe.backbone, recipe.objectives, vocab_size)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "vocab_size", "backbone"),
    [
        ("bert-base", 30522, 109_482_240),
        ("bert-base", 28996, 108_310_272),
        ("bert-large", 30522, 335_141_888),
        ("gpt2-small", 50257, 124_439_808),
        ("gpt2-medium", 50257, 354_823_168),
        ("gpt2-large", 50257, 774_030_080),
        ("gpt2-xl", 50257, 1_557_611_200),
    ],
)
def test_backbones_have_as_many_parameters_as_published(name: str, vocab_size: int, backbone: int) -> None:
    assert count(on_meta(name, vocab_size).backbone) == backbone


def test_the_heads_of_bert_base_add_as_many_parameters_as_published() -> None:
    model = on_meta("bert-base", 30522)
    assert count(model.heads) == 624_188
    assert model.num_parameters() == 109_482_240 + 624_188


def test_the_head_of_gpt2_has_no_parameters_of_its_own() -> None:
    assert count(on_meta("gpt2-small", 50257).heads) == 0


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads"),
    [
        ("bert-tiny", 2, 128, 2), ("bert-mini", 4, 256, 4), ("bert-small", 4, 512, 8), ("bert-medium", 8, 512, 8),
        ("bert-base", 12, 768, 12), ("bert-large", 24, 1024, 16),
        ("gpt2-small", 12, 768, 12), ("gpt2-medium", 24, 1024, 16), ("gpt2-large", 36, 1280, 20),
        ("gpt2-xl", 48, 1600, 25),
    ],
)  # fmt: skip
def test_published_shapes(name: str, layers: int, width: int, heads: int) -> None:
    backbone = recipes.get(name).backbone
    assert (backbone.num_layers, backbone.hidden_size, backbone.num_heads) == (layers, width, heads)
    assert backbone.feedforward_size == 4 * width


def built(name: str, **settings: object) -> LanguageModel:
    """Build a model wide enough that the spread of each of its tensors can be measured."""
    recipe = tiny.recipe(name, num_layers=3, hidden_size=128, feedforward_size=512, num_positions=128, **settings)
    torch.manual_seed(0)
    return LanguageModel(recipe.backbone, recipe.objectives, 500)


def test_every_tensor_of_bert_starts_as_in_the_released_code() -> None:
    """Truncated normal with std 0.02, which leaves 0.88 of it; biases 0, norms 1 and 0."""
    spread = 0.02 * 0.8796
    for name, tensor in built("bert-tiny").named_parameters():
        if tensor.dim() > 1:
            expected_error = spread / math.sqrt(2 * tensor.numel())
            assert float(tensor.std()) == pytest.approx(spread, abs=6 * expected_error), name
            assert abs(float(tensor.mean())) < 5 * spread / math.sqrt(tensor.numel()), name
            assert float(tensor.abs().max()) <= 0.04, name
        elif "norm" in name and name.endswith("weight"):
            assert (tensor == 1).all(), name
        else:
            assert not tensor.any(), name


def test_every_tensor_of_gpt2_starts_as_in_the_paper() -> None:
    """Normal with std 0.02, positions 0.01, what writes into the residual stream 0.02 / sqrt(2 L)."""
    model = built("gpt2-tiny")
    spreads = {}
    for name, tensor in model.named_parameters():
        if tensor.dim() > 1:
            spread = 0.02
            if name == "backbone.embeddings.positions.table.weight":
                spread = 0.01
            elif name.endswith(("attention.output.weight", "feedforward.output.weight")):
                spread = 0.02 / math.sqrt(2 * 3)
            spreads[spread] = spreads.get(spread, 0) + 1
            error = 6 * spread / math.sqrt(2 * tensor.numel())
            assert float(tensor.std()) == pytest.approx(spread, abs=error), name
        elif "norm" in name and name.endswith("weight"):
            assert (tensor == 1).all(), name
        else:
            assert not tensor.any(), name
    # Tokens, and in each of three blocks one fused and one inner projection; two that write into the residual stream.
    assert spreads == {0.02: 7, 0.01: 1, 0.02 / math.sqrt(6): 6}
    assert float(model.backbone.embeddings.tokens.weight.detach().abs().max()) > 0.06, "not truncated"


def test_initial_weights_are_a_function_of_the_seed() -> None:
    one, two = built("bert-tiny").state_dict(), built("bert-tiny").state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_truncated_normal_is_cut_at_two_standard_deviations() -> None:
    tensor = torch.empty(200_000)
    torch.manual_seed(0)
    NormalInit(std=0.5, truncated=True).weight_(tensor, 0.5)
    assert float(tensor.abs().max()) <= 1.0
    assert float(tensor.std()) == pytest.approx(0.8796 * 0.5, rel=0.01)


def test_decoding_with_a_cache_equals_one_full_pass() -> None:
    """Whole at once, token by token, and in pieces: the same states, past the first growth of the buffers."""
    recipe = tiny.recipe("gpt2-tiny", num_positions=200, dropout=0.0, attention_dropout=0.0)
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 50).double().eval()
    tokens = torch.randint(50, (2, 150))
    examples = [Example(row.numpy(), np.zeros(150, bool)) for row in tokens]
    with torch.no_grad():
        full = model.backbone(collate(examples, pad_id=0, packing=False)).hidden
        for pieces in ([150], [1] * 150, [70, 1, 60, 19]):
            cache, states, at = model.backbone.cache(), [], 0
            for length in pieces:
                states.append(model.backbone.continue_with(tokens[:, at : at + length], cache))
                at += length
                assert cache.length == at
            torch.testing.assert_close(torch.cat(states, 1), full, rtol=1e-10, atol=1e-10)


def test_a_cache_can_be_reordered_to_follow_chosen_rows() -> None:
    recipe = tiny.recipe("gpt2-tiny", dropout=0.0)
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 50).double().eval()
    tokens = torch.randint(50, (3, 6))
    with torch.no_grad():
        cache = model.backbone.cache()
        model.backbone.continue_with(tokens, cache)
        cache.reorder(torch.tensor([2, 2, 0, 1]))
        continued = model.backbone.continue_with(torch.full((4, 1), 7), cache)
        fresh = model.backbone.cache()
        model.backbone.continue_with(tokens[[2, 2, 0, 1]], fresh)
        expected = model.backbone.continue_with(torch.full((4, 1), 7), fresh)
    torch.testing.assert_close(continued, expected)


def test_without_segments_everything_is_the_first() -> None:
    recipe = tiny.recipe("bert-tiny", dropout=0.0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 50).eval()
    bare = Example(np.array([2, 9, 8, 3]), np.zeros(4, bool))
    typed = dataclasses.replace(bare, type_ids=np.zeros(4, np.int64))
    with torch.no_grad():
        one, two = (model.backbone(collate([example], pad_id=0)).hidden for example in (bare, typed))
    torch.testing.assert_close(one, two)


def test_post_norm_states_have_mean_zero_and_variance_one_at_the_start() -> None:
    recipe = tiny.recipe("bert-tiny", dropout=0.0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 50).eval()
    batch = collate([Example(np.arange(10, 20), np.zeros(10, bool))], pad_id=0)
    with torch.no_grad():
        hidden = model.backbone(batch).hidden
    torch.testing.assert_close(hidden.mean(-1), torch.zeros(1, 10), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.var(-1, correction=0), torch.ones(1, 10), atol=1e-3, rtol=0)


def test_flops_count_two_for_each_weight_and_token_and_three_passes() -> None:
    """Against a count from the weights: 6 N a token, plus the scores; the tables are looked up, not multiplied."""
    recipe = tiny.recipe("gpt2-tiny")
    model = LanguageModel(recipe.backbone, recipe.objectives, 50)
    width, length = recipe.backbone.hidden_size, 16
    batch = collate(
        [Example(np.arange(length), np.zeros(length, bool), targets=np.arange(length))], pad_id=0, row_length=length
    )
    products = sum(p.numel() for name, p in model.backbone.blocks.named_parameters() if p.dim() > 1)
    products += model.backbone.embeddings.tokens.weight.numel()
    # Causal: half of the scores and of the mixing.
    attention = recipe.backbone.num_layers * 2 * length * width / 2
    assert model.num_flops(batch) == pytest.approx(6 * length * (products + attention))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 30, "num_heads": 4}, "hidden_size 30 is not a multiple of num_heads 4"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(recipes.get("bert-tiny").backbone, **settings)


def test_a_sequence_longer_than_the_position_table_is_refused() -> None:
    backbone = dataclasses.replace(recipes.get("bert-tiny").backbone, positions=LearnedPositions(8))
    backbone.check_length(8)
    with pytest.raises(InputError, match="9 tokens is longer than the position table of 8"):
        backbone.check_length(9)
    assert recipes.get("bert-tiny").backbone.max_length == 512
