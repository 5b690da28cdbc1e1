"""How weights start: one rule for every tensor of a model, so that a test can check each against its paper."""

import dataclasses
import math

import torch
from torch import Tensor, nn

from elision.model.attention import Attention, CrossAttention
from elision.model.rms_norm import RMSNorm


def set_norm_(norm: nn.LayerNorm | RMSNorm) -> None:
    """Have a norm begin without an effect of its own: gains 1, biases 0."""
    norm.weight.fill_(1.0)
    if isinstance(norm, nn.LayerNorm):
        norm.bias.zero_()


@dataclasses.dataclass(frozen=True)
class NormalInit:
    """All weight matrices and embeddings from one normal distribution; biases 0, norms 1 and 0."""

    std: float = 0.02
    """standard deviation"""
    truncated: bool = False
    """cut at two standard deviations and drawn again (BERT); the spread that results is 0.88 of `std`"""
    position_std: float | None = None
    """standard deviation of the position table where it differs (GPT-2: 0.01)"""
    scale_residual: bool = False
    """divide the std of the projections that write into the residual stream by sqrt(2 * num_layers) (GPT-2)"""

    def weight_(self, weight: Tensor, std: float) -> None:
        """Fill one tensor."""
        if self.truncated:
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
        else:
            nn.init.normal_(weight, std=std)

    def apply_(self, module: nn.Module, num_layers: int = 0) -> None:
        """Fill every tensor of `module`, in the order of its parameters, from PyTorch's global generator."""
        with torch.no_grad():
            for name, child in module.named_modules():
                if isinstance(child, nn.Linear):
                    residual = self.scale_residual and num_layers and name.endswith(".output")
                    self.weight_(child.weight, self.std / math.sqrt(2 * num_layers) if residual else self.std)
                    if child.bias is not None:
                        child.bias.zero_()
                elif isinstance(child, nn.Embedding):
                    position = self.position_std is not None and name.startswith("embeddings.positions")
                    self.weight_(child.weight, self.position_std if position else self.std)
                elif isinstance(child, nn.LayerNorm | RMSNorm):
                    set_norm_(child)


@dataclasses.dataclass(frozen=True)
class WidthInit:
    """Every matrix by its own width (XLM): embeddings normal with std width^-1/2; linear layers, biases included, uniform
    within 1 / sqrt(inputs), which is what PyTorch starts them with; norms 1 and 0."""

    def apply_(self, module: nn.Module, num_layers: int = 0) -> None:
        """Fill every tensor of `module`, in the order of its parameters, from PyTorch's global generator."""
        with torch.no_grad():
            for child in module.modules():
                if isinstance(child, nn.Linear):
                    bound = 1 / math.sqrt(child.in_features)
                    nn.init.uniform_(child.weight, -bound, bound)
                    if child.bias is not None:
                        nn.init.uniform_(child.bias, -bound, bound)
                elif isinstance(child, nn.Embedding):
                    nn.init.normal_(child.weight, std=child.embedding_dim**-0.5)
                elif isinstance(child, nn.LayerNorm | RMSNorm):
                    set_norm_(child)


@dataclasses.dataclass(frozen=True)
class T5Init:
    """Every matrix by its number of inputs (T5's code): normal with std inputs^-1/2, so that states keep their size.

    That of the queries is head_size^-1/2 smaller, which stands for the division of the scores that T5 leaves out. Token
    table 1, biases of distances width^-1/2, other biases 0, norms 1.
    """

    def apply_(self, module: nn.Module, num_layers: int = 0) -> None:
        """Fill every tensor of `module`, in the order of its parameters, from PyTorch's global generator."""
        with torch.no_grad():
            for name, child in module.named_modules():
                if isinstance(child, nn.Linear):
                    nn.init.normal_(child.weight, std=child.in_features**-0.5)
                    if child.bias is not None:
                        child.bias.zero_()
                elif isinstance(child, nn.Embedding):
                    distances = name == "bias.table"
                    nn.init.normal_(child.weight, std=module.settings.hidden_size**-0.5 if distances else 1.0)
                elif isinstance(child, nn.LayerNorm | RMSNorm):
                    set_norm_(child)
            for child in module.modules():
                if isinstance(child, Attention):
                    child.query_key_value.weight[: child.num_heads * child.head_size] *= child.head_size**-0.5
                elif isinstance(child, CrossAttention):
                    child.query.weight *= child.head_size**-0.5


@dataclasses.dataclass(frozen=True)
class SmallInit:
    """GPT-NeoX's: normal with std sqrt(2 / (5 D)) (Nguyen & Salazar 2019), but 2 / (num_layers sqrt(D)) for the
    projections that write into the residual stream (Wang & Komatsuzaki 2021); biases 0, norms 1 and 0."""

    def apply_(self, module: nn.Module, num_layers: int = 0) -> None:
        """Fill every tensor of `module`, in the order of its parameters, from PyTorch's global generator."""
        with torch.no_grad():
            for name, child in module.named_modules():
                if isinstance(child, nn.Linear):
                    if num_layers and name.endswith(".output"):
                        std = 2 / (num_layers * math.sqrt(child.out_features))
                    else:
                        std = math.sqrt(2 / (5 * child.in_features))
                    nn.init.normal_(child.weight, std=std)
                    if child.bias is not None:
                        child.bias.zero_()
                elif isinstance(child, nn.Embedding):
                    nn.init.normal_(child.weight, std=math.sqrt(2 / (5 * child.embedding_dim)))
                elif isinstance(child, nn.LayerNorm | RMSNorm):
                    set_norm_(child)


# Linear layers that hold several matrices, and how many.
_MATRICES = {"query_key_value": 3, "key_value": 2}


@dataclasses.dataclass(frozen=True)
class GlorotInit:
    """Every matrix uniform within sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010; Vaswani et al. 2017's code, Marian);
    queries, keys and values are matrices of their own. Embeddings normal with std width^-1/2; biases 0, norms 1 and 0."""

    def apply_(self, module: nn.Module, num_layers: int = 0) -> None:
        """Fill every tensor of `module`, in the order of its parameters, from PyTorch's global generator."""
        with torch.no_grad():
            for name, child in module.named_modules():
                if isinstance(child, nn.Linear):
                    num_outputs = child.out_features / _MATRICES.get(name.rpartition(".")[2], 1)
                    bound = math.sqrt(6 / (child.in_features + num_outputs))
                    nn.init.uniform_(child.weight, -bound, bound)
                    if child.bias is not None:
                        child.bias.zero_()
                elif isinstance(child, nn.Embedding):
                    nn.init.normal_(child.weight, std=child.embedding_dim**-0.5)
                elif isinstance(child, nn.LayerNorm | RMSNorm):
                    set_norm_(child)


Init = NormalInit | WidthInit | T5Init | SmallInit | GlorotInit
