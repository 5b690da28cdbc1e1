"""How position enters a model: by one of three hooks, which each scheme names in `hook`.

- "embed": something is added to the token embeddings. `build(width of the embeddings)` gives a module with
  `embed(positions [B, T]) -> [B, T, D]`.
- "rotate": queries and keys are turned. `build(channels of a head)` gives a module whose `angles(positions [B, T], dtype)`
  are computed once and handed to every block, which turns with `rotated(states, angles)`.
- "bias": something is added to the attention scores. `build(number of heads)` gives a module with
  `bias(query positions [Q], key positions [K], bidirectional) -> [H, Q, K]`, the same for every block.

`num_positions` says how many positions there are, None = no end to them.

B rows, T tokens, Q queries, K keys, D width, H heads, C channels of a head, R of them that are turned in pairs.
"""

import dataclasses
import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elision.errors import InputError


@dataclasses.dataclass(frozen=True)
class LearnedPositions:
    """A trained vector for each absolute position, added to the token embeddings (BERT, GPT)."""

    num_positions: int = 512
    """how many positions there are: no sequence can be longer"""
    offset: int = 0
    """rows of the table before the one of the first token; fairseq's models (RoBERTa, XLM-R, BART) have 2"""

    hook: ClassVar[str] = "embed"

    def build(self, width: int) -> "LearnedPositionTable":
        """Return the module that holds the table."""
        return LearnedPositionTable(self.num_positions, self.offset, width)


class LearnedPositionTable(nn.Module):
    """The table of `LearnedPositions`: embed(positions [B, T]) -> [B, T, D]."""

    def __init__(self, num_positions: int, offset: int, width: int):
        super().__init__()
        self.offset = offset
        self.table = nn.Embedding(num_positions + offset, width)

    def embed(self, positions_BT: Tensor) -> Tensor:
        """Return what is added to the token embeddings at these positions, [B, T, D]."""
        return self.table(positions_BT + self.offset if self.offset else positions_BT)


@dataclasses.dataclass(frozen=True)
class SinusoidalPositions:
    """Fixed sines and cosines of each absolute position, added to the token embeddings.

    Vaswani et al. 2017, section 3.5: channel 2i holds sin(p / 10000^(2i / D)), channel 2i + 1 the cosine.
    """

    num_positions: int = 512
    """how many positions there are: no sequence can be longer"""
    layout: Literal["interleaved", "halves"] = "interleaved"
    """sine and cosine in turn (the paper, XLM), or all sines before all cosines (CTRL, Marian)"""
    divisor: Literal["half", "half_minus_one"] = "half"
    """steps from the shortest wave length to the longest: D / 2 (the paper), or D / 2 - 1, so that the last is exactly
    10000 (tensor2tensor, fairseq, Marian in C++)"""

    hook: ClassVar[str] = "embed"

    def build(self, width: int) -> "SinusoidalPositionTable":
        """Return the module that holds the table."""
        return SinusoidalPositionTable(self, width)


class SinusoidalPositionTable(nn.Module):
    """The table of `SinusoidalPositions`: embed(positions [B, T]) -> [B, T, D]. A buffer: nothing trains it."""

    def __init__(self, settings: SinusoidalPositions, width: int):
        super().__init__()
        self.register_buffer("table", sinusoids(settings.num_positions, width, settings.layout, settings.divisor))

    def embed(self, positions_BT: Tensor) -> Tensor:
        """Return what is added to the token embeddings at these positions, [B, T, D]."""
        return self.table[positions_BT]


def sinusoids(
    num_positions: int,
    width: int,
    layout: Literal["interleaved", "halves"] = "interleaved",
    divisor: Literal["half", "half_minus_one"] = "half",
) -> Tensor:
    """Return the table of `SinusoidalPositions`, float32 [num_positions, width]."""
    steps = width if divisor == "half" else max(width - 2, 1)
    # In float64: the angle of a far position has few digits left behind the point in float32.
    exact = torch.arange(max(num_positions, width), dtype=torch.float64)
    angle_PI = exact[:num_positions, None] * torch.exp(exact[:width:2] * (-math.log(10000.0) / steps))
    sines_PI, cosines_PI = torch.sin(angle_PI).float(), torch.cos(angle_PI[:, : width // 2]).float()
    if layout == "halves":
        return torch.cat([sines_PI, cosines_PI], 1)
    table_PD = torch.empty(num_positions, width)
    table_PD[:, 0::2], table_PD[:, 1::2] = sines_PI, cosines_PI
    return table_PD


@dataclasses.dataclass(frozen=True)
class RotaryPositions:
    """Queries and keys are turned by angles that grow with position, so that their product knows only the distance.

    Su et al. 2021 (RoFormer), section 3.2.2: pair i of the R turned channels turns by p / theta^(2i / R) at position p.
    """

    theta: float = 10000.0
    """base of the wave lengths"""
    share: float = 1.0
    """how much of each head turns, its first channels; the others carry no position (GPT-NeoX: 0.25)"""
    layout: Literal["halves", "pairs"] = "halves"
    """what makes a pair: channel i and channel R / 2 + i (GPT-NeoX, Hugging Face), or neighbours (the paper, Meta's
    LLaMA); the same functions, with the rows of the weights in another order (`halves_from_pairs`)"""
    num_positions: int = 2048
    """the longest sequence; there is no table, but what was never trained is not known either"""

    hook: ClassVar[str] = "rotate"

    def build(self, head_size: int) -> "Rotation":
        """Return the module that computes the angles; it holds no weights.

        Raises: InputError when the channels that turn are not an even number.
        """
        return Rotation(self, head_size)


@dataclasses.dataclass(frozen=True, eq=False)
class Angles:
    """Cosines and sines of the angles by which tokens are turned, [B, 1, T, R / 2], and what makes a pair."""

    cosine: Tensor
    sine: Tensor
    pairs: bool


class Rotation(nn.Module):
    """The module of `RotaryPositions`."""

    def __init__(self, settings: RotaryPositions, head_size: int):
        super().__init__()
        self.num_turned = int(settings.share * head_size)
        if not 0 < self.num_turned <= head_size or self.num_turned % 2:
            raise InputError(
                f"positions.share {settings.share} of heads of {head_size} channels turns {self.num_turned} of them, but "
                f"they turn in pairs: choose a share (or head_size) that makes it an even number from 2 to {head_size}"
            )
        self.theta, self.pairs = settings.theta, settings.layout == "pairs"

    def angles(self, positions_BT: Tensor, dtype: torch.dtype) -> Angles:
        """Return the angles at these positions for states of `dtype`; computed in at least float32."""
        exact = torch.promote_types(dtype, torch.float32)
        powers = torch.arange(0, self.num_turned, 2, device=positions_BT.device).to(exact) / self.num_turned
        angle_B1TR = positions_BT[:, None, :, None].to(exact) * (1.0 / self.theta**powers)
        return Angles(angle_B1TR.cos().to(dtype), angle_B1TR.sin().to(dtype), self.pairs)

    def rotate(self, query_BHQC: Tensor, key_BGQC: Tensor, positions_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys turned to their positions."""
        angles = self.angles(positions_BQ, query_BHQC.dtype)
        return rotated(query_BHQC, angles), rotated(key_BGQC, angles)

    def extra_repr(self) -> str:
        """Return what repr() shows."""
        return f"theta={self.theta}, num_turned={self.num_turned}, pairs={self.pairs}"


def rotated(states_BHTC: Tensor, angles: Angles) -> Tensor:
    """Return the states, in their own type, with each pair of their first channels turned by its angle."""
    alike = states_BHTC.dtype == angles.cosine.dtype
    if alike and states_BHTC.device.type == "cpu" and not torch.compiler.is_compiling():
        return _CpuRotation.apply(states_BHTC, angles.cosine, angles.sine, angles.pairs)
    one, other, rest = _paired(states_BHTC, angles.cosine.shape[-1], angles.pairs)
    parts = [one * angles.cosine - other * angles.sine, other * angles.cosine + one * angles.sine]
    if angles.pairs:
        parts = [torch.stack(parts, -1).flatten(-2)]
    # Under autocast states are shorter numbers than angles: the turning is exact, its result is rounded.
    return torch.cat([*(part.to(rest.dtype) for part in parts), rest], -1)


def _paired(states: Tensor, half: int, pairs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of the first and the second channel of every pair, [..., half] each, and of those that do not turn."""
    turned, rest = states[..., : 2 * half], states[..., 2 * half :]
    one, other = turned.unflatten(-1, (half, 2)).unbind(-1) if pairs else turned.split(half, -1)
    return one, other, rest


class _CpuRotation(torch.autograd.Function):
    """On a CPU every step is a pass over memory, so here are as few as there can be; turning back is the gradient."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, states: Tensor, cosine: Tensor, sine: Tensor, pairs: bool
    ) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.pairs = pairs
        return _turned(states, cosine, sine, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        return _turned(upstream, cosine, -sine, ctx.pairs), None, None, None


def _turned(states: Tensor, cosine: Tensor, sine: Tensor, pairs: bool) -> Tensor:
    turned = torch.empty(states.shape, dtype=states.dtype)
    one, other, rest = _paired(states, cosine.shape[-1], pairs)
    new_one, new_other, new_rest = _paired(turned, cosine.shape[-1], pairs)
    torch.mul(one, cosine, out=new_one).addcmul_(other, sine, value=-1)
    torch.mul(other, cosine, out=new_other).addcmul_(one, sine)
    new_rest.copy_(rest)
    return turned


def halves_from_pairs(rows: Tensor, head_size: int) -> Tensor:
    """Return the rows of a projection to queries or keys, [heads * head_size, ...], trained with layout "pairs", in the
    order that layout "halves" needs for the same function; for heads that turn whole (share 1)."""
    return rows.unflatten(0, (-1, head_size // 2, 2)).transpose(1, 2).flatten(0, 2)


def pairs_from_halves(rows: Tensor, head_size: int) -> Tensor:
    """Return what `halves_from_pairs` was given."""
    return rows.unflatten(0, (-1, 2, head_size // 2)).transpose(1, 2).flatten(0, 2)


@dataclasses.dataclass(frozen=True)
class RelativePositions:
    """A trained number for each head and each bucket of distances, added to the attention scores (T5).

    Raffel et al. 2020, section 2.1: near distances have a bucket each, farther ones share them, ever more to one, up to
    `max_distance`, from where on all share the last.
    """

    num_buckets: int = 32
    """buckets; where a query sees both ways half of them are for keys that come later"""
    max_distance: int = 128
    """distances from here on share the last bucket"""

    hook: ClassVar[str] = "bias"
    num_positions: ClassVar[None] = None

    def build(self, num_heads: int) -> "RelativeBias":
        """Return the module that holds the numbers."""
        return RelativeBias(self, num_heads)


class RelativeBias(nn.Module):
    """The module of `RelativePositions`; one serves all blocks of a stack."""

    def __init__(self, settings: RelativePositions, num_heads: int):
        super().__init__()
        self.num_buckets, self.max_distance = settings.num_buckets, settings.max_distance
        self.table = nn.Embedding(settings.num_buckets, num_heads)

    def bias(self, query_positions_Q: Tensor, key_positions_K: Tensor, bidirectional: bool) -> Tensor:
        """Return what is added to the scores, [H, Q, K].

        Places in a row serve as positions too, where rows hold several documents: within one, distances are the same.
        """
        offset_QK = key_positions_K[None, :] - query_positions_Q[:, None]
        bucket_QK = buckets(offset_QK, bidirectional, self.num_buckets, self.max_distance)
        return self.table(bucket_QK).permute(2, 0, 1).contiguous()


def buckets(offset: Tensor, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """Return the bucket, int64, of each offset (position of the key minus that of the query)."""
    if bidirectional:
        num_buckets //= 2
        later = (offset > 0).long() * num_buckets
        distance = offset.abs()
    else:
        later = 0
        distance = (-offset).clamp(min=0)
    num_exact = num_buckets // 2
    # In float32, as in the released code: rounding decides at the edges of buckets.
    log = torch.log(distance.clamp(min=1).float() / num_exact) / math.log(max_distance / num_exact)
    far = (num_exact + (log * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    return later + torch.where(distance < num_exact, distance, far)


PositionScheme = LearnedPositions | SinusoidalPositions | RotaryPositions | RelativePositions
