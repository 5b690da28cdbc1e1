"""Who may see whom: composition of visibilities, and the attention that obeys them."""

import pytest
import torch

from elision.data.batch import collate
from elision.data.example import Example
from elision.model.attention import attend, attend_reference
from elision.model.visibility import CAUSAL, EVERYTHING, Visible, causal_mask, same_document


def mask(rows: list[str]) -> torch.Tensor:
    """'x.' is: sees the first, not the second."""
    return torch.tensor([[character == "x" for character in row] for row in rows])


def batch(*doc_ids: list[int]) -> object:
    import numpy as np

    examples = [Example(np.zeros(len(row), int), np.zeros(len(row), bool), doc_ids=np.array(row)) for row in doc_ids]
    return collate(examples, pad_id=0, packing=False)


def test_a_causal_mask_lets_each_see_itself_and_what_came_before() -> None:
    assert torch.equal(causal_mask(3, 3, torch.device("cpu"))[0, 0], mask(["x..", "xx.", "xxx"]))


def test_queries_are_the_last_of_the_keys() -> None:
    assert torch.equal(causal_mask(2, 4, torch.device("cpu"))[0, 0], mask(["xxx.", "xxxx"]))


def test_documents_and_empty_places_keep_to_themselves() -> None:
    visible = same_document(batch([1, 1, 2], [1]))
    assert not visible.causal
    assert torch.equal(visible.mask[0, 0], mask(["xx.", "xx.", "..x"]))
    assert torch.equal(visible.mask[1, 0], mask(["x..", ".xx", ".xx"]))


def test_whole_rows_need_no_mask() -> None:
    assert same_document(batch([1, 1], [1, 1])) is EVERYTHING


def test_both_must_allow() -> None:
    left, right = Visible(mask(["xx", ".x"])[None, None]), Visible(mask(["x.", "xx"])[None, None])
    assert torch.equal((left & right).mask[0, 0], mask(["x.", ".x"]))
    assert torch.equal((left & EVERYTHING).mask, left.mask) and torch.equal((EVERYTHING & left).mask, left.mask)


@pytest.mark.parametrize("causal_first", [True, False])
def test_causal_within_documents(causal_first: bool) -> None:
    documents = same_document(batch([1, 1, 2]))
    joined = CAUSAL & documents if causal_first else documents & CAUSAL
    assert not joined.causal
    assert torch.equal(joined.mask[0, 0], mask(["x..", "xx.", "..x"]))


def test_causal_alone_stays_a_flag_that_kernels_know() -> None:
    for joined in (CAUSAL & EVERYTHING, EVERYTHING & CAUSAL, CAUSAL & CAUSAL):
        assert joined.causal and joined.mask is None
    assert not (EVERYTHING & EVERYTHING).causal


@pytest.mark.parametrize("case", ["everything", "causal", "documents", "causal documents", "cache"])
def test_fused_attention_equals_the_reference_with_all_gradients(case: str) -> None:
    torch.manual_seed(0)
    num_queries = 2 if case == "cache" else 5
    shapes = [(2, 3, num_queries, 4), (2, 3, 5, 4), (2, 3, 5, 4)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    documents = same_document(batch([1, 1, 1, 2, 2], [1, 2, 2]))
    visible = {
        "everything": EVERYTHING,
        "causal": CAUSAL,
        "documents": documents,
        "causal documents": documents & CAUSAL,
        "cache": Visible(causal_mask(2, 5, torch.device("cpu"))),
    }[case]
    fused = attend(*tensors, visible)
    reference, weights = attend_reference(*tensors, visible)
    # The reference takes its softmax in float32, as the papers do.
    torch.testing.assert_close(fused, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)), rtol=1e-6, atol=1e-6)
    if visible.mask is not None:
        assert not weights.masked_select(~visible.mask.expand_as(weights)).any()
    elif visible.causal:
        assert not weights.masked_select(~causal_mask(5, 5, torch.device("cpu")).expand_as(weights)).any()
    upstream = torch.randn_like(fused)
    for ours, theirs in zip(
        torch.autograd.grad(fused, tensors, upstream), torch.autograd.grad(reference, tensors, upstream)
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
