"""How position enters a model. Each scheme answers the hook that it needs: here, what is added to the embeddings."""

import dataclasses

from torch import Tensor, nn

from elision.errors import InputError


@dataclasses.dataclass(frozen=True)
class LearnedPositions:
    """A trained vector for each absolute position, added to the token embeddings (BERT, GPT)."""

    num_positions: int = 512
    """how many positions there are: no sequence can be longer"""

    def build(self, hidden_size: int) -> "LearnedPositionTable":
        """Return the module that holds the table."""
        return LearnedPositionTable(self.num_positions, hidden_size)

    def check_length(self, length: int) -> None:
        """Raise InputError when a sequence of `length` tokens has positions without a vector."""
        if length > self.num_positions:
            raise InputError(
                f"a sequence of {length} tokens is longer than the position table of {self.num_positions}: shorten the "
                f"text or the segmenter's max_length, or raise backbone.positions.num_positions (and pretrain anew)"
            )


class LearnedPositionTable(nn.Module):
    """The table of `LearnedPositions`: embed(positions [B, T]) -> [B, T, D]."""

    def __init__(self, num_positions: int, hidden_size: int):
        super().__init__()
        self.table = nn.Embedding(num_positions, hidden_size)

    def embed(self, positions_BT: Tensor) -> Tensor:
        """Return what is added to the token embeddings at these positions, [B, T, D]."""
        return self.table(positions_BT)
