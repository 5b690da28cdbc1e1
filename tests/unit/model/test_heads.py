"""The chunked cross-entropy equals PyTorch's, with all its gradients."""

import pytest
import torch
import torch.nn.functional as F

from elision.model import heads
from elision.model.heads import MaskedHead, VocabularyHead, cross_entropy_sum

NUM, WIDTH, VOCABULARY = 13, 6, 11


def problem(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    hidden = torch.randn(NUM, WIDTH, dtype=dtype, requires_grad=True)
    table = torch.randn(VOCABULARY, WIDTH, dtype=dtype, requires_grad=True)
    offset = torch.randn(VOCABULARY, dtype=dtype, requires_grad=True) if bias else None
    return hidden, table, offset, torch.randint(VOCABULARY, (NUM,))


@pytest.mark.parametrize("chunk_places", [1, 4, 13, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_every_gradient_equal_the_plain_form(
    monkeypatch: pytest.MonkeyPatch, bias: bool, chunk_places: int
) -> None:
    monkeypatch.setattr(heads, "CHUNK_NUMEL", chunk_places * VOCABULARY)
    hidden, table, offset, targets = problem(bias)
    wanted = [tensor for tensor in (hidden, table, offset) if tensor is not None]
    ours = cross_entropy_sum(hidden, table, offset, targets)
    plain = F.cross_entropy(F.linear(hidden, table, offset), targets, reduction="sum")
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    # Times a number, as a weight or a loss scale would do.
    for mine, theirs in zip(torch.autograd.grad(3.7 * ours, wanted), torch.autograd.grad(3.7 * plain, wanted)):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_agree_with_finite_differences(bias: bool) -> None:
    hidden, table, offset, targets = problem(bias)
    tensors = [tensor for tensor in (hidden, table, offset) if tensor is not None]
    gradients = torch.autograd.grad(0.3 * cross_entropy_sum(hidden, table, offset, targets), tensors)
    step = 1e-5
    with torch.no_grad():
        for tensor, gradient in zip(tensors, gradients):
            flat = tensor.view(-1)
            for index in range(len(flat)):
                held = flat[index].clone()
                values = []
                for sign in (1, -1):
                    flat[index] = held + sign * step
                    values.append(0.3 * float(cross_entropy_sum(hidden, table, offset, targets)))
                flat[index] = held
                assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(gradient.view(-1)[index]), abs=1e-8)


def test_a_second_backward_pass_through_one_loss_fails_rather_than_giving_wrong_gradients() -> None:
    hidden, table, offset, targets = problem(True)
    loss = 0.5 * cross_entropy_sum(hidden, table, offset, targets)
    loss.backward(retain_graph=True)
    first = table.grad.clone()
    try:
        loss.backward()
    except RuntimeError:
        return
    torch.testing.assert_close(table.grad, 2 * first)


@pytest.mark.parametrize("frozen", ["hidden", "table", "bias"])
def test_a_frozen_input_gets_no_gradient_and_changes_no_other(frozen: str) -> None:
    reference = dict(zip(("hidden", "table", "bias"), problem(True)))
    tensors = dict(zip(("hidden", "table", "bias"), problem(True)))
    targets = problem(True)[3]
    tensors[frozen] = tensors[frozen].detach()
    cross_entropy_sum(*reference.values(), targets).backward()
    cross_entropy_sum(*tensors.values(), targets).backward()
    assert tensors[frozen].grad is None
    for name, tensor in tensors.items():
        if name != frozen:
            torch.testing.assert_close(tensor.grad, reference[name].grad, rtol=0, atol=0)


def test_under_autocast_it_computes_in_bfloat16_and_returns_float32() -> None:
    hidden, table, offset, targets = problem(True, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy_sum(hidden, table, offset, targets)
    loss.backward()
    exact = F.cross_entropy(F.linear(hidden, table, offset), targets, reduction="sum")
    assert loss.dtype == torch.float32
    assert {hidden.grad.dtype, table.grad.dtype, offset.grad.dtype} == {torch.float32}
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0.02)
    gradient = torch.autograd.grad(exact, table)[0]
    torch.testing.assert_close(table.grad, gradient, rtol=0.1, atol=0.05)


def test_no_place_with_a_target_costs_nothing() -> None:
    hidden, table, offset, _ = problem(True)
    loss = cross_entropy_sum(hidden[:0], table, offset, torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not table.grad.any() and not offset.grad.any()


def test_extreme_scores_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    table = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    loss = cross_entropy_sum(hidden, table, None, torch.tensor([1, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2e4)
    assert torch.isfinite(hidden.grad).all() and torch.isfinite(table.grad).all()


def test_without_gradients_the_value_is_the_same() -> None:
    hidden, table, offset, targets = problem(True)
    with torch.no_grad():
        quiet = cross_entropy_sum(hidden, table, offset, targets)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, cross_entropy_sum(hidden, table, offset, targets).detach())


def test_a_heads_loss_is_the_cross_entropy_of_its_logits() -> None:
    torch.manual_seed(0)
    hidden, table, _, targets = problem(False, torch.float32)
    for head in (
        VocabularyHead(VOCABULARY, bias=False),
        VocabularyHead(VOCABULARY, bias=True),
        MaskedHead(VOCABULARY, WIDTH, WIDTH, F.gelu, 1e-12),
    ):
        if head.bias is not None:
            torch.nn.init.normal_(head.bias)
        plain = F.cross_entropy(head.logits(hidden, table), targets, reduction="sum")
        torch.testing.assert_close(head.loss(hidden, table, targets), plain)


def test_label_smoothing_and_z_loss_are_pytorchs_and_the_formula_with_their_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = ((37, 8), (50, 8), (50,))
    inputs = [torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for shape in shapes]
    targets = torch.randint(50, (37,), generator=generator)
    ours = cross_entropy_sum(*inputs, targets, 0.1, 0.01)
    hidden, table, bias = inputs
    logits = hidden @ table.T + bias
    expected = F.cross_entropy(logits, targets, label_smoothing=0.1, reduction="sum")
    expected = expected + 0.01 * logits.logsumexp(-1).square().sum()
    torch.testing.assert_close(ours, expected)
    for one, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(one, other)


def test_label_smoothing_and_z_loss_act_in_training_only() -> None:
    head = VocabularyHead(50, bias=False, own_width=8, label_smoothing=0.1, z_loss=0.01)
    hidden, table, targets = torch.randn(5, 8), torch.randn(50, 3), torch.randint(50, (5,))
    plain = F.cross_entropy(head.logits(hidden, table), targets, reduction="sum")
    torch.testing.assert_close(head.eval().loss(hidden, table, targets), plain)
    assert head.train().loss(hidden, table, targets) > plain
