"""Dropout on a CPU, by itself and inside attention: the right share, independent, and the gradients of the plain form."""

import math

import numpy as np
import pytest
import torch

from elision.data.batch import collate
from elision.data.example import Example
from elision.model import blockwise
from elision.model.attention import attend
from elision.model.dropout import Dropout, keep_mask, kept_share
from elision.model.visibility import CAUSAL, EVERYTHING, Visible, causal_mask, same_document

CPU = torch.device("cpu")


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 1 / 3])
def test_elements_are_dropped_at_the_rate_and_independently(rate: float) -> None:
    torch.manual_seed(0)
    kept = keep_mask(torch.Size([1001, 999]), rate).double()
    number = kept.numel()
    sigma = math.sqrt(rate * (1 - rate) / number)
    assert abs(float(kept.mean()) - (1 - rate)) < 3 * sigma
    assert kept_share(rate) == pytest.approx(1 - rate, abs=1 / 65536)
    # Four neighbours come from one draw: none of them tells of another.
    flat = kept.flatten()
    for distance in (1, 2, 3, 4, 999):
        both = float((flat[:-distance] * flat[distance:]).mean())
        assert abs(both - (1 - rate) ** 2) < 5 * sigma


def test_an_odd_number_of_elements_is_covered() -> None:
    assert [keep_mask(torch.Size([number]), 0.5).shape[0] for number in range(6)] == list(range(6))


def test_what_is_kept_is_scaled_so_that_the_mean_stays() -> None:
    torch.manual_seed(0)
    dropout, ones = Dropout(0.25), torch.ones(400, 400, dtype=torch.float64, requires_grad=True)
    dropped = dropout(ones)
    assert set(dropped.detach().unique().tolist()) == {0.0, 1 / kept_share(0.25)}
    assert float(dropped.detach().mean()) == pytest.approx(1, abs=0.01)
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped.detach()), "what was dropped gets no gradient"


def test_without_training_or_rate_nothing_happens() -> None:
    hidden = torch.randn(3, 3)
    assert Dropout(0.0)(hidden) is hidden
    assert Dropout(0.5).eval()(hidden) is hidden


def test_a_seed_fixes_what_is_dropped() -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def documents() -> Visible:
    rows = [[1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 3, 3, 3]]
    examples = [Example(np.zeros(7, int), np.zeros(7, bool), doc_ids=np.array(row)) for row in rows]
    return same_document(collate(examples, pad_id=0, packing=False))


CASES = {
    "everything": (EVERYTHING, 7),
    "causal": (CAUSAL, 7),
    "documents": (documents(), 7),
    "causal documents": (documents() & CAUSAL, 7),
    "a few queries": (Visible(causal_mask(3, 7, CPU)), 3),
}


def tensors(num_queries: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, length, 4, dtype=dtype, requires_grad=True) for length in (num_queries, 7, 7)]


@pytest.mark.parametrize("block", [1, 2, 3, 128])
@pytest.mark.parametrize("case", CASES)
def test_attention_in_blocks_equals_the_plain_form_with_the_same_weights_dropped(
    monkeypatch: pytest.MonkeyPatch, case: str, block: int
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK_QUERIES", block)
    visible, num_queries = CASES[case]
    query, key, value = tensors(num_queries)
    factors = []
    draw = blockwise._factor

    def remember(weight: torch.Tensor, dropout: float, seed: int) -> torch.Tensor:
        factor = draw(weight, dropout, seed)
        factors.append(factor.clone())
        return factor

    monkeypatch.setattr(blockwise, "_factor", remember)
    mixed = blockwise.attend_in_blocks(query, key, value, visible, 0.4)
    upstream = torch.randn_like(mixed)
    num_blocks = len(factors)
    ours = torch.autograd.grad(mixed, (query, key, value), upstream)
    # The backward pass drops what the forward pass dropped.
    assert all(torch.equal(one, other) for one, other in zip(factors[:num_blocks], factors[num_blocks:]))
    factor = torch.zeros(2, 3, num_queries, 7, dtype=torch.float64)
    seen = blockwise._blocks(num_queries, 7, visible)
    for (start, stop, low, high), part in zip(seen, factors[:num_blocks], strict=True):
        factor[:, :, start:stop, low:high] = part
    mask = causal_mask(num_queries, 7, CPU) if visible.causal else visible.mask
    score = query @ key.transpose(-1, -2) / math.sqrt(4)
    score = score if mask is None else score.masked_fill(~mask, float("-inf"))
    plain = (torch.softmax(score, -1) * factor) @ value
    torch.testing.assert_close(mixed, plain, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(ours, torch.autograd.grad(plain, (query, key, value), upstream)):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_almost_no_dropout_is_almost_the_fused_kernel(case: str) -> None:
    visible, num_queries = CASES[case]
    inputs = tensors(num_queries, torch.float32)
    torch.testing.assert_close(
        blockwise.attend_in_blocks(*inputs, visible, 1e-9), attend(*inputs, visible), rtol=1e-5, atol=1e-5
    )


def test_on_average_dropout_changes_no_attention() -> None:
    query, key, value = (tensor.detach() for tensor in tensors(7))
    torch.manual_seed(1)
    mean = torch.stack([attend(query, key, value, CAUSAL, dropout=0.3) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, attend(query, key, value, CAUSAL), rtol=0, atol=0.08)


def test_blocks_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "BLOCK_QUERIES", 8)
    # Equal scores and one-hot values: the output is the dropped weights themselves.
    zeros, values = torch.zeros(1, 1, 16, 16), torch.eye(16).view(1, 1, 16, 16)
    weights = blockwise.attend_in_blocks(zeros, zeros, values, EVERYTHING, 0.5)[0, 0]
    assert (weights == 0).any()
    assert not torch.equal(weights[:8], weights[8:])
