"""How weights start, tensor by tensor."""

import math

import torch

from elision import recipes
from elision.model.init import WidthInit
from tests import tiny


def test_xlm_starts_embeddings_by_width_and_linear_layers_as_pytorch_does() -> None:
    recipe = tiny.shrunk(
        recipes.get("xlm-tiny"), hidden_size=64, feedforward_size=256, vocab_size=1000, num_positions=500
    )
    assert isinstance(recipe.backbone.init, WidthInit)
    torch.manual_seed(0)
    model = recipe.backbone.build(1000)
    expected = {"embeddings.tokens.weight": 64**-0.5, "embeddings.positions.table.weight": 64**-0.5}
    for name, parameter in model.named_parameters():
        if name.startswith("embeddings.norm") or "norm_after" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif name in expected:
            assert abs(parameter.std() / expected[name] - 1) < 0.02 and abs(parameter.mean()) < 0.002, name
        elif name.startswith("blocks."):
            # Uniform within 1 / sqrt(inputs), biases too: a spread of a third of that squared.
            bound = 1 / math.sqrt(256 if "feedforward.output" in name else 64)
            assert parameter.abs().max() <= bound and parameter.abs().max() > 0.9 * bound, name
            if parameter.dim() == 2:
                assert abs(parameter.std() / (bound / math.sqrt(3)) - 1) < 0.03, name
        else:
            assert name == "embeddings.languages.weight" and parameter.abs().max() > 0


def test_the_same_seed_starts_the_same_weights() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(tiny.recipe("xlm-tiny").backbone.build(300).parameters())

    assert all(torch.equal(one, other) for one, other in zip(weights(1), weights(1)))
    assert not torch.equal(weights(1)[0], weights(2)[0])
