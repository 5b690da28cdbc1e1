"""Keys and values of what has been read, so that decoding reads each token once.

B rows, G key-value heads, K tokens held, S places of a source, C channels of a head, E examples.
"""

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one layer, in buffers that double when full, so that appending is cheap.

    With a `window` only the last window - 1 tokens are in reach of what comes next; the buffer rolls and stays small.
    `cross`: keys and values [E, G, S, C] of what an encoder has read, formed once; None before, and without an encoder.
    """

    def __init__(self, window: int | None = None) -> None:
        self.window = window
        self.cross: tuple[Tensor, Tensor] | None = None
        self._key: Tensor | None = None
        self._value: Tensor | None = None
        self._begin = self._end = 0

    @property
    def num_held(self) -> int:
        """How many tokens are in reach of what comes next."""
        return self._end - self._begin

    def append(self, key_BGTC: Tensor, value_BGTC: Tensor) -> tuple[Tensor, Tensor]:
        """Add T tokens; returns keys and values [B, G, K, C] of them and of all tokens before that they can reach."""
        num_new = key_BGTC.shape[2]
        self._make_room(key_BGTC, num_new)
        end = self._end + num_new
        self._key[:, :, self._end : end] = key_BGTC
        self._value[:, :, self._end : end] = value_BGTC
        begin, self._end = self._begin, end
        if self.window is not None:
            self._begin = max(begin, end - self.window + 1)
        return self._key[:, :, begin:end], self._value[:, :, begin:end]

    def reorder(self, rows: Tensor) -> None:
        """Keep the given rows (int64 [B']), in that order; a beam search moves its hypotheses so.

        What the encoder has read stays: a hypothesis moves among those of its own example.
        """
        if self._key is not None:
            self._key, self._value = self._key.index_select(0, rows), self._value.index_select(0, rows)

    def forget(self, num_tokens: int) -> None:
        """Drop the last tokens; not with a window, whose buffer may have rolled."""
        assert self.window is None and num_tokens <= self._end
        self._end -= num_tokens

    def _make_room(self, new: Tensor, num_new: int) -> None:
        """Have room for so many more tokens: roll what is in reach to the front, or take a larger buffer."""
        rows, heads, _, channels = new.shape
        held = self._end - self._begin
        if self._key is not None and self._key.shape[2] >= self._end + num_new:
            return
        needed = held + num_new
        size = max(64, 1 << (needed - 1).bit_length()) if self.window is None else max(2 * self.window, needed)
        for name in ("_key", "_value"):
            before = getattr(self, name)
            grown = new.new_empty(rows, heads, size, channels)
            if before is not None:
                grown[:, :, :held] = before[:, :, self._begin : self._end]
            setattr(self, name, grown)
        self._begin, self._end = 0, held


class Cache:
    """One LayerCache for each layer of a model, and which of the places read are none.

    windows: how far each layer sees back (None = everything). padding [B]: how many places of padding each row begins with;
    None = none. source_seen: bool [E, S] or None (all), which places of the source may be looked at.
    """

    def __init__(self, windows: list[int | None], padding_B: Tensor | None = None):
        self.layers = [LayerCache(window) for window in windows]
        self.padding = padding_B
        self.source: Tensor | None = None
        self.source_seen: Tensor | None = None
        self.length = 0

    def reorder(self, rows: Tensor) -> None:
        """Keep the given rows in every layer."""
        for layer in self.layers:
            layer.reorder(rows)
        if self.padding is not None:
            self.padding = self.padding.index_select(0, rows)

    def keep_sources(self, examples: Tensor) -> None:
        """Keep the given sources (int64 [E']) of what an encoder has read, in that order."""
        if self.source_seen is not None:
            self.source_seen = self.source_seen.index_select(0, examples)
        for layer in self.layers:
            key, value = layer.cross
            layer.cross = key.index_select(0, examples), value.index_select(0, examples)

    def forget(self, num_tokens: int) -> None:
        """Drop the last tokens of every row: a guess that was read and turned out wrong."""
        for layer in self.layers:
            layer.forget(num_tokens)
        self.length -= num_tokens

    def seen(self, num_new: int, num_keys: int) -> Tensor | None:
        """Return bool [B, 1, T, K] or None (all): the keys, the last num_keys places read, that are no padding.

        Padding sees itself and more, since the softmax over nothing is no number.
        """
        if self.padding is None:
            return None
        end = self.length + num_new
        places = torch.arange(end, device=self.padding.device)
        real = places[None] >= self.padding[:, None]
        return real[:, None, None, -num_keys:] | ~real[:, None, -num_new:, None]
