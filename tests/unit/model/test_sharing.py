"""Blocks that share their weights: ALBERT's counts, gradients and files."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from elision import recipes
from elision.data.batch import Batch
from elision.model.language_model import LanguageModel
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM
from elision.train.checkpoint import State, resume, save
from elision.train.lamb import Lamb

SMALL = Transformer(
    num_layers=4,
    hidden_size=16,
    num_heads=2,
    feedforward_size=32,
    visibility="bidirectional",
    norm="post",
    embedding_size=8,
    embedding_norm=True,
    dropout=0.0,
    attention_dropout=0.0,
)
VOCAB_SIZE = 50


def num_parameters(settings: Transformer, vocab_size: int = VOCAB_SIZE) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in settings.build(vocab_size).parameters())


@pytest.mark.parametrize(
    ("size", "count"),
    [("base", 11_683_584), ("large", 17_683_968), ("xlarge", 58_724_864), ("xxlarge", 222_595_584)],
)
def test_published_sizes_have_their_published_numbers_of_parameters(size: str, count: int) -> None:
    for name in (f"albert-{size}", f"albert-{size}-v2"):
        recipe = recipes.get(name)
        assert num_parameters(recipe.backbone, recipe.tokenizer.vocab_size) == count


@pytest.mark.parametrize(("sharing", "millions"), [("all", 12), ("attention", 64), ("feedforward", 38), ("none", 89)])
def test_what_is_shared_costs_what_the_ablation_of_the_paper_says(sharing: str, millions: int) -> None:
    """Table 4 of the paper, at embedding width 128."""
    backbone = dataclasses.replace(recipes.get("albert-base").backbone, sharing=sharing)
    # The paper rounds 11.7 up and 89.7 down.
    assert num_parameters(backbone, 30_000) / 1e6 == pytest.approx(millions, abs=0.7)


def test_the_number_of_parameters_does_not_depend_on_the_number_of_layers() -> None:
    shared = [num_parameters(dataclasses.replace(SMALL, sharing="all", num_layers=n)) for n in (1, 2, 7, 24)]
    assert len(set(shared)) == 1
    own = [num_parameters(dataclasses.replace(SMALL, num_layers=n)) for n in (1, 2, 7, 24)]
    assert own[0] == shared[0] and own == sorted(set(own))


def test_groups_cost_a_block_each() -> None:
    one, two, four = (num_parameters(dataclasses.replace(SMALL, sharing="all", num_groups=n)) for n in (1, 2, 4))
    block = two - one
    assert four - two == 2 * block
    assert four == num_parameters(SMALL)


def batch() -> Batch:
    ids = torch.randint(5, VOCAB_SIZE, (3, 7), generator=torch.Generator().manual_seed(0))
    targets = torch.where(torch.arange(7) % 3 == 1, ids, -100)
    return Batch(
        inputs=ids,
        positions=torch.arange(7).expand(3, 7),
        doc_ids=torch.ones(3, 7, dtype=torch.long),
        targets=targets,
        target_at=(targets.flatten() >= 0).nonzero()[:, 0],
        summary_at=torch.arange(3) * 7,
        num_targets=int((targets >= 0).sum()),
        num_examples=3,
        num_tokens=21,
        whole_rows=True,
    )


def model_of(settings: Transformer) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(settings, (MaskedLM(),), VOCAB_SIZE).double()


def backward(model: LanguageModel) -> float:
    terms, _ = model(batch())
    terms["mlm"].sum.backward()
    return float(terms["mlm"].sum.detach())


@pytest.mark.parametrize("sharing", ["all", "attention", "feedforward"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_gradient_of_a_shared_layer_is_the_sum_over_its_applications(sharing: str, groups: int) -> None:
    """An unshared model with equal weights in all blocks computes the same; its blocks' gradients add up."""
    shared = model_of(dataclasses.replace(SMALL, sharing=sharing, num_groups=groups))
    apart = model_of(SMALL)
    state = shared.state_dict()
    owner = {layer: layer * groups // 4 * (4 // groups) for layer in range(4)}

    def lends(name: str) -> bool:
        attends = "attention" in name.split(".", 3)[3]
        return sharing == "all" or (sharing == "attention") == attends

    def held_at(name: str) -> str:
        """Return the name of the tensor of the shared model that stands for one of the model without sharing."""
        if not name.startswith("backbone.blocks.") or not lends(name):
            return name
        layer = int(name.split(".")[2])
        return name.replace(f"blocks.{layer}.", f"blocks.{owner[layer]}.")

    apart.load_state_dict({name: state[held_at(name)] for name in apart.state_dict()})
    assert backward(shared) == pytest.approx(backward(apart), rel=1e-12)
    total: dict[str, torch.Tensor] = {}
    for name, parameter in apart.named_parameters():
        total[held_at(name)] = total.get(held_at(name), 0) + parameter.grad
    mine = dict(shared.named_parameters())
    assert total.keys() == mine.keys()
    for name, gradient in total.items():
        torch.testing.assert_close(mine[name].grad, gradient, rtol=1e-10, atol=1e-12, msg=name)


def test_sharing_saves_memory_for_weights_gradients_optimiser_and_checkpoint(tmp_path: Path) -> None:
    def bytes_of(sharing: str, folder: Path) -> tuple[int, ...]:
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "recipe.json").write_text("{}")
        model = model_of(dataclasses.replace(SMALL, sharing=sharing, num_layers=12)).float()
        optimizer = Lamb().build(model)
        backward(model)
        optimizer.step()
        saved = save(folder, State(step=1), model, optimizer, None, is_best=True, keep=1, keep_every=None)
        tensors = load_file(saved / "weights.safetensors")
        held = [value for state in optimizer.state.values() for value in state.values()]
        return (
            sum(value.untyped_storage().nbytes() for value in distinct(model)),
            sum(value.grad.untyped_storage().nbytes() for value in distinct(model)),
            sum(value.nbytes for value in held),
            sum(value.nbytes for value in tensors.values()),
        )

    def distinct(model: nn.Module) -> list[nn.Parameter]:
        return list({parameter.data_ptr(): parameter for parameter in model.parameters()}.values())

    shared, apart = bytes_of("all", tmp_path / "shared"), bytes_of("none", tmp_path / "apart")
    block = 4 * (num_parameters(dataclasses.replace(SMALL, num_layers=2)) - num_parameters(SMALL_ONE))
    # Eleven blocks fewer; an optimiser holds two numbers for each.
    assert [b - a for a, b in zip(shared, apart)] == [11 * block, 11 * block, 22 * block, 11 * block]


SMALL_ONE = dataclasses.replace(SMALL, num_layers=1)


def test_a_checkpoint_holds_shared_weights_once_and_brings_them_back_shared(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "recipe.json").write_text("{}")
    settings = dataclasses.replace(SMALL, sharing="all", num_groups=2)
    model, settings_of = model_of(settings), Lamb()
    optimizer = settings_of.build(model)
    backward(model)
    optimizer.step()
    folder = save(tmp_path, State(step=1), model, optimizer, None, is_best=True, keep=1, keep_every=None)
    names = {name.split(".")[2] for name in load_file(folder / "weights.safetensors") if "blocks" in name}
    assert names == {"0", "2"}
    other = model_of(settings)
    resume(tmp_path, other, settings_of.build(other))
    with torch.no_grad():
        other.backbone.blocks[0].feedforward.inner.weight += 1
        again = other(batch())[0]["mlm"].sum
        other.backbone.blocks[0].feedforward.inner.weight -= 1
        before = other(batch())[0]["mlm"].sum
    assert not torch.allclose(again, before)
    assert [
        block._feeds[0] is other.backbone.blocks[index // 2 * 2] for index, block in enumerate(other.backbone.blocks)
    ] == [True] * 4
