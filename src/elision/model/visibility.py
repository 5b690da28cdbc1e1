"""Visibility: who may see whom while a text is restored. True = may attend.

B rows, Q queries, K keys.
"""

import dataclasses

import torch
from torch import Tensor

from elision.data.batch import Batch


@dataclasses.dataclass(frozen=True, eq=False)
class Visible:
    """What attention needs to know: `mask` bool [B or 1, 1, Q, K] or None (all), and whether it is plainly causal.

    `causal` with no mask lets fused kernels skip the upper triangle without being handed one.
    """

    mask: Tensor | None = None
    causal: bool = False

    def __and__(self, other: "Visible") -> "Visible":
        """Return what both allow."""
        if self.mask is None and other.mask is None:
            return Visible(None, self.causal or other.causal)
        mask = None
        for side in (self, other):
            if side.mask is not None:
                mask = side.mask if mask is None else mask & side.mask
        if self.causal or other.causal:
            assert mask is not None
            mask = mask & causal_mask(mask.shape[-2], mask.shape[-1], mask.device)
        return Visible(mask)


EVERYTHING = Visible()
CAUSAL = Visible(causal=True)


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return bool [1, 1, Q, K]: query i is the (K - Q + i)-th of the keys and sees those up to itself."""
    keys = torch.arange(num_keys, device=device)
    queries = keys[num_keys - num_queries :]
    return (keys[None, :] <= queries[:, None])[None, None]


def same_document(batch: Batch) -> Visible:
    """Tokens of one document see each other; empty places see only each other. No mask when rows are whole."""
    if batch.whole_rows:
        return EVERYTHING
    return Visible((batch.doc_ids[:, :, None] == batch.doc_ids[:, None, :])[:, None])


def permuted(batch: Batch, itself: bool = True) -> Visible:
    """Who sees whom in a batch that has an order: each token those of its document that stand no later in it.

    Tokens that are given all have the first place of their stretch in common and see each other; those that are to be
    restored, and symbols, each have a place of their own (see `PermutationMask`). `itself`: whether a token also sees its
    own place: so in XLNet's content stream, while the queries, which must restore it, see only what stands earlier.
    """
    query_BQ1, key_B1K = batch.order[:, :, None], batch.order[:, None, :]
    earlier = key_B1K <= query_BQ1 if itself else key_B1K < query_BQ1
    return Visible(earlier[:, None]) & same_document(batch)
