"""Words as their bytes: spelling, convolutions of several widths, highway layers (Kim et al. 2016; Peters et al. 2018).

W words, L characters, E character width, F filters, S symbols of the vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# After the 256 bytes: where a sentence begins and ends, where a word begins and ends, and empty places.
SENTENCE_BEGIN, SENTENCE_END, WORD_BEGIN, WORD_END, EMPTY = 256, 257, 258, 259, 260
NUM_CHARACTERS = 261

SPELLED_AS_ONE = {"<S>": SENTENCE_BEGIN, "</S>": SENTENCE_END}

# Products held at a time by the convolutions, in numbers: 2^20 float32 are 4 MiB, which stay in a cache.
CHUNK_NUMEL = 1 << 20


def spell(words: Sequence[str], num_characters: int = 50) -> np.ndarray:
    """Return how words are written, int16 [W, num_characters]: begin, UTF-8 bytes, end, then empty places.

    Bytes past num_characters - 2 are cut off. <S> and </S> are one character of their own each.

    A worked example: "ab" with room for 6 is 258 97 98 259 260 260.
    """
    table = np.full((len(words), num_characters), EMPTY, np.int16)
    table[:, 0] = WORD_BEGIN
    for row, word in zip(table, words):
        if word in SPELLED_AS_ONE:
            row[1:3] = SPELLED_AS_ONE[word], WORD_END
            continue
        written = word.encode("utf-8", "ignore")[: num_characters - 2]
        row[1 : len(written) + 1] = np.frombuffer(written, np.uint8)
        row[len(written) + 1] = WORD_END
    return table


class Highway(nn.Module):
    """y = g * relu(W_t x + b_t) + (1 - g) * x with g = sigmoid(W_c x + b_c) (Srivastava et al. 2015)."""

    def __init__(self, width: int):
        super().__init__()
        self.carry, self.transform = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, words_WF: Tensor) -> Tensor:
        """Return words of the same width."""
        gate_WF = torch.sigmoid(self.carry(words_WF))
        return words_WF + gate_WF * (F.relu(self.transform(words_WF)) - words_WF)


class WordEncoder(nn.Module):
    """From the characters of a word to its vector: embedding, convolutions, the most of each filter, highways, linear.

    A word has the same vector wherever it stands, so each distinct word of a batch is computed once.
    """

    def __init__(self, width: int, filters: Sequence[tuple[int, int]], character_width: int, num_highways: int):
        super().__init__()
        self.characters = nn.Embedding(NUM_CHARACTERS, character_width)
        self.filters = nn.ParameterList(
            nn.Parameter(torch.empty(reach * character_width, number)) for reach, number in filters
        )
        self.filter_biases = nn.ParameterList(nn.Parameter(torch.empty(number)) for _, number in filters)
        total = sum(number for _, number in filters)
        self.highways = nn.ModuleList(Highway(total) for _ in range(num_highways))
        self.output = nn.Linear(total, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as the released code does; a highway's gate starts nearly closed."""
        nn.init.uniform_(self.characters.weight, -1, 1)
        for weight, bias in zip(self.filters, self.filter_biases):
            nn.init.uniform_(weight, -0.05, 0.05)
            nn.init.zeros_(bias)
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
                nn.init.zeros_(linear.bias)
        for highway in self.highways:
            nn.init.constant_(highway.carry.bias, -2.0)

    def forward(self, spelled_WL: Tensor) -> Tensor:
        """Return the vectors [W, width] of words given as characters, int [W, L] (see `spell`)."""
        reach = max(weight.shape[0] for weight in self.filters) // self.characters.embedding_dim
        if spelled_WL.device.type == "cpu" and spelled_WL.numel():
            # Past the end of the longest word all windows are empty and alike: one of them stands for all.
            longest = int((spelled_WL != EMPTY).any(0).sum())
            spelled_WL = spelled_WL[:, : longest + reach]
        characters_WLE = F.embedding(spelled_WL.long(), self.characters.weight)
        dtype = characters_WLE.dtype
        with torch.autocast(spelled_WL.device.type, enabled=False):
            most = [_MaxConvolution.apply(characters_WLE, weight.to(dtype)) for weight in self.filters]
            # A bias is the same at every place, so it may come after the maximum.
            words_WF = F.relu(torch.cat(most, -1) + torch.cat(list(self.filter_biases)))
        for highway in self.highways:
            words_WF = highway(words_WF)
        return self.output(words_WF)

    def num_flops(self, num_characters: int) -> float:
        """Return the floating-point operations of matrix products for one word of `num_characters`."""
        width = self.characters.embedding_dim
        places = [num_characters - weight.shape[0] // width + 1 for weight in self.filters]
        convolutions = sum(weight.numel() * n for weight, n in zip(self.filters, places))
        linears = (module.weight.numel() for module in self.modules() if isinstance(module, nn.Linear))
        return 2.0 * (convolutions + sum(linears))


class _MaxConvolution(torch.autograd.Function):
    """The largest product of each filter with any window of a word.

    The products of all windows are held for a few words at a time only, forward and backward: together they would be
    hundreds of times larger than what remains of them.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, characters: Tensor, weight: Tensor) -> Tensor:
        windows = _windows(characters, weight)
        most = characters.new_empty(len(characters), weight.shape[1])
        where = torch.empty(most.shape, dtype=torch.int64, device=most.device)
        for part in _parts(windows, weight):
            torch.max(windows[part].flatten(0, 1).mm(weight).view(-1, windows.shape[1], weight.shape[1]), 1,
                      out=(most[part], where[part]))  # fmt: skip
        ctx.save_for_backward(characters, weight, where)
        return most

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor, Tensor]:
        characters, weight, where = ctx.saved_tensors
        windows = _windows(characters, weight)
        grad_characters, grad_weight = torch.zeros_like(characters), torch.zeros_like(weight)
        num_windows, width = windows.shape[1], characters.shape[-1]
        for part in _parts(windows, weight):
            slope = upstream.new_zeros(len(where[part]), num_windows, weight.shape[1])
            slope.scatter_(1, where[part][:, None], upstream[part][:, None])
            slope = slope.flatten(0, 1)
            grad_weight.addmm_(windows[part].flatten(0, 1).mT, slope)
            grad_windows = slope.mm(weight.mT).view(-1, num_windows, weight.shape[0])
            for place in range(weight.shape[0] // width):
                grad_characters[part, place : place + num_windows] += grad_windows[..., place * width :][..., :width]
        return grad_characters, grad_weight


def _windows(characters: Tensor, weight: Tensor) -> Tensor:
    """Return a view [W, number of windows, reach * E]: neighbouring characters lie side by side in memory."""
    words, length, width = characters.shape
    num_windows = length - weight.shape[0] // width + 1
    strides = (length * width, width, 1)
    return characters.contiguous().as_strided((words, num_windows, weight.shape[0]), strides)


def _parts(windows: Tensor, weight: Tensor) -> list[slice]:
    size = max(1, CHUNK_NUMEL // (windows.shape[1] * weight.shape[1]))
    if windows.device.type != "cpu":
        size *= 64
    return [slice(start, start + size) for start in range(0, len(windows), size)]
