"""LSTMs with a projected state and clipping (Sak, Senior & Beaufays 2014), several directions at a time.

PyTorch's own layer can project the state but not clip it, and on a CPU its projected form runs step by step through
autograd. Here the whole sequence is one function: the inputs of all steps go through one matrix product, a step is one
product, a few passes over the gates and the projection, and the gradients of all weights are again one product each.

D directions, T tokens, B rows, I input size, C cell size, P projection size.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ProjectedLSTM(nn.Module):
    """One layer in D directions that share nothing, each over a sequence of its own.

    c = clip(sigmoid(f + 1) * c + sigmoid(i) * tanh(j)), h = clip(W_p (sigmoid(o) * tanh(c))). The 1 is the forget bias:
    it is added here and is no part of the weights, as in TensorFlow's cell. The gates lie in the order o, i, f, j.
    """

    def __init__(
        self,
        input_size: int,
        cell_size: int,
        projection_size: int,
        *,
        num_directions: int = 2,
        cell_clip: float = 0.0,
        projection_clip: float = 0.0,
        forget_bias: float = 1.0,
    ):
        super().__init__()
        self.cell_clip, self.projection_clip, self.forget_bias = cell_clip, projection_clip, forget_bias
        self.input_weight = nn.Parameter(torch.empty(num_directions, input_size, 4 * cell_size))
        self.state_weight = nn.Parameter(torch.empty(num_directions, projection_size, 4 * cell_size))
        # One dimension only, which is what keeps weight decay away from a bias.
        self.bias = nn.Parameter(torch.empty(num_directions * 4 * cell_size))
        self.projection = nn.Parameter(torch.empty(num_directions, cell_size, projection_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as TensorFlow's cell does by default: Glorot's uniform rule over the joined kernel, biases 0."""
        rows, columns = self.input_weight.shape[1] + self.state_weight.shape[1], self.input_weight.shape[2]
        bound = (6 / (rows + columns)) ** 0.5
        nn.init.uniform_(self.input_weight, -bound, bound)
        nn.init.uniform_(self.state_weight, -bound, bound)
        nn.init.zeros_(self.bias)
        bound = (6 / sum(self.projection.shape[1:])) ** 0.5
        nn.init.uniform_(self.projection, -bound, bound)

    def forward(
        self, inputs_DTBI: Tensor, hidden_DBP: Tensor, cell_DBC: Tensor, keep_DTB1: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs [D, T, B, P] and the last state, hidden [D, B, P] and cell [D, B, C].

        keep_DTB1: 0 where a token starts anew, so that the state before it counts as zeros; else 1. None: always 1.
        Computed in the type of the weights, under autocast too: a state that is added to at every step wants its digits.
        """
        gates = self.bias.shape[0] // len(self.input_weight)
        dtype = self.input_weight.dtype
        inputs_DTBI, hidden_DBP, cell_DBC = (each.to(dtype) for each in (inputs_DTBI, hidden_DBP, cell_DBC))
        with torch.autocast(inputs_DTBI.device.type, enabled=False):
            return _Sequence.apply(
                inputs_DTBI,
                hidden_DBP,
                cell_DBC,
                keep_DTB1,
                self.input_weight,
                self.state_weight,
                self.bias.view(-1, gates),
                self.projection,
                self.cell_clip,
                self.projection_clip,
                self.forget_bias,
            )

    def num_flops(self) -> float:
        """Return the floating-point operations of matrix products for one token in one direction."""
        return 2.0 * sum(weight[0].numel() for weight in (self.input_weight, self.state_weight, self.projection))


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        inputs: Tensor,
        hidden: Tensor,
        cell: Tensor,
        keep: Tensor | None,
        input_weight: Tensor,
        state_weight: Tensor,
        bias: Tensor,
        projection: Tensor,
        cell_clip: float,
        projection_clip: float,
        forget_bias: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (D, T, B, _), C, P = inputs.shape, cell.shape[-1], hidden.shape[-1]
        shift = bias.clone()
        shift[:, 2 * C : 3 * C] += forget_bias
        gates = torch.baddbmm(shift[:, None], inputs.flatten(1, 2), input_weight).view(D, T, B, 4 * C)
        cells, tanhs, raised = (inputs.new_empty(D, T, B, C) for _ in range(3))
        outputs = inputs.new_empty(D, T, B, P)
        first_hidden, first_cell = hidden, cell
        for t in range(T):
            if keep is not None:
                hidden, cell = hidden * keep[:, t], cell * keep[:, t]
            gate = gates[:, t].baddbmm_(hidden, state_weight)
            gate[..., : 3 * C].sigmoid_()
            out_gate, in_gate, forget_gate, candidate = gate.split(C, -1)
            candidate.tanh_()
            cell = torch.mul(forget_gate, cell, out=cells[:, t]).addcmul_(in_gate, candidate)
            if cell_clip:
                cell.clamp_(-cell_clip, cell_clip)
            before = torch.mul(out_gate, torch.tanh(cell, out=tanhs[:, t]), out=raised[:, t])
            hidden = outputs[:, t].baddbmm_(before, projection, beta=0)
            if projection_clip:
                hidden.clamp_(-projection_clip, projection_clip)
        ctx.clips = cell_clip, projection_clip
        ctx.save_for_backward(
            inputs, first_hidden, first_cell, keep, input_weight, state_weight, projection,
            gates, cells, tanhs, raised, outputs,
        )  # fmt: skip
        return outputs, hidden.clone(), cell.clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_outputs: Tensor, grad_hidden: Tensor, grad_cell: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs, hidden, cell, keep, input_weight, state_weight, projection, *saved = ctx.saved_tensors
        gates, cells, tanhs, raised, outputs = saved
        cell_clip, projection_clip = ctx.clips
        T, C = inputs.shape[1], cell.shape[-1]
        previous_cells = torch.cat([cell[:, None], cells[:, :-1]], 1)
        previous_hidden = torch.cat([hidden[:, None], outputs[:, :-1]], 1)
        if keep is not None:
            previous_cells, previous_hidden = previous_cells * keep, previous_hidden * keep
        out_gate, in_gate, forget_gate, candidate = gates.split(C, -1)
        # What the gradient of each gate's sum is per unit of gradient: of what is projected for the output gate, of the
        # cell for the others. None of it depends on later steps, so it is done for all steps at once.
        slope = torch.empty_like(gates)
        out_slope, in_slope, forget_slope, candidate_slope = slope.split(C, -1)
        # s (1 - s) = s - s^2, and 1 - tanh^2.
        torch.addcmul(out_gate, out_gate, out_gate, value=-1, out=out_slope).mul_(tanhs)
        torch.addcmul(in_gate, in_gate, in_gate, value=-1, out=in_slope).mul_(candidate)
        torch.addcmul(forget_gate, forget_gate, forget_gate, value=-1, out=forget_slope).mul_(previous_cells)
        torch.mul(candidate, candidate, out=candidate_slope).mul_(in_gate).neg_().add_(in_gate)
        cell_slope = (tanhs * tanhs).mul_(out_gate).neg_().add_(out_gate)
        passes_cell = (cells.abs() < cell_clip).to(cells.dtype) if cell_clip else None
        passes_hidden = (outputs.abs() < projection_clip).to(outputs.dtype) if projection_clip else None
        into_projection = torch.empty_like(outputs)
        # Turned once rather than by every product of the loop, which then runs several times faster.
        back, down = state_weight.mT.contiguous(), projection.mT
        for t in reversed(range(T)):
            grad_hidden = torch.add(grad_outputs[:, t], grad_hidden, out=into_projection[:, t])
            if passes_hidden is not None:
                grad_hidden.mul_(passes_hidden[:, t])
            grad_raised = torch.bmm(grad_hidden, down)
            grad_cell = torch.addcmul(grad_cell, grad_raised, cell_slope[:, t])
            if passes_cell is not None:
                grad_cell.mul_(passes_cell[:, t])
            grad_gate = slope[:, t]
            grad_gate[..., :C].mul_(grad_raised)
            grad_gate[..., C:].unflatten(-1, (3, C)).mul_(grad_cell[..., None, :])
            grad_hidden = torch.bmm(grad_gate, back)
            grad_cell = grad_cell * forget_gate[:, t]
            if keep is not None:
                grad_hidden, grad_cell = grad_hidden * keep[:, t], grad_cell * keep[:, t]
        grad_gates = slope.flatten(1, 2)
        grad_inputs = torch.bmm(grad_gates, input_weight.mT).view_as(inputs) if ctx.needs_input_grad[0] else None
        return (
            grad_inputs,
            grad_hidden,
            grad_cell,
            None,
            torch.bmm(inputs.flatten(1, 2).mT, grad_gates),
            torch.bmm(previous_hidden.flatten(1, 2).mT, grad_gates),
            grad_gates.sum(1),
            torch.bmm(raised.flatten(1, 2).mT, into_projection.flatten(1, 2)),
            None,
            None,
            None,
        )
