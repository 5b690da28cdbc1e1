"""Which parameters an optimiser treats alike: with or without decay, and at which share of the learning rate."""

from typing import Any

from torch import nn

# Layers whose rows are several matrices that other code keeps apart, and how many, all of the same height.
_FUSED = {"query_key_value": 3, "key_value": 2}


def groups_of(
    model: nn.Module, weight_decay: float, *, decay_all: bool = False, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups: {"params", "decay", "share"}, the decayed ones first.

    Biases and norms (tensors of one dimension) are not decayed unless `decay_all`. With `layer_decay` below 1, `share` is
    layer_decay^(L + 2 - depth), where the embeddings have depth 0, block n of L depth n + 1, a pooler L + 1 and heads
    L + 2: the rates of the released ELECTRA code.
    """
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
        if not parameter.requires_grad:
            continue
        plain = parameter.dim() == 1 and not decay_all
        share = 1.0 if layer_decay == 1.0 else layer_decay ** _below_heads(name, len(model.backbone.blocks))
        group = groups.setdefault(
            (plain, share), {"params": [], "decay": 0.0 if plain else weight_decay, "share": share}
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0], -key[1]))]


def fused_rows(model: nn.Module) -> dict[nn.Parameter, tuple[int, ...]]:
    """Return, of each tensor that holds several matrices (or biases), how many rows each of them has."""
    fused: dict[nn.Parameter, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        parts = _FUSED.get(name.split(".")[-2]) if "." in name else None
        if parts is not None:
            fused[parameter] = (len(parameter) // parts,) * parts
    return fused


def _below_heads(name: str, num_blocks: int) -> int:
    """Return how many steps of depth a parameter lies below the heads."""
    owner, where, rest = (*name.split(".", 2), "", "")[:3]
    if owner != "backbone":
        return 0
    if where == "blocks":
        return num_blocks + 1 - int(rest.partition(".")[0])
    return 1 if where in ("pooler", "final_norm") else num_blocks + 2
