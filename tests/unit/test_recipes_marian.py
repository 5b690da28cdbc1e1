"""Marian: its sizes, how it is trained, and a start symbol that is nothing."""

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import elision
from elision import recipes
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.data.segment import SourceTarget
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.model.position import SinusoidalPositions
from elision.train.optim import AdamW
from tests import tiny
from tests.parity import reference


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("marian-tiny", 1_957_696),
        ("marian-base", 60_554_496),
        ("marian-big", 209_157_376),
        # Helsinki-NLP/opus-mt-en-de, without its tables of sines.
        ("marian-opus-en-de", 73_944_309),
    ],
)
def test_every_size_has_its_parameters(name: str, expected: int) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size)
    assert model.num_parameters() == expected


def test_the_base_is_marians_task_of_that_name() -> None:
    recipe = recipes.get("marian-base")
    for side, sees in ((recipe.backbone.encoder, "bidirectional"), (recipe.backbone.decoder, "causal")):
        assert (side.num_layers, side.hidden_size, side.num_heads, side.feedforward_size) == (6, 512, 8, 2048)
        assert (side.norm, side.activation, side.visibility, side.dropout) == ("post", "relu", sees, 0.1)
        assert side.scale_embeddings and not side.embedding_norm and not side.final_norm and side.biases == "all"
        assert side.positions == SinusoidalPositions(512, layout="halves", divisor="half")
    (objective,) = recipe.objectives
    assert objective.bias and objective.tied and objective.label_smoothing == 0.1
    optimizer, schedule = recipe.train.optimizer, recipe.train.schedule
    assert optimizer == AdamW(learning_rate=3e-4, beta2=0.98, eps=1e-9, weight_decay=0.0, clip_norm=0.0)
    rates = [schedule.share(step, 300_000) for step in (0, 7999, 16_000, 64_000)]
    assert rates == pytest.approx([1 / 16_000, 1 / 2, 1.0, 1 / 2], rel=1e-3)
    big = recipes.get("marian-big")
    assert (big.train.optimizer.learning_rate, big.train.schedule.warmup) == (2e-4, 8000)
    assert big.backbone.encoder.feedforward_size == 4096 and big.backbone.encoder.num_heads == 16
    assert recipes.get("marian-opus-en-de").backbone.decoder.activation == "silu"


def test_positions_are_all_sines_before_all_cosines_over_half_the_width() -> None:
    table = recipes.get("marian-base").backbone.encoder.positions.build(512).table
    for place, channel in ((0, 0), (1, 0), (7, 3), (511, 255)):
        angle = place / 10_000 ** (2 * channel / 512)
        assert float(table[place, channel]) == pytest.approx(math.sin(angle), abs=1e-6)
        assert float(table[place, 256 + channel]) == pytest.approx(math.cos(angle), abs=1e-6)


def small(vocab_size: int = 50) -> LanguageModel:
    recipe = tiny.recipe("marian-tiny")
    torch.manual_seed(0)
    return LanguageModel(recipe.backbone, recipe.objectives, vocab_size)


def batch_of(pad: int) -> Batch:
    source, answer = np.arange(5, 12), np.arange(20, 26)
    example = Example(source, source < 0, decoder_inputs=np.append(pad, answer[:-1]), targets=answer)
    return collate([example], pad_id=pad)


@pytest.mark.parametrize("made", ["new", "copied", "loaded"])
def test_the_vector_of_the_padding_is_zero_and_stays_so_in_training(made: str, tmp_path: Path) -> None:
    model = small()
    if made == "copied":
        model = copy.deepcopy(model)
    elif made == "loaded":
        tokenizer = tiny.tokenizer(tiny.recipe("marian-tiny").tokenizer)
        reference.save_checkpoint(tmp_path / "run", tiny.recipe("marian-tiny"), tokenizer)
        model = elision.load(tmp_path / "run").model
    table = model.backbone.embeddings.tokens.weight
    before = table.detach().clone()
    if made != "loaded":
        assert not before[-1].any() and before[:-1].any(1).all()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model.train()
    for _ in range(3):
        terms, _ = model(batch_of(pad=len(table) - 1))
        terms["seq2seq"].sum.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(table[-1], before[-1])
    assert (table[:-1] != before[:-1]).any(1).all()
    assert model.heads["seq2seq"].bias[-1] < 0, "the bias learns that it is never written"


def test_another_start_symbol_is_a_vector_like_others() -> None:
    recipe = tiny.recipe("marian-tiny")
    backbone = dataclasses.replace(recipe.backbone, start="pad")
    model = LanguageModel(backbone, recipe.objectives, 50)
    terms, _ = model(batch_of(pad=49))
    terms["seq2seq"].sum.backward()
    table = model.backbone.embeddings.tokens.weight
    assert table[-1].any() and table.grad[-1].any()


def test_a_tokenizer_whose_padding_is_not_its_last_symbol_is_refused_with_what_to_do() -> None:
    recipe = recipes.get("marian-tiny")
    with pytest.raises(InputError, match=r"symbol 0: train one with .*--layout marian"):
        recipe.answers(tiny.vocabulary(100))
    last = dataclasses.replace(tiny.vocabulary(100), pad=99)
    assert recipe.answers(last).start == 99


def test_the_weights_begin_as_glorots_with_queries_keys_and_values_apart() -> None:
    recipe = tiny.recipe("marian-tiny", hidden_size=64, feedforward_size=128)
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 1000)
    bounds = {
        "attention.query_key_value": math.sqrt(6 / 128),
        "attention.output": math.sqrt(6 / 128),
        "cross_attention.query": math.sqrt(6 / 128),
        "cross_attention.key_value": math.sqrt(6 / 128),
        "feedforward.inner": math.sqrt(6 / 192),
        "feedforward.output": math.sqrt(6 / 192),
    }
    block = model.backbone.decoder.blocks[0]
    for name, bound in bounds.items():
        linear = block.get_submodule(name)
        assert 0.95 * bound < float(linear.weight.detach().abs().max()) <= bound
        assert float(linear.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not linear.bias.any()
    assert float(model.backbone.embeddings.tokens.weight.detach().std()) == pytest.approx(1 / 8, rel=0.05)


def test_pairs_of_up_to_a_hundred_tokens_a_side_are_read() -> None:
    assert recipes.get("marian-base").segmenter == SourceTarget(max_length=101, too_long="leave out")
