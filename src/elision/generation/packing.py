"""Weights laid out for products of a few rows on a CPU.

Reading a token for each of several rows is bound by how weights lie in memory: oneDNN's own order serves 4 to 16 rows in
about half the time of the plain one (see bench/README.md). PyTorch uses it in compiled models; here it serves all.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.model.encoder_decoder import EncoderDecoderModel
from elision.model.heads import VocabularyHead
from elision.model.language_model import LanguageModel

# Up to so many rows the plain order is as fast.
FEW_ROWS = 3
# What the order is chosen for; it serves any number of rows.
ROWS = 256


def packed(model: LanguageModel) -> LanguageModel:
    """Return a model that computes the same with packed weights, or `model` where that gains nothing.

    It shares every other tensor with `model`, which stays as it is; the packed weights take as much memory again. Meant for one
    use: it does not follow later changes of the weights.
    """
    table = model.backbone.table
    if table.device.type != "cpu" or table.dtype != torch.float32 or not _available():
        return model
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    if isinstance(model.backbone, EncoderDecoderModel):
        # The encoder reads many places at once, and once only.
        shared[id(model.backbone.encoder)] = model.backbone.encoder
    with torch.inference_mode():
        twin = copy.deepcopy(model, shared)
        writes = twin.backbone.decoder if isinstance(twin.backbone, EncoderDecoderModel) else twin.backbone
        for parent in [module for block in writes.blocks for module in block.modules()]:
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    setattr(parent, name, PackedLinear(child))
        for name, head in list(twin.heads.items()):
            if type(head) is VocabularyHead:
                twin.heads[name] = PackedHead(head, twin.backbone.table)
    return twin


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)


def _product(hidden: Tensor, plain: Tensor, ordered: Tensor, bias: Tensor | None) -> Tensor:
    if hidden.numel() <= FEW_ROWS * hidden.shape[-1]:
        return F.linear(hidden, plain, bias)
    return torch.ops.mkldnn._linear_pointwise(hidden, ordered, bias, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer for inference."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._ordered = _pack(linear.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        return _product(hidden, self.weight, self._ordered, self.bias)


class PackedHead(nn.Module):
    """A vocabulary head for inference, over the table that it was built with."""

    def __init__(self, head: VocabularyHead, table_VD: Tensor):
        super().__init__()
        self.bias = head.bias
        self._table = table_VD if head.table is None else head.table.weight
        self._ordered = _pack(self._table)

    def logits(self, hidden: Tensor, table_VD: Tensor) -> Tensor:
        """Return [..., V] for [..., D]; the table is the one of the beginning."""
        return _product(hidden, self._table, self._ordered, self.bias)
