"""What the papers of GPT-1, GPT-2, GPT-3 and CTRL say of their models, held against the recipes."""

import dataclasses
import math
import statistics

import pytest
import torch

from elision import recipes
from elision.data.batch import Batch
from elision.data.ramp import BatchSizes
from elision.model.language_model import LanguageModel
from elision.model.position import sinusoids
from elision.train.schedule import Linear
from tests import tiny

COUNTS = {
    "gpt1-base": 116_534_784,
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "ctrl-seqlen256": 1_637_964_550,
    "ctrl-seqlen512": 1_637_964_550,
}

# Name: layers, width, heads, width of a head, tokens in a batch, rate, parameters as the paper's names round them.
GPT3 = {
    "gpt3-125m": (12, 768, 12, 64, 0.5e6, 6e-4, 125e6),
    "gpt3-350m": (24, 1024, 16, 64, 0.5e6, 3e-4, 350e6),
    "gpt3-760m": (24, 1536, 16, 96, 0.5e6, 2.5e-4, 760e6),
    "gpt3-1-3b": (24, 2048, 16, 128, 1e6, 2e-4, 1.3e9),
    "gpt3-2-7b": (32, 2560, 32, 80, 1e6, 1.6e-4, 2.7e9),
    "gpt3-6-7b": (32, 4096, 32, 128, 2e6, 1.2e-4, 6.7e9),
    "gpt3-13b": (40, 5120, 40, 128, 2e6, 1e-4, 13e9),
    "gpt3-175b": (96, 12288, 96, 128, 3.2e6, 0.6e-4, 175e9),
}


def meta(name: str) -> LanguageModel:
    recipe = recipes.get(name)
    with torch.device("meta"):
        return LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size)


def small(name: str, seed: int = 0, **settings: object) -> LanguageModel:
    recipe = tiny.recipe(name, dropout=0.0, attention_dropout=0.0, **settings)
    torch.manual_seed(seed)
    return LanguageModel(recipe.backbone, recipe.objectives, 300).eval()


def row(ids: torch.Tensor) -> Batch:
    length = ids.shape[1]
    return Batch(
        inputs=ids,
        positions=torch.arange(length)[None],
        doc_ids=torch.ones_like(ids),
        targets=torch.full_like(ids, -100),
        target_at=torch.empty(0, dtype=torch.long),
        summary_at=torch.tensor([length - 1]),
        num_targets=0,
        num_examples=1,
        num_tokens=length,
        whole_rows=True,
    )


def logits(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.vocabulary_logits(model.backbone.continue_with(ids, model.backbone.cache()))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_published_models_have(name: str) -> None:
    assert meta(name).num_parameters() == COUNTS[name]


@pytest.mark.parametrize("name", GPT3)
def test_gpt3s_table(name: str) -> None:
    layers, width, heads, head_width, batch_tokens, rate, parameters = GPT3[name]
    recipe = recipes.get(name)
    backbone, train = recipe.backbone, recipe.train
    assert (backbone.num_layers, backbone.hidden_size, backbone.num_heads) == (layers, width, heads)
    assert (backbone.head_width, backbone.feedforward_size, backbone.max_length) == (head_width, 4 * width, 2048)
    assert train.batch_size * 2048 == pytest.approx(batch_tokens, rel=0.06)
    assert train.optimizer.learning_rate == rate
    assert meta(name).num_parameters() == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize("name", GPT3)
def test_gpt3_reads_300_billion_tokens_in_batches_that_grow_from_32_thousand(name: str) -> None:
    train = recipes.get(name).train
    sizes = BatchSizes(train.batch_size, train.ramp)
    assert sizes.examples_before(train.steps) * 2048 == pytest.approx(300e9, rel=1e-4)
    assert sizes.of_step(0) * 2048 == 32_768
    full = next(step for step in range(train.steps) if sizes.of_step(step) == train.batch_size)
    assert 4e9 <= sizes.examples_before(full) * 2048 <= 12e9 * 1.01
    half = train.ramp.size_after(train.ramp.num_examples // 2, train.batch_size)
    assert half == pytest.approx((16 + train.batch_size) / 2, abs=1)


def test_gpt3s_rate_at_260_billion_tokens_is_a_tenth_of_the_peak() -> None:
    train = recipes.get("gpt3-175b").train
    sizes = BatchSizes(train.batch_size, train.ramp)

    def share_at(tokens: float) -> float:
        step = round(sizes.steps_reading(tokens / 2048)) - 1
        return train.schedule.share(step, train.steps, lambda number: sizes.examples_before(number) * 2048)

    assert share_at(375e6) == pytest.approx(1.0, abs=1e-3)
    assert share_at(187.5e6) == pytest.approx(0.5, abs=1e-3)
    assert [share_at(tokens) for tokens in (260e9, 280e9, 300e9)] == pytest.approx([0.1] * 3, abs=1e-6)
    assert 0.1001 < share_at(250e9) < 0.11


def test_a_banded_layer_sees_itself_and_the_window_before_and_the_stack_still_reaches_the_start() -> None:
    width = 7

    def reached(windows: tuple[int | None, ...], num_layers: int, place: int) -> list[int]:
        """Return which inputs the state at a place depends on."""
        recipe = tiny.recipe("gpt3-tiny", dropout=0.0, num_layers=num_layers)
        torch.manual_seed(0)
        model = dataclasses.replace(recipe.backbone, windows=windows).build(300).double()
        ids = torch.arange(20)[None] + 10
        embedded = model.embeddings.embed(ids, torch.arange(20)[None]).detach().requires_grad_()
        model(row(ids), embedded=embedded).hidden[0, place, 0].backward()
        return (embedded.grad[0].abs().amax(-1) > 0).nonzero()[:, 0].tolist()

    for place in (0, 3, 6, 7, 19):
        assert reached((width,), 1, place) == list(range(max(0, place - width + 1), place + 1))
    assert reached((None, width), 2, 19) == list(range(20))
    # Bands alone reach as far as they add up to.
    assert reached((width,), 2, 19) == list(range(19 - 2 * (width - 1), 20))
    assert recipes.get("gpt3-175b").backbone.windows == (None, 256)


@pytest.mark.parametrize("name", ["gpt1-tiny", "gpt2-tiny", "gpt3-tiny", "ctrl-tiny"])
def test_a_token_changes_nothing_before_it(name: str) -> None:
    model = small(name).double()
    ids = torch.arange(10, 26)[None]
    changed = ids.clone()
    changed[0, 9] = 200
    before, after = logits(model, ids), logits(model, changed)
    assert torch.equal(before[:, :9], after[:, :9]) and not torch.equal(before[:, 9], after[:, 9])


@pytest.mark.parametrize("name", ["gpt1-tiny", "gpt2-tiny", "gpt3-tiny", "ctrl-tiny"])
def test_decoding_with_a_cache_is_the_full_pass(name: str) -> None:
    model = small(name).double()
    ids = torch.randint(10, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    whole = logits(model, ids)
    cache = model.backbone.cache()
    with torch.no_grad():
        parts = [model.backbone.continue_with(part, cache) for part in (ids[:, :9], *ids[:, 9:].split(1, 1))]
        torch.testing.assert_close(model.vocabulary_logits(torch.cat(parts, 1)), whole, rtol=1e-10, atol=1e-10)


def test_gpt1s_last_states_have_mean_0_and_variance_1_when_training_begins() -> None:
    model = small("gpt1-tiny", hidden_size=64)
    ids = torch.randint(10, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = model.backbone.continue_with(ids, model.backbone.cache())
    assert hidden.mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(hidden.var(-1, unbiased=False), torch.ones(2, 20), rtol=0, atol=1e-2)
    # Norms before the sublayers leave what adds up as it is, until the last one.
    assert not recipes.get("gpt1-base").backbone.final_norm and recipes.get("gpt2-small").backbone.final_norm


def test_gpt1s_fine_tuning_begins_with_a_rate_of_0_and_multiplies_its_ramp_by_the_decay() -> None:
    schedule = Linear(warmup=0.002, product=True)
    assert schedule.share(0, 10_000) == 0
    assert schedule.share(10, 10_000) == pytest.approx(0.5 * (1 - 10 / 10_000))
    assert schedule.share(5_000, 10_000) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["gpt2-tiny", "gpt3-tiny"])
def test_projections_into_the_residual_stream_start_smaller_by_the_root_of_their_number(name: str) -> None:
    for num_layers in (2, 8):
        model = small(name, num_layers=num_layers, hidden_size=64, feedforward_size=256)
        wanted = 0.02 / math.sqrt(2 * num_layers)
        for block in model.backbone.blocks:
            for output in (block.attention.output, block.feedforward.output):
                assert float(output.weight.detach().std()) == pytest.approx(wanted, rel=0.06)
            assert float(block.feedforward.inner.weight.detach().std()) == pytest.approx(0.02, rel=0.06)
        assert float(model.backbone.embeddings.positions.table.weight.detach().std()) == pytest.approx(0.01, rel=0.06)
    plain = small("gpt1-tiny", num_layers=8, hidden_size=64, feedforward_size=256)
    stds = [float(block.attention.output.weight.detach().std()) for block in plain.backbone.blocks]
    assert statistics.mean(stds) == pytest.approx(0.02, rel=0.03), "GPT-1 knows of no such scaling"


def test_the_first_row_of_ctrls_positions_is_zeros_then_ones() -> None:
    recipe = recipes.get("ctrl-seqlen256")
    row = sinusoids(4, recipe.backbone.hidden_size, recipe.backbone.positions.layout)[0]
    assert row.tolist() == [0.0] * 640 + [1.0] * 640


def test_another_code_changes_what_ctrl_expects_at_the_first_place() -> None:
    model = small("ctrl-tiny")
    (one, other) = (torch.log_softmax(logits(model, torch.tensor([[code]]))[0, 0], -1) for code in (7, 8))
    assert (one - other).abs().max() > 0.01


def test_ctrls_embeddings_are_scaled_and_its_output_has_a_bias_for_every_token() -> None:
    model = small("ctrl-tiny").double()
    embeddings, ids = model.backbone.embeddings, torch.tensor([[11, 12]])
    embedded = embeddings.embed(ids, torch.tensor([[0, 1]])) - embeddings.positions.table[:2]
    torch.testing.assert_close(embedded[0], embeddings.tokens.weight[ids[0]] * math.sqrt(32))
    before = logits(model, ids)
    with torch.no_grad():
        model.heads["clm"].bias[5] += 3.0
    torch.testing.assert_close(logits(model, ids)[..., 5], before[..., 5] + 3.0)
    assert recipes.get("ctrl-seqlen256").objectives[0].bias


@pytest.mark.parametrize("name", ["gpt1-tiny", "gpt2-tiny", "gpt3-tiny", "ctrl-tiny"])
def test_its_tokenizer_writes_any_text_and_gives_it_back(name: str) -> None:
    tokenizer = tiny.tokenizer(tiny.recipe(name).tokenizer)
    for text in ("ba do kilume nora.", " 한국어 ünï 🙂\n\n", "\x00\t\r", "ไทย नेपाली"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ctrls_optimiser_is_warmed_up_over_25_thousand_of_800_thousand_steps() -> None:
    train = recipes.get("ctrl-seqlen256").train
    shares = [train.schedule.share(step, train.steps) for step in (0, 12_499, 24_999, 25_000, 799_999)]
    assert shares == pytest.approx([1 / 25_000, 0.5, 1, 1, 1])
    assert (train.optimizer.learning_rate, train.optimizer.clip_norm, train.batch_size) == (0.05, 0.25, 1024)
