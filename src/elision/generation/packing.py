"""Weights laid out for products of a few rows on a CPU.

Reading a token for each of several rows is bound by how weights lie in memory: oneDNN's own order serves 4 to 16 rows in
about half the time of the plain one (see bench/README.md). PyTorch uses it in compiled models; here it serves all.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to so many rows the plain order is as fast.
FEW_ROWS = 3
# What the order is chosen for; it serves any number of rows.
ROWS = 256

States = Callable[[Tensor], Tensor]


def can_pack(weight: Tensor) -> bool:
    """Whether products with this weight gain from another order."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and weight.device.type == "cpu" and weight.dtype == torch.float32


def product(weight: Tensor, bias: Tensor | None, packed: bool) -> States:
    """Return the function of a linear layer for inference, [..., in] to [..., out]; packed weights are a copy of theirs."""
    if not (packed and can_pack(weight)):
        return lambda hidden: F.linear(hidden, weight, bias)
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise

    def packed_product(hidden: Tensor) -> Tensor:
        if hidden.numel() <= FEW_ROWS * hidden.shape[-1]:
            return F.linear(hidden, weight, bias)
        return multiply(hidden, ordered, bias, "none", [], "")

    return packed_product


class PackedHead(nn.Module):
    """A vocabulary head for inference, over the table [V, D] that it was made with."""

    def __init__(self, table_VD: Tensor, bias_V: Tensor | None):
        super().__init__()
        self._product = product(table_VD, bias_V, packed=True)

    def logits(self, hidden: Tensor, table_VD: Tensor) -> Tensor:
        """Return [..., V] for [..., D]; the table is the one of the beginning."""
        return self._product(hidden)
