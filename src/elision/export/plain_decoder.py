"""What the decoders of Hugging Face that GPT-2 is the pattern for cannot express, said in one way for all of them."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from elision.errors import InputError
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer

# What none of them has.
_WANTED: dict[str, Any] = {
    "norm_kind": "layer",
    "parallel": False,
    "gated": False,
    "num_types": 0,
    "embedding_size": None,
    "sharing": "none",
    "embedding_norm": False,
    "pooler": False,
}


def renamed(
    tensors: Mapping[str, Tensor], source: str, table_name: str, headless: str, redundant: str, refusal: str
) -> dict[str, Tensor]:
    """Return the tensors of old, headless or redundant files by their names of today.

    headless: how names begin in files without a head, a pattern; redundant: which names are left out, a pattern.

    Raises: InputError, ending in `refusal`, when the output table is not the token table `table_name` (untied).
    """
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if re.match(headless, name):
            name = f"transformer.{name}"
        if not re.search(redundant, name):
            named[name] = value
    table, output = named.get(table_name), named.pop("lm_head.weight", None)
    if output is not None and (table is None or not torch.equal(output, table)):
        raise InputError(f"lm_head.weight in {source} is not the token table ({table_name}): {refusal}")
    return named


def is_decoder(backbone: object, norm: str, positions: type) -> bool:
    """Tell whether it is a causal Transformer with norms at that place and positions of that kind."""
    return (
        isinstance(backbone, Transformer)
        and backbone.visibility == "causal"
        and backbone.norm == norm
        and isinstance(backbone.positions, positions)
    )


def check_settings(backbone: Transformer, theirs: str, wanted: dict[str, Any]) -> None:
    """Raise InputError naming the first setting that the class has no counterpart for.

    theirs: the name of the class. wanted: the settings that it has no choice of, besides those that none of them has.
    """
    for field, value in (_WANTED | wanted).items():
        if getattr(backbone, field) != value:
            raise _refusal(field, getattr(backbone, field), theirs, repr(value))
    if backbone.kv_heads != backbone.num_heads:
        raise _refusal("num_key_value_heads", backbone.num_key_value_heads, theirs, str(backbone.num_heads))
    if backbone.head_width * backbone.num_heads != backbone.hidden_size:
        raise _refusal("head_size", backbone.head_size, theirs, "hidden_size / num_heads")
    if backbone.num_languages > 1:
        raise _refusal("num_languages", backbone.num_languages, theirs, "models without language embeddings")
    if isinstance(backbone.positions, LearnedPositions) and backbone.positions.offset:
        raise _refusal("positions.offset", backbone.positions.offset, theirs, "0")


def check_windows(backbone: Transformer, theirs: str) -> None:
    """Raise InputError when a layer sees less than all that precedes a token."""
    if any(window is not None for window in backbone.windows):
        raise _refusal("windows", backbone.windows, theirs, "layers that see everything before a token")


def _refusal(field: str, value: Any, theirs: str, known: str) -> InputError:
    return InputError(
        f"backbone.{field} is {value!r}: Hugging Face's {theirs}, which this model is exported as, only knows {known}. Train "
        f"with that setting, or use the model through elision.load"
    )
