"""How position enters a model. Each scheme answers the hook that it needs: here, what is added to the embeddings."""

import dataclasses
import math

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class LearnedPositions:
    """A trained vector for each absolute position, added to the token embeddings (BERT, GPT)."""

    num_positions: int = 512
    """how many positions there are: no sequence can be longer"""
    offset: int = 0
    """rows of the table before the one of the first token; fairseq's models (RoBERTa, XLM-R, BART) have 2"""

    def build(self, width: int) -> "LearnedPositionTable":
        """Return the module that holds the table."""
        return LearnedPositionTable(self.num_positions, self.offset, width)


class LearnedPositionTable(nn.Module):
    """The table of `LearnedPositions`: embed(positions [B, T]) -> [B, T, D]."""

    def __init__(self, num_positions: int, offset: int, width: int):
        super().__init__()
        self.offset = offset
        self.table = nn.Embedding(num_positions + offset, width)

    def embed(self, positions_BT: Tensor) -> Tensor:
        """Return what is added to the token embeddings at these positions, [B, T, D]."""
        return self.table(positions_BT + self.offset if self.offset else positions_BT)


@dataclasses.dataclass(frozen=True)
class SinusoidalPositions:
    """Fixed sines and cosines of each absolute position, added to the token embeddings.

    Vaswani et al. 2017, section 3.5: channel 2i holds sin(p / 10000^(2i / D)), channel 2i + 1 the cosine.
    """

    num_positions: int = 512
    """how many positions there are: no sequence can be longer"""

    def build(self, width: int) -> "SinusoidalPositionTable":
        """Return the module that holds the table."""
        return SinusoidalPositionTable(self.num_positions, width)


class SinusoidalPositionTable(nn.Module):
    """The table of `SinusoidalPositions`: embed(positions [B, T]) -> [B, T, D]. A buffer: nothing trains it."""

    def __init__(self, num_positions: int, width: int):
        super().__init__()
        self.register_buffer("table", sinusoids(num_positions, width))

    def embed(self, positions_BT: Tensor) -> Tensor:
        """Return what is added to the token embeddings at these positions, [B, T, D]."""
        return self.table[positions_BT]


def sinusoids(num_positions: int, width: int) -> Tensor:
    """Return the table of `SinusoidalPositions`, float32 [num_positions, width]."""
    angle_PI = torch.arange(num_positions)[:, None] * torch.exp(
        torch.arange(0, width, 2) * (-math.log(10000.0) / width)
    )
    table_PD = torch.empty(num_positions, width)
    table_PD[:, 0::2] = torch.sin(angle_PI)
    table_PD[:, 1::2] = torch.cos(angle_PI[:, : width // 2])
    return table_PD


PositionScheme = LearnedPositions | SinusoidalPositions
