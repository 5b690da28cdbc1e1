"""From ids to vectors: the sum of token, position, segment and language embeddings.

B rows, T tokens, E embedding width, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.dropout import Dropout
from elision.model.position import PositionScheme


class Embeddings(nn.Module):
    """Tables, layer norm and dropout; what each system has of them is which slots are filled.

    `scale` multiplies the token embeddings before anything is added to them.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        *,
        positions: PositionScheme | None = None,
        num_types: int = 0,
        num_languages: int = 0,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
        scale: float = 1.0,
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = positions.build(width) if positions is not None else None
        self.types = nn.Embedding(num_types, width) if num_types else None
        self.languages = nn.Embedding(num_languages, width) if num_languages > 1 else None
        # The number of the language of text that does not say its own.
        self.language = 0
        self.norm = norm if norm is not None else nn.Identity()
        self.dropout = Dropout(dropout)
        self.scale = scale
        # In a tuple, so that the tables of the other model are not counted and saved twice.
        self._beneath: tuple[Embeddings, ...] = ()
        self._owner: tuple[Embeddings, ...] = (self,)

    def tie_to(self, owner: "Embeddings") -> None:
        """Read the token table of another model, which alone holds it; the gradients of both readers meet there."""
        del self.tokens
        self._owner = (owner,)

    def rest_on(self, beneath: "Embeddings") -> None:
        """Have the token table of another model lie under this one, which holds the difference from it.

        No gradient reaches the other through this one (gradient-disentangled sharing: He et al. 2021, section 3.2.2).
        """
        self._beneath = (beneath,)

    @property
    def table(self) -> Tensor:
        """The token table [V, E]."""
        own = self._owner[0].tokens.weight
        if not self._beneath:
            return own
        return own + self._beneath[0].tokens.weight.detach()

    def forward(self, batch: Batch) -> Tensor:
        """Return the embedded places of a batch, [B, T, E]."""
        return self.embed(batch.inputs, batch.positions, batch.type_ids, batch.languages)

    def embed(
        self,
        inputs_BT: Tensor,
        positions_BT: Tensor,
        type_ids_BT: Tensor | None = None,
        languages_BT: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the embeddings [B, T, E], normalised and dropped out."""
        embedded_BTE = self._owner[0].tokens(inputs_BT)
        if self._beneath:
            embedded_BTE = embedded_BTE + F.embedding(inputs_BT, self._beneath[0].tokens.weight.detach())
        if self.scale != 1.0:
            embedded_BTE = embedded_BTE * self.scale
        if self.positions is not None:
            embedded_BTE = embedded_BTE + self.positions.embed(positions_BT)
        if self.types is not None:
            # Without segments everything is the first one, as when a lone sentence is read.
            embedded_BTE = embedded_BTE + (self.types.weight[0] if type_ids_BT is None else self.types(type_ids_BT))
        if self.languages is not None:
            embedded_BTE = embedded_BTE + (
                self.languages.weight[self.language] if languages_BT is None else self.languages(languages_BT)
            )
        return self.dropout(self.norm(embedded_BTE))
