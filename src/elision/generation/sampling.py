"""Which token is taken: the likeliest, or one that is drawn.

R rows, V vocabulary.
"""

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from elision.generation.decoding import Decoding
from elision.model.heads import pick_by_share


def likely(scores_RV: Tensor, decoding: Decoding) -> Tensor:
    """Return the probabilities that tokens are drawn with, up to a factor for each row; some are 0.

    Temperature first, then top_k, top_p of what that leaves, and min_p.
    """
    scores_RV = scores_RV.to(torch.promote_types(scores_RV.dtype, torch.float32)) / decoding.temperature
    if 0 < decoding.top_k < scores_RV.shape[1]:
        least_R1 = scores_RV.topk(decoding.top_k).values[:, -1:]
        scores_RV = scores_RV.masked_fill(scores_RV < least_R1, float("-inf"))
    shares_RV = torch.softmax(scores_RV, -1)
    if decoding.top_p < 1:
        ordered, ids = shares_RV.sort(descending=True, stable=True)
        # A token stays when those before it have not reached the share yet, so the first one always does.
        ordered[ordered.cumsum(-1) - ordered >= decoding.top_p] = 0
        shares_RV = torch.zeros_like(shares_RV).scatter_(1, ids, ordered)
    if decoding.min_p > 0:
        shares_RV = shares_RV.masked_fill(shares_RV < decoding.min_p * shares_RV.amax(-1, keepdim=True), 0)
    return shares_RV


class Choice:
    """Takes a token for each row of scores; what a row draws depends on its own number generator alone."""

    def __init__(self, decoding: Decoding, prompts: Sequence[Sequence[int]]):
        """prompts: for each row; rows of equal prompts are that many samples of one."""
        self.decoding = decoding
        self._draws: list[np.random.Generator] = []
        if decoding.temperature > 0:
            seed = secrets.randbits(63) if decoding.seed is None else decoding.seed
            self._draws = [
                generator(seed, prompt, sample) for prompt in prompts for sample in range(decoding.num_samples)
            ]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        self._draws = [self._draws[row] for row in rows] if self._draws else []

    def __call__(self, scores_RV: Tensor) -> Tensor:
        """Return int64 [R]."""
        if not self._draws:
            return scores_RV.argmax(-1)
        draws_R = torch.tensor([draws.random() for draws in self._draws], dtype=torch.float64)
        # On the CPU, so that a seed gives the same text on every device.
        return pick_by_share(likely(scores_RV, self.decoding).cpu(), draws_R).to(scores_RV.device)


def generator(seed: int, prompt: Sequence[int], sample: int) -> np.random.Generator:
    """Return the numbers of one sample of one prompt: other prompts and samples do not change them."""
    digest = hashlib.blake2b(np.array([seed, sample, *prompt], np.int64).tobytes(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.uint64)))
