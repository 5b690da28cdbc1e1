"""Clipping: a gradient that is too long is scaled down, as a whole or part by part."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# What is clipped together.
Parts = Sequence[Sequence[nn.Parameter]]


def parts_of(model: nn.Module, apart: bool) -> list[list[nn.Parameter]]:
    """Return the trained parameters in one part; or, apart, those of the backbone and of each objective's head."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owner, _, rest = name.partition(".")
            part = f"{owner}.{rest.partition('.')[0]}" if owner == "heads" else owner
            parts.setdefault(part if apart else "", []).append(parameter)
    return list(parts.values())


def clip_(parts: Parts, limit: float) -> Tensor:
    """Scale the gradients of each part in place to a norm of at most `limit`; 0 = leave them.

    Returns the global norm over all parts before clipping, on the device.
    """
    norms = [_clip(part, limit) for part in parts]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def _clip(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    # A factor of 1 is a pass over all gradients for nothing. Looking first costs nothing on a CPU, while a GPU would
    # have to be waited for. The 1e-6 is what clip_grads_with_norm_ adds to the norm.
    if limit > 0 and (norm.device.type != "cpu" or not norm + 1e-6 <= limit):
        nn.utils.clip_grads_with_norm_(parameters, limit, norm, foreach=True)
    return norm
