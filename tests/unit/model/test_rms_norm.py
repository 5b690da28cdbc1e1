"""The root mean square norm equals PyTorch's."""

import pytest
import torch

from elision.model.rms_norm import RMSNorm


@pytest.mark.parametrize("shape", [(3, 5, 16), (7, 16)])
def test_value_and_gradients_are_pytorchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours, theirs = RMSNorm(16, 1e-3).double(), torch.nn.RMSNorm(16, 1e-3).double()
    weight = torch.randn(16, dtype=torch.float64)
    for norm in (ours, theirs):
        norm.weight.data.copy_(weight)
    upstream = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours(hidden), theirs(hidden))
    with torch.no_grad():
        torch.testing.assert_close(ours(hidden), theirs(hidden))
    one = torch.autograd.grad(ours(hidden), (hidden, ours.weight), upstream)
    other = torch.autograd.grad(theirs(hidden), (hidden, theirs.weight), upstream)
    for mine, its in zip(one, other):
        torch.testing.assert_close(mine, its)


def test_it_does_not_depend_on_the_scale_of_its_input() -> None:
    hidden = torch.randn(4, 16, dtype=torch.float64)
    norm = RMSNorm(16, eps=0.0).double()
    torch.testing.assert_close(norm(5 * hidden), norm(hidden))


def test_halves_are_summed_in_float32() -> None:
    hidden = torch.full((1, 4096), 300.0, dtype=torch.float16)
    norm = RMSNorm(4096).half()
    assert norm(hidden).dtype == torch.float16
    assert (norm(hidden) == 1).all()
