"""T5, T5 v1.1, mT5 and MASS: the sizes of their papers, how their weights start, what positions do, how long texts are."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from elision import recipes
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.data.noise import SpanCorruption
from elision.model.encoder_decoder import EncoderDecoderModel
from elision.model.language_model import LanguageModel
from elision.model.position import RelativePositions, buckets
from elision.recipe import Recipe
from elision.train.adafactor import Adafactor
from tests import tiny

# The released tables have rows that no symbol uses: 32,128 and 250,112.
T5_ROWS, MT5_ROWS = 32_128, 250_112


@pytest.mark.parametrize(("name", "num_rows", "expected"), [
    ("t5-small", T5_ROWS, 60_506_624),
    ("t5-base", T5_ROWS, 222_903_552),
    ("t5-large", T5_ROWS, 737_668_096),
    ("t5-xl", T5_ROWS, 2_851_598_336),
    ("t5-xxl", T5_ROWS, 11_307_321_344),
    ("t5-v1-1-small", T5_ROWS, 76_961_152),
    ("t5-v1-1-base", T5_ROWS, 247_577_856),
    ("t5-v1-1-large", T5_ROWS, 783_150_080),
    ("t5-v1-1-xl", T5_ROWS, 2_849_757_184),
    ("t5-v1-1-xxl", T5_ROWS, 11_135_332_352),
    ("mt5-small", MT5_ROWS, 300_176_768),
    ("mt5-base", MT5_ROWS, 582_401_280),
    ("mt5-large", MT5_ROWS, 1_229_581_312),
    ("mt5-xl", MT5_ROWS, 3_742_619_648),
    ("mt5-xxl", MT5_ROWS, 12_921_057_280),
])  # fmt: skip
def test_every_size_has_the_parameters_of_the_released_model(name: str, num_rows: int, expected: int) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        model = LanguageModel(recipe.backbone, recipe.objectives, num_rows)
    assert model.num_parameters() == expected


@pytest.mark.parametrize(("name", "lengths"), [
    ("t5-base", (512, 114)), ("t5-v1-1-xl", (512, 114)), ("mt5-large", (1024, 229)), ("t5-tiny", (128, 29)),
])  # fmt: skip
def test_examples_fill_the_published_lengths_exactly(name: str, lengths: tuple[int, int]) -> None:
    recipe = recipes.get(name)
    assert isinstance(recipe.noise, SpanCorruption)
    assert recipe.noise.lengths(recipe.segmenter.max_length) == lengths
    assert recipe.noise.num_sentinels(recipe.segmenter.max_length) <= recipe.tokenizer.num_sentinels == 100
    assert not recipe.segmenter.separated


@pytest.mark.parametrize("name", ["t5-base", "t5-v1-1-base", "mt5-base"])
def test_the_learning_rate_is_the_reciprocal_root_of_the_step_from_ten_thousand_on(name: str) -> None:
    train = recipes.get(name).train
    assert isinstance(train.optimizer, Adafactor) and train.optimizer.parameter_scaled
    rates = [
        train.optimizer.learning_rate * train.schedule.share(step, train.steps) for step in (0, 9999, 10**4, 10**6)
    ]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.001])


def shaped(name: str, **settings: object) -> Recipe:
    exact = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return tiny.shrunk(recipes.get(name), **exact, **settings)


@pytest.mark.parametrize("name", ["t5-small", "t5-v1-1-small"])
def test_weights_start_with_the_spread_of_the_released_code(name: str) -> None:
    recipe = shaped(name, hidden_size=64, feedforward_size=256, num_heads=4, head_size=24)
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 2000)
    width = 4 * 24
    for tensor, parameter in model.named_parameters():
        if "norm" in tensor:
            assert (parameter == 1).all()
        elif tensor == "backbone.encoder.embeddings.tokens.weight":
            assert abs(parameter.std() - 1) < 0.01
        elif tensor.endswith("bias.table.weight"):
            assert abs(parameter.std() * 8 - 1) < 0.2, tensor
        elif tensor.endswith("query_key_value.weight"):
            assert abs(parameter[:width].std() * math.sqrt(64 * 24) - 1) < 0.05
            assert abs(parameter[width:].std() * 8 - 1) < 0.05
        elif tensor.endswith("cross_attention.query.weight"):
            assert abs(parameter.std() * math.sqrt(64 * 24) - 1) < 0.05
        elif tensor.endswith("attention.output.weight"):
            assert abs(parameter.std() * math.sqrt(width) - 1) < 0.05
        elif tensor.endswith("feedforward.output.weight"):
            assert abs(parameter.std() * 16 - 1) < 0.05
        else:
            assert tensor.endswith(("inner.weight", "gate.weight", "key_value.weight", "seq2seq.table.weight")), tensor
            assert abs(parameter.std() * 8 - 1) < 0.05, tensor
    # So an untrained model is about as wrong as one that knows nothing.
    assert ("heads.seq2seq.table.weight" in dict(model.named_parameters())) == (name == "t5-v1-1-small")


@pytest.mark.parametrize("name", ["t5-tiny", "t5-v1-1-tiny"])
def test_an_untrained_model_is_about_as_wrong_as_one_that_knows_nothing(name: str) -> None:
    recipe = shaped(name, hidden_size=64, feedforward_size=128)
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 1000)
    model.eval()
    term = model(batch_of(30, 40, seed=1))[0]["seq2seq"]
    assert abs(float(term.sum.detach()) / term.count - math.log(1000)) < 0.9


def test_buckets_of_distances_are_those_of_the_paper() -> None:
    seen = {offset: int(buckets(torch.tensor(offset), True, 32, 128)) for offset in range(-300, 301)}
    # 16 for keys that come before, the query itself among them, and 16 for those after.
    assert [seen[-n] for n in (0, 1, 7, 8, 15, 16)] == [0, 1, 7, 8, 9, 10]
    assert all(seen[offset] == seen[-offset] + 16 for offset in range(1, 301))
    assert min(offset for offset in range(301) if seen[-offset] == 15) == 91
    causal = {n: int(buckets(torch.tensor(-n), False, 32, 128)) for n in range(-5, 301)}
    assert [causal[n] for n in (-5, 0, 1, 15, 16)] == [0, 0, 1, 15, 16]
    assert min(n for n in range(301) if causal[n] == 31) == 113
    assert max(causal.values()) == 31


def batch_of(source: int, answer: int, rows: int = 2, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(rows):
        inputs, target = rng.integers(10, 290, source), rng.integers(10, 290, answer)
        made = Example(inputs, np.zeros(source, bool), answer=target)
        made = dataclasses.replace(made, decoder_inputs=np.append(0, target[:-1]), targets=target)
        examples.append(made)
    return collate(examples, pad_id=0, packing=False)


def exact_model(name: str) -> LanguageModel:
    recipe = shaped(name)
    torch.manual_seed(0)
    return LanguageModel(recipe.backbone, recipe.objectives, 300).double().eval()


@pytest.mark.parametrize("name", ["t5-tiny", "t5-v1-1-tiny"])
def test_scores_are_the_bare_products_plus_the_bias_and_the_bias_is_that_of_every_layer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kept = exact_model(name), []
    given = F.scaled_dot_product_attention

    def watched(query, key, value, **settings):
        kept.append(settings)
        return given(query, key, value, **settings)

    # One query at a time goes by PyTorch's own kernel: what it is given is all there is to the scores.
    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    backbone = model.backbone
    assert isinstance(backbone, EncoderDecoderModel)
    cache = backbone.read(batch_of(6, 1))
    kept.clear()
    with torch.no_grad():
        for token in range(12, 22):
            backbone.continue_with(torch.full((2, 1), token), cache)
    assert all(settings["scale"] == 1.0 for settings in kept)
    biases = [settings["attn_mask"] for settings in kept if settings["attn_mask"] is not None]
    # Layers of one step follow each other; attention to the source has no bias.
    assert len(biases) == 2 * 10 and len(kept) == 2 * len(biases)
    for one, other in zip(biases[::2], biases[1::2]):
        assert torch.equal(one, other)
    table = backbone.decoder.bias.table.weight
    last = biases[-1]
    torch.testing.assert_close(last[0, :, 0], table[buckets(torch.arange(10) - 9, False, 32, 128)].T)


@pytest.mark.parametrize("name", ["t5-tiny", "t5-v1-1-tiny"])
def test_the_bias_depends_on_nothing_but_the_distance(name: str) -> None:
    backbone = exact_model(name).backbone
    for side, both_ways in ((backbone.encoder, True), (backbone.decoder, False)):
        near = side.bias.bias(torch.arange(40), torch.arange(40), both_ways)
        far = side.bias.bias(torch.arange(1000, 1040), torch.arange(1000, 1040), both_ways)
        assert torch.equal(near, far)
        for offset in range(-39, 40):
            diagonal = near.diagonal(offset, 1, 2)
            assert (diagonal == diagonal[:, :1]).all()
        # One table for the stack: no block has one of its own.
        assert sum(tensor.endswith("bias.table.weight") for tensor, _ in side.named_parameters()) == 1


@pytest.mark.parametrize("name", ["t5-tiny", "t5-v1-1-tiny", "mt5-tiny"])
def test_texts_longer_than_those_of_training_are_read_and_written(name: str) -> None:
    recipe = shaped(name)
    assert recipe.backbone.max_length is None
    model = exact_model(name)
    with torch.no_grad():
        logits = model.logits(batch_of(700, 300, rows=1))
    assert logits.shape == (1, 300, 300) and torch.isfinite(logits).all()
    assert isinstance(recipe.backbone.encoder.positions, RelativePositions)


def test_v1_0_scores_by_the_token_table_over_smaller_states_and_v1_1_by_a_table_of_its_own() -> None:
    for name, tied in (("t5-tiny", True), ("t5-v1-1-tiny", False)):
        model, batch = exact_model(name), batch_of(5, 4)
        with torch.no_grad():
            states = model.backbone(batch).hidden
            table = model.backbone.embeddings.table if tied else model.heads["seq2seq"].table.weight
            expected = (states * 32**-0.5 if tied else states) @ table.T
            torch.testing.assert_close(model.logits(batch), expected)


def test_z_loss_acts_in_training_alone() -> None:
    model, batch = exact_model("t5-tiny"), batch_of(5, 4)
    plain = model(batch)[0]["seq2seq"].sum
    with torch.no_grad():
        log_z = model.logits(batch).logsumexp(-1)
    torch.testing.assert_close(model.train()(batch)[0]["seq2seq"].sum - plain, 1e-4 * log_z.square().sum())


def test_v1_1_and_mt5_drop_nothing_out_in_pretraining_and_v1_0_does_everywhere() -> None:
    for name, rate in (("t5-base", 0.1), ("t5-v1-1-base", 0.0), ("mt5-base", 0.0)):
        for side in (recipes.get(name).backbone.encoder, recipes.get(name).backbone.decoder):
            assert side.dropout == side.attention_dropout == side.activation_dropout == rate and side.final_dropout


def test_mt5_draws_languages_with_the_power_0_3() -> None:
    assert recipes.get("mt5-base").mixing.alpha == 0.3 and recipes.get("t5-v1-1-base").mixing is None


@pytest.mark.parametrize(("name", "layers", "width", "heads"), [
    ("mass-translation", 6, 1024, 8), ("mass-summarization", 6, 768, 12),
])  # fmt: skip
def test_mass_has_the_shapes_of_its_paper(name: str, layers: int, width: int, heads: int) -> None:
    recipe = recipes.get(name)
    for side in (recipe.backbone.encoder, recipe.backbone.decoder):
        assert (side.num_layers, side.hidden_size, side.num_heads) == (layers, width, heads)
        assert (side.norm, side.activation, side.norm_eps, side.embedding_norm) == ("post", "gelu", 1e-12, True)
    assert recipe.noise.rate == 0.5
