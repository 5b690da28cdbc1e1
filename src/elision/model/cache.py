"""Keys and values of what has been read, so that decoding reads each token once.

B rows, H heads, K tokens held, C channels of a head.
"""

from torch import Tensor


class LayerCache:
    """Keys and values of one layer, in buffers that double when full, so that appending is cheap."""

    def __init__(self) -> None:
        self._key: Tensor | None = None
        self._value: Tensor | None = None
        self.length = 0

    def append(self, key_BHTC: Tensor, value_BHTC: Tensor) -> tuple[Tensor, Tensor]:
        """Add T tokens; returns the keys and values of all tokens so far, [B, H, K, C] each."""
        end = self.length + key_BHTC.shape[2]
        self._key, self._value = self._room(self._key, key_BHTC, end), self._room(self._value, value_BHTC, end)
        self._key[:, :, self.length : end] = key_BHTC
        self._value[:, :, self.length : end] = value_BHTC
        self.length = end
        return self._key[:, :, :end], self._value[:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Keep the given rows (int64 [B']), in that order; a beam search moves its hypotheses so."""
        if self._key is not None and self._value is not None:
            self._key, self._value = self._key.index_select(0, rows), self._value.index_select(0, rows)

    def _room(self, held: Tensor | None, new: Tensor, end: int) -> Tensor:
        if held is not None and held.shape[2] >= end:
            return held
        rows, heads, _, channels = new.shape
        grown = new.new_empty(rows, heads, max(64, 1 << (end - 1).bit_length()), channels)
        if held is not None:
            grown[:, :, : self.length] = held[:, :, : self.length]
        return grown


class Cache:
    """One LayerCache for each layer of a model."""

    def __init__(self, num_layers: int):
        self.layers = [LayerCache() for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """How many tokens of each row it holds."""
        return self.layers[0].length

    def reorder(self, rows: Tensor) -> None:
        """Keep the given rows in every layer."""
        for layer in self.layers:
            layer.reorder(rows)
