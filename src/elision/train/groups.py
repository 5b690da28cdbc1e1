"""Which parameters an optimiser treats alike: with or without decay, and at which share of the learning rate."""

from typing import Any

from torch import nn


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
    """Return, of each tensor whose rows are several matrices (or biases) that other code keeps apart, how many each has."""
    fused: dict[nn.Parameter, tuple[int, ...]] = {}
    for module in model.modules():
        for name, parts in (("query_key_value", 3), ("key_value", 2)):
            layer = getattr(module, name, None)
            if layer is None:
                continue
            # Heads of keys and values may be fewer than those of queries.
            kept = getattr(module, "num_key_value_heads", None)
            size = layer.weight.shape[0] // parts if kept is None or parts == 2 else kept * module.head_size
            rows = (layer.weight.shape[0] - (parts - 1) * size, *(size,) * (parts - 1))
            fused |= dict.fromkeys(layer.parameters(), rows)
    return fused


def _below_heads(name: str, num_blocks: int) -> int:
    """Return how many steps of depth a parameter lies below the heads."""
    owner, where, rest = (*name.split(".", 2), "", "")[:3]
    if owner != "backbone":
        return 0
    if where == "blocks":
        return num_blocks + 1 - int(rest.partition(".")[0])
    return 1 if where in ("pooler", "final_norm") else num_blocks + 2
