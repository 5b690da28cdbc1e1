"""A model that remembers, measured with another memory than it was trained with: what holds no weights can be set anew."""

import dataclasses
from typing import Any

from elision.errors import InputError
from elision.loaded import Loaded


def set_memory(
    loaded: Loaded,
    *,
    memory_length: int | None = None,
    same_length: bool | None = None,
    clamp_distance: int | None = None,
    segment_length: int | None = None,
) -> None:
    """Change how much a loaded model remembers and reads at a time; None leaves a setting as the model was trained.

    memory_length: states before a segment that each layer remembers. same_length: every token sees exactly so many, itself
    included. clamp_distance: longer distances count as this. segment_length: tokens read at a time (Dai et al. 2019
    measure with short segments and a memory several times as long as in training).

    Raises: InputError for a model without a memory, or a setting that its kind does not have.
    """
    asked = {"memory_length": memory_length, "same_length": same_length, "clamp_distance": clamp_distance}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    recipe = loaded.recipe
    known = {field.name for field in dataclasses.fields(recipe.backbone)}
    for name in changes:
        if name not in known:
            raise InputError(
                f"{name} cannot be set for {recipe.name}: {type(recipe.backbone).__name__} has no such setting "
                f"(TransformerXL has)"
            )
    segmenter = recipe.segmenter
    if not changes and segment_length is None:
        return
    if segment_length is not None:
        segmenter = dataclasses.replace(segmenter, max_length=segment_length)
    backbone = dataclasses.replace(recipe.backbone, **changes)
    loaded.recipe = dataclasses.replace(recipe, backbone=backbone, segmenter=segmenter)
    loaded.model.backbone.settings = backbone
