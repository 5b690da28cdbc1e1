"""Mistral: Jiang, Sablayrolles, Mensch, Bamford, Chaplot, de las Casas, Bressand, Lengyel et al. 2023, "Mistral 7B".

LLaMA 2 with shared heads of keys already at 7 G, a wider feed-forward layer, and a window: a token sees itself and the
window - 1 tokens before it in each layer, so what is further away reaches it through the layers in between, and neither the
cache nor the time for a token grows with the text. The cache is a ring of `window` places.

The paper and the released code disagree by one: the code's mask for reading a prompt lets a token see `window` tokens before
it and itself, its cache and Hugging Face's mask one less. This is the latter, everywhere. theta is 10,000 as in version 0.1.
Text, rates and schedule are not published: here they are LLaMA 2's, with texts of 8192 tokens, the context of the paper's
table 1.
"""

import dataclasses

from elision.model.position import RotaryPositions
from elision.recipe import Recipe
from elision.recipes import llama


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, 4 heads of queries on 2 of keys, a window of 64, context 256."""
    return _mistral(llama.tiny(), "mistral-tiny", window=64, num_heads=4, num_key_value_heads=2)


def mini() -> Recipe:
    """Ours, for small machines: 4 layers of width 256, 8 heads of queries on 2 of keys, a window of 64, context 256."""
    return _mistral(llama.mini(), "mistral-mini", window=64, num_heads=8, num_key_value_heads=2)


def size_7b() -> Recipe:
    """7.24 G parameters: 32 layers of width 4096, 32 heads of queries on 8 of keys, a window of 4096."""
    recipe, length = llama.size_7b(), 8192
    recipe = dataclasses.replace(
        recipe,
        segmenter=dataclasses.replace(recipe.segmenter, max_length=length),
        backbone=dataclasses.replace(recipe.backbone, positions=RotaryPositions(num_positions=length)),
        train=dataclasses.replace(
            recipe.train,
            batch_size=512,
            steps=476_837,
            optimizer=dataclasses.replace(recipe.train.optimizer, eps=1e-5),
        ),
    )
    return _mistral(recipe, "mistral-7b", window=4096, num_key_value_heads=8, feedforward_size=14336)


def _mistral(recipe: Recipe, name: str, window: int, **settings: int) -> Recipe:
    backbone = dataclasses.replace(recipe.backbone, norm_eps=1e-5, windows=(window,), **settings)
    return dataclasses.replace(recipe, name=name, backbone=backbone)
