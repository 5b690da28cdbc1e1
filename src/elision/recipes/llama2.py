"""LLaMA 2: Touvron, Martin, Stone, Albert, Almahairi, Babaei, Bashlykov, Batra et al. 2023, "Llama 2: Open Foundation and
Fine-Tuned Chat Models".

LLaMA on twice the tokens, with twice the context; and in the 70 G model eight heads of keys and values that eight heads of
queries each share (Ainslie et al. 2023), so that a cache takes an eighth of the memory. Its feed-forward width is 1.3 times
as large, rounded up to a multiple of 4096, in place of what sharing saves.

What is followed where is said in LLaMA's recipe; here the norm's epsilon is 1e-5, in code and weights, and Adam's 1e-5 (the
paper's section 2.2). A step reads 4 M tokens: 1024 texts of 4096. The 34 G model was never released.
"""

import dataclasses

from elision.recipe import Recipe
from elision.recipes import llama


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, 4 heads of queries on 2 of keys, context 256."""
    return _shared(llama.tiny(), "llama2-tiny", num_heads=4, num_key_value_heads=2)


def mini() -> Recipe:
    """Ours, for small machines: 4 layers of width 256, 8 heads of queries on 2 of keys, context 256."""
    return _shared(llama.mini(), "llama2-mini", num_heads=8, num_key_value_heads=2)


def size_7b() -> Recipe:
    """6.74 G parameters: 32 layers of width 4096; no heads are shared."""
    return _llama2(llama.size_7b(), "llama2-7b")


def size_13b() -> Recipe:
    """13.0 G parameters: 40 layers of width 5120; no heads are shared."""
    return _llama2(llama.size_13b(), "llama2-13b")


def size_70b() -> Recipe:
    """69.0 G parameters: 80 layers of width 8192, 64 heads of queries on 8 of keys."""
    return _shared(_llama2(llama.size_65b(), "llama2-70b"), "llama2-70b", num_key_value_heads=8, feedforward_size=28672)


def _llama2(recipe: Recipe, name: str) -> Recipe:
    length = 4096
    return dataclasses.replace(
        _shared(recipe, name),
        segmenter=dataclasses.replace(recipe.segmenter, max_length=length),
        backbone=dataclasses.replace(
            recipe.backbone,
            positions=dataclasses.replace(recipe.backbone.positions, num_positions=length),
            norm_eps=1e-5,
        ),
        train=dataclasses.replace(
            recipe.train,
            batch_size=1024,
            # 2.0 T tokens.
            steps=476_837,
            optimizer=dataclasses.replace(recipe.train.optimizer, eps=1e-5),
        ),
    )


def _shared(recipe: Recipe, name: str, **settings: int) -> Recipe:
    backbone = dataclasses.replace(recipe.backbone, norm_eps=1e-5, **settings)
    return dataclasses.replace(recipe, name=name, backbone=backbone)
