"""Visibility: who may see whom while a text is restored. True = may attend.

B rows, Q queries, K keys.
"""

import dataclasses

import torch
from torch import Tensor

from elision.data.batch import Batch


@dataclasses.dataclass(frozen=True, eq=False)
class Visible:
    """What attention needs to know, as conditions that all must hold.

    `mask`: bool [B or 1, 1, Q or 1, K] or None (all). `causal`: a query sees itself and what came before. `window`: of what
    came before it sees no more than the last window - 1. The Q queries are the last ones of the K keys. Without a mask,
    `causal` and `window` let kernels skip what nobody sees without being handed a mask.
    """

    mask: Tensor | None = None
    causal: bool = False
    window: int | None = None

    def __and__(self, other: "Visible") -> "Visible":
        """Return what both allow."""
        causal, window = self.causal or other.causal, self.window
        if window is None or (other.window is not None and other.window < window):
            window = other.window
        masks = [side.mask for side in (self, other) if side.mask is not None]
        if not masks:
            return Visible(None, causal, window)
        joined = Visible(masks[0] if len(masks) == 1 else masks[0] & masks[1], causal, window)
        num_queries, num_keys = joined.mask.shape[-2:]
        if num_queries == 1:
            # It may stand for all queries alike, and how many those are is known only where they are.
            return joined
        return Visible(joined.matrix(num_queries, num_keys, joined.mask.device))

    def matrix(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor | None:
        """Return all conditions as one mask, bool [B or 1, 1, Q or 1, K], or None where everything is seen."""
        mask = self.mask
        if self.causal and num_queries > 1:
            before = causal_mask(num_queries, num_keys, device)
            mask = before if mask is None else mask & before
        if self.window is not None and self.window < num_keys:
            near = window_mask(num_queries, num_keys, self.window, device)
            mask = near if mask is None else mask & near
        return mask


EVERYTHING = Visible()
CAUSAL = Visible(causal=True)


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return bool [1, 1, Q, K]: query i is the (K - Q + i)-th of the keys and sees those up to itself."""
    keys = torch.arange(num_keys, device=device)
    queries = keys[num_keys - num_queries :]
    return (keys[None, :] <= queries[:, None])[None, None]


def window_mask(num_queries: int, num_keys: int, window: int, device: torch.device) -> Tensor:
    """Return bool [1, 1, Q, K]: query i, the (K - Q + i)-th of the keys, sees itself, the window - 1 before, all behind."""
    keys = torch.arange(num_keys, device=device)
    queries = keys[num_keys - num_queries :]
    return (keys[None, :] > queries[:, None] - window)[None, None]


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
