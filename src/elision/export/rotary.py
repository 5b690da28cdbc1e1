"""Rotary positions in config.json, in its forms before and since transformers 5, and weights with the other pairs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from elision.errors import InputError
from elision.export.config import Config
from elision.model.position import RotaryPositions, halves_from_pairs
from elision.model.transformer import Transformer
from elision.recipe import Recipe


def read_rotary(
    config: Config, num_positions: int, theta: str = "rope_theta", share: str = "", default: float = 1.0
) -> RotaryPositions:
    """Return the positions that a config.json asks for.

    theta, share: what a file before transformers 5 calls the base of the wave lengths and the share of each head that
    turns ("" = all of it); default: of the share, where the file says nothing.

    Raises: InputError for angles that are scaled.
    """
    values = dict(config.values)
    nested = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(nested, dict):
        raise InputError(f"{config.path}: rope_parameters is {nested!r}; expected a JSON object")
    kind = nested.get("rope_type", nested.get("type", "default"))
    if kind != "default":
        raise InputError(
            f"{config.path}: the rotary positions are of type {kind!r}; only 'default', without scaling, is supported"
        )
    base = nested.get("rope_theta", values.get(theta, 10000.0))
    turned = nested.get("partial_rotary_factor", values.get(share, default)) if share else default
    return RotaryPositions(theta=float(base), share=float(turned), num_positions=num_positions)


def write_rotary(positions: RotaryPositions) -> dict[str, Any]:
    """Return what config.json says of the positions, for transformers 5 and for those before."""
    parameters = {"rope_type": "default", "rope_theta": positions.theta}
    if positions.share != 1.0:
        parameters["partial_rotary_factor"] = positions.share
    return {"rope_parameters": parameters, "rope_theta": positions.theta}


def check_rotary(backbone: Transformer, family: str) -> None:
    """Raise InputError when the positions are none that Hugging Face's class of this name has."""
    positions = backbone.positions
    if not isinstance(positions, RotaryPositions):
        raise InputError(
            f"backbone.positions is {type(positions).__name__}: Hugging Face's {family} only knows RotaryPositions"
        )
    if positions.layout != "halves":
        raise InputError(
            f"backbone.positions.layout is {positions.layout!r}: Hugging Face's classes pair channel i with channel R / 2 + i. "
            f"Reorder the weights with elision.export.rotary.with_halves, which changes nothing that the model computes"
        )


def with_halves(recipe: Recipe, state: Mapping[str, Tensor]) -> tuple[Recipe, dict[str, Tensor]]:
    """Return recipe and weights of the same function for a model whose rotary positions pair neighbouring channels.

    Meta's LLaMA files and the papers pair channel 2i with 2i + 1, Hugging Face channel i with R / 2 + i; the rows of the
    projections to queries and keys are put in another order, and scores stay what they are.

    Raises: InputError when the positions are others, or only a share of each head turns.
    """
    backbone = recipe.backbone
    positions = getattr(backbone, "positions", None)
    if not isinstance(positions, RotaryPositions) or positions.layout != "pairs" or positions.share != 1.0:
        raise InputError(
            f"backbone.positions is {positions!r}: only RotaryPositions with layout 'pairs' and share 1 can be reordered"
        )
    size = backbone.head_width
    num_turned = (backbone.num_heads + backbone.kv_heads) * size
    moved = dict(state)
    for name, rows in state.items():
        if ".attention.query_key_value." in name:
            moved[name] = rows.clone()
            moved[name][:num_turned] = halves_from_pairs(rows[:num_turned], size)
    halves = dataclasses.replace(positions, layout="halves")
    return dataclasses.replace(recipe, backbone=dataclasses.replace(backbone, positions=halves)), moved
