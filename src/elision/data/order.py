"""Randomness and order as pure functions of a seed and indices: nothing to save, nothing to replay on resume."""

import functools
import hashlib

import numpy as np

ROUNDS = 8


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Return the random generator that belongs to (seed, purpose, indices), and to nothing else.

    Counter-based (Philox): the key comes from seed and purpose, the upper words of the counter are up to three
    indices (for example epoch and example), so generators of different indices never overlap.
    """
    assert len(indices) <= 3
    counter = np.zeros(4, np.uint64)
    counter[1 : 1 + len(indices)] = indices
    return np.random.Generator(np.random.Philox(counter=counter, key=_key(seed, purpose)))


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Return a 63-bit seed for another library's generator (torch), a pure function of the arguments."""
    digest = hashlib.blake2b(repr((seed, purpose, indices)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def shuffled(index: np.ndarray, size: int, seed: int, purpose: str, *indices: int) -> np.ndarray:
    """Return where `index` goes under a keyed permutation of range(size), in O(1) memory.

    index: int64 array with entries in [0, size). A Feistel network permutes the smallest even-bit domain that holds
    `size`; results outside are sent through it again until they fall inside (cycle walking; under four rounds on
    average), which keeps it a bijection.
    """
    assert size > 0
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = _round_keys(seed, purpose, indices)
    values = np.array(index, dtype=np.uint64)
    pending = np.ones(values.shape, bool)
    while pending.any():
        left, right = values[pending] >> half, values[pending] & low
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & low)
        values[pending] = (left << half) | right
        pending &= values >= np.uint64(size)
    return values.astype(np.int64)


def shuffled_epochs(
    places: np.ndarray, size: int, seed: int, purpose: str, *indices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (epochs, indices), int64: what the endless sequence of shuffled epochs over range(size) holds at `places`.

    Every `size` places in a row hold each index once. At most two `indices` tell sequences of one purpose apart.
    """
    epochs, within = np.divmod(places, size)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        within[chosen] = shuffled(within[chosen], size, seed, purpose, *indices, int(epoch))
    return epochs, within


@functools.lru_cache(maxsize=64)
def _key(seed: int, purpose: str) -> np.ndarray:
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, np.uint64)


@functools.lru_cache(maxsize=64)
def _round_keys(seed: int, purpose: str, indices: tuple[int, ...]) -> np.ndarray:
    return generator(seed, f"shuffle/{purpose}", *indices).integers(0, 2**64, ROUNDS, dtype=np.uint64)


def _mix(value: np.ndarray) -> np.ndarray:
    # The finaliser of splitmix64 (Steele, Lea & Flood 2014): every output bit depends on every input bit.
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
