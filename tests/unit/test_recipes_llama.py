"""LLaMA 1 and 2, Mistral, Pythia, Polyglot-Ko: the sizes of their papers, how they are trained, what a token sees."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from elision import recipes
from elision.model.language_model import LanguageModel
from elision.model.rms_norm import RMSNorm
from elision.model.transformer import Transformer, TransformerModel
from tests import tiny


@pytest.mark.parametrize(("name", "expected"), [
    ("llama-7b", 6_738_415_616),
    ("llama-13b", 13_015_864_320),
    ("llama-33b", 32_528_943_616),
    ("llama-65b", 65_285_660_672),
    ("llama2-7b", 6_738_415_616),
    ("llama2-13b", 13_015_864_320),
    ("llama2-70b", 68_976_648_192),
    ("mistral-7b", 7_241_732_096),
    ("pythia-70m", 70_426_624),
    ("pythia-160m", 162_322_944),
    ("pythia-410m", 405_334_016),
    ("pythia-1b", 1_011_781_632),
    ("pythia-1.4b", 1_414_647_808),
    ("pythia-2.8b", 2_775_208_960),
    ("pythia-6.9b", 6_857_302_016),
    ("pythia-12b", 11_846_072_320),
    ("polyglot-1.3b", 1_331_810_304),
    # The card of the 12.8b says 5.03 M more, which the shapes it gives do not explain.
    ("polyglot-12.8b", 12_893_603_840),
])  # fmt: skip
def test_every_size_has_the_parameters_of_the_released_model(name: str, expected: int) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size)
    assert model.num_parameters() == expected


@pytest.mark.parametrize(("name", "rate", "tokens"), [
    ("llama-7b", 3e-4, 1.0e12),
    ("llama-13b", 3e-4, 1.0e12),
    ("llama-33b", 1.5e-4, 1.4e12),
    ("llama-65b", 1.5e-4, 1.4e12),
    ("llama2-7b", 3e-4, 2.0e12),
    ("llama2-70b", 1.5e-4, 2.0e12),
    ("pythia-160m", 6e-4, 299.9e9),
    ("pythia-1b", 2.5e-4, 299.9e9),
    ("pythia-12b", 1.2e-4, 299.9e9),
    ("polyglot-1.3b", 2e-4, 213e9),
    ("polyglot-12.8b", 1.2e-4, 167e9),
])  # fmt: skip
def test_training_is_as_long_and_as_fast_as_published(name: str, rate: float, tokens: float) -> None:
    recipe = recipes.get(name)
    train, optimizer = recipe.train, recipe.train.optimizer
    assert train.batch_size * recipe.segmenter.max_length * train.steps == pytest.approx(tokens, rel=1e-3)
    assert optimizer.learning_rate == rate
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm) == (0.9, 0.95, 0.1, 1.0)
    assert optimizer.eps == (1e-5 if name.startswith("llama2") else 1e-8)
    # Up to the peak in 2000 steps or 1 %, down to a tenth of it at the end.
    warmup = 2000 if name.startswith("llama") else round(0.01 * train.steps)
    shares = [train.schedule.share(step, train.steps) for step in (0, warmup - 1, train.steps)]
    assert shares == pytest.approx([1 / warmup, 1.0, 0.1], rel=2e-3)


def test_the_feedforward_width_is_two_thirds_of_four_widths_rounded_up() -> None:
    sizes = {"7b": 11008, "13b": 13824, "33b": 17920, "65b": 22016}
    for size, expected in sizes.items():
        backbone = recipes.get(f"llama-{size}").backbone
        assert backbone.feedforward_size == expected
        assert 0 <= expected - int(8 * backbone.hidden_size / 3) < 256 and expected % 256 == 0


@pytest.mark.parametrize("name", ["polyglot-1.3b", "polyglot-3.8b", "polyglot-5.8b", "polyglot-12.8b"])
def test_sixty_four_channels_of_each_head_of_polyglot_turn(name: str) -> None:
    backbone = recipes.get(name).backbone
    assert backbone.positions.build(backbone.head_width).num_turned == 64


@pytest.mark.parametrize("name", ["llama-7b", "llama2-7b", "mistral-7b"])
def test_documents_begin_and_end_with_symbols_that_the_tokenizer_has(name: str) -> None:
    recipe = recipes.get(name)
    assert recipe.segmenter.begun and {"bos", "eos"} <= set(recipe.tokenizer.roles)


def test_gpt_neox_starts_small_and_smaller_where_it_writes_into_the_residual_stream() -> None:
    recipe = tiny.shrunk(recipes.get("pythia-160m"), hidden_size=128, feedforward_size=512, num_layers=4, num_heads=4)
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 2000)
    small, wang = math.sqrt(2 / (5 * 128)), 2 / (4 * math.sqrt(128))
    checked = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            assert torch.equal(parameter, torch.full_like(parameter, float("norm" in name and "weight" in name))), name
            continue
        std = wang if name.endswith((".attention.output.weight", ".feedforward.output.weight")) else small
        assert float(parameter.detach().std()) == pytest.approx(std, rel=0.03), name
        checked += 1
    assert checked == 4 * 4 + 2


@pytest.mark.parametrize("name", ["pythia-6.9b", "pythia-12b"])
def test_the_two_largest_pythias_start_as_gpt2_does(name: str) -> None:
    init = recipes.get(name).backbone.init
    assert (type(init).__name__, init.std, init.scale_residual) == ("NormalInit", 0.02, True)


def model_of(name: str, **settings: object) -> TransformerModel:
    torch.manual_seed(0)
    return tiny.shrunk(recipes.get(name), **settings).backbone.build(50).double().eval()


def states(model: TransformerModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.continue_with(ids, model.cache())


def ids_of(length: int) -> Tensor:
    return torch.randint(50, (1, length), generator=torch.Generator().manual_seed(1))


def test_as_many_heads_of_keys_as_of_queries_are_plain_attention() -> None:
    plain, grouped = model_of("llama-7b"), model_of("llama-7b")
    settings: Transformer = dataclasses.replace(grouped.settings, num_key_value_heads=2)
    grouped = settings.build(50).double().eval()
    grouped.load_state_dict(plain.state_dict())
    assert torch.equal(states(grouped, ids_of(9)), states(plain, ids_of(9)))


def test_through_all_layers_a_token_sees_num_layers_windows_back_and_no_further() -> None:
    num_layers, window = 3, 4
    model = model_of("mistral-7b", num_layers=num_layers)
    model.settings = dataclasses.replace(model.settings, windows=(window,))
    reach = num_layers * (window - 1)
    ids = ids_of(20)
    before = states(model, ids)[0, -1]
    for distance in (reach + 1, 19):
        other = ids.clone()
        other[0, 19 - distance] = (other[0, 19 - distance] + 1) % 50
        assert torch.equal(states(model, other)[0, -1], before)
    other = ids.clone()
    other[0, 19 - reach] = (other[0, 19 - reach] + 1) % 50
    assert not torch.equal(states(model, other)[0, -1], before)


@pytest.mark.parametrize("steps", [[1] * 30, [11, 1, 1, 1, 7, 1, 8], [3, 27]])
def test_a_rolling_cache_gives_the_states_of_the_whole_text(steps: list[int]) -> None:
    model, ids = model_of("mistral-7b"), ids_of(30)
    (window,) = model.settings.windows
    assert window < 30
    cache, parts = model.cache(), []
    with torch.no_grad():
        for part in ids.split(steps, 1):
            parts.append(model.continue_with(part, cache))
    torch.testing.assert_close(torch.cat(parts, 1), states(model, ids), rtol=0, atol=1e-12)
    assert all(layer.num_held == window - 1 for layer in cache.layers)


def test_sharing_heads_of_keys_divides_the_memory_of_the_cache() -> None:
    shared, whole = recipes.get("llama2-70b").backbone, recipes.get("llama-65b").backbone
    assert 8 * shared.kv_heads * shared.head_width == whole.kv_heads * whole.head_width


def test_the_root_mean_square_norm_does_not_know_the_size_of_its_input() -> None:
    norm = RMSNorm(16, eps=0.0).double()
    hidden = torch.randn(3, 16, dtype=torch.float64)
    torch.testing.assert_close(norm(hidden * 1234.5), norm(hidden))
    torch.testing.assert_close(norm(hidden).pow(2).mean(-1), torch.ones(3, dtype=torch.float64))


def test_sequential_and_parallel_sublayers_differ() -> None:
    parallel, sequential = model_of("pythia-160m"), model_of("pythia-160m", parallel=False)
    sequential.load_state_dict(parallel.state_dict())
    assert not torch.allclose(states(parallel, ids_of(6)), states(sequential, ids_of(6)))
