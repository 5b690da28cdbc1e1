"""What a recipe costs: parameters and operations, counted on modules without memory."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from elision.data.batch import collate
from elision.data.example import Example
from elision.data.order import generator
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.text.vocabulary import ROLES, Vocabulary

DRAWS = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "erfinv_"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Distinct trained numbers, and floating-point operations of forward and backward pass per token of a full row."""

    num_parameters: int
    flops_per_token: float


def cost_of(recipe: Recipe) -> Cost:
    """Count with the recipe's own vocabulary size, length and noise; nothing is allocated."""
    with torch.device("meta"), _WithoutDraws():
        model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size)
    batch = collate([_full_example(recipe)], pad_id=0)
    return Cost(model.num_parameters(), model.num_flops(batch) / batch.num_tokens)


class _WithoutDraws(TorchFunctionMode):
    """Passes over random initialisation, which without memory computes nothing but imports PyTorch's compiler (2 s)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _full_example(recipe: Recipe) -> Example:
    """Return an example as long as the segmenter makes them, after the noise, which decides how many targets it has."""
    size = recipe.tokenizer.vocab_size
    roles = {role: number for number, role in enumerate(ROLES)}
    if getattr(recipe.backbone, "start", None) == "zero":
        # A start whose vector is zero is the last symbol.
        roles["pad"] = size - 1
    ids, nothing = np.arange(size), np.zeros(size, bool)
    vocabulary = Vocabulary(
        size=size,
        special=nothing,
        continues_word=nothing,
        **roles,
        counts=np.ones(size, np.int64),
        full_stop=ids % 20 == 0,
        spaceless=nothing,
        sentinels=ids[::-1],
    )
    length = recipe.segmenter.max_length + recipe.noise.lookahead
    inputs = len(ROLES) + np.arange(length, dtype=np.int64) % (size - len(ROLES))
    example = Example(inputs, np.zeros(length, bool), label=0 if recipe.segmenter.num_labels else None)
    if getattr(recipe.segmenter, "gives_answers", False):
        example = dataclasses.replace(example, answer=example.inputs)
    return recipe.answers(vocabulary)(recipe.noise(example, vocabulary, generator(0, "cost")))
