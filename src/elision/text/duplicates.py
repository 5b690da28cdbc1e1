"""Documents seen before: exact copies by hash in a table on disk, near copies by MinHash."""

import hashlib
import os
from pathlib import Path

import numpy as np

from elision.errors import InputError

_FIRST_CAPACITY = 1 << 16
_CHUNK = 1 << 20


def hash_text(data: bytes) -> tuple[int, int]:
    """Return two independent 64-bit hashes of a text: one tells copies apart, the other decides the split."""
    digest = hashlib.blake2b(data, digest_size=16).digest()
    # 0 marks an empty slot of the table.
    return int.from_bytes(digest[:8], "little") or 1, int.from_bytes(digest[8:], "little")


class SeenTable:
    """A memory-mapped hash table from text hash to the number of the first document that had it.

    Because it keeps which document came first, asking again about the same documents gives the same answers: work that
    was killed and repeated does not take a document for its own copy. 16 bytes a document at half load, on disk.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            self._create(path, _FIRST_CAPACITY)
        self._map(path)
        self._size = int(
            sum(np.count_nonzero(self._table[i : i + _CHUNK, 0]) for i in range(0, self._capacity, _CHUNK))
        )

    def is_copy(self, hashes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Tell for each hash (uint64 [n], not 0) whether a document of a lower number had it; remember the new ones.

        `numbers` (int64 [n]) count the documents of the corpus and must rise.
        """
        if (self._size + len(hashes)) * 2 > self._capacity:
            self._grow(self._size + len(hashes))
        copies = np.zeros(len(hashes), dtype=bool)
        firsts = self._insert(hashes, numbers.astype(np.uint64))
        np.less(firsts, numbers.astype(np.uint64), out=copies)
        return copies

    def flush(self) -> None:
        """Make what was remembered survive a power cut."""
        self._table.flush()

    def _insert(self, hashes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return the number under which each hash stands after inserting those that were absent."""
        mask = np.uint64(self._capacity - 1)
        firsts = numbers.copy()
        active = np.arange(len(hashes))
        slots = hashes & mask
        while len(active):
            found = self._table[slots, 0]
            wanted = hashes[active]
            empty = np.flatnonzero(found == 0)
            if len(empty):
                # Several hashes may want one free slot: the first comes in, the others look again.
                _, first = np.unique(slots[empty], return_index=True)
                chosen = empty[first]
                # The number before the hash: a slot counts as taken only when its hash is there.
                self._table[slots[chosen], 1] = numbers[active[chosen]]
                self._table[slots[chosen], 0] = wanted[chosen]
                self._size += len(chosen)
                found = self._table[slots, 0]
            matches = found == wanted
            firsts[active[matches]] = self._table[slots[matches], 1]
            collides = ~matches & (found != 0)
            slots = np.where(collides, (slots + np.uint64(1)) & mask, slots)[~matches]
            active = active[~matches]
        return firsts

    def _grow(self, needed: int) -> None:
        capacity = self._capacity
        while capacity < needed * 4:
            capacity *= 2
        old, larger = self._table, self.path.with_suffix(".growing")
        self._create(larger, capacity)
        self._map(larger)
        self._size = 0
        for start in range(0, len(old), _CHUNK):
            chunk = old[start : start + _CHUNK]
            chunk = chunk[chunk[:, 0] != 0]
            self._insert(chunk[:, 0].copy(), chunk[:, 1].copy())
        self._table.flush()
        os.replace(larger, self.path)

    def _create(self, path: Path, capacity: int) -> None:
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.truncate(capacity * 16)
        os.replace(temporary, path)

    def _map(self, path: Path) -> None:
        self._capacity = path.stat().st_size // 16
        self._table = np.memmap(path, dtype=np.uint64, mode="r+", shape=(self._capacity, 2))


class NearCopies:
    """Finds documents that share most of their five-word runs with an earlier one (MinHash with banding, by rensa).

    Its index lies in memory: about 1 kB a document.
    """

    def __init__(self, threshold: float, num_permutations: int = 128, num_bands: int = 32):
        if not 0 < threshold <= 1:
            raise InputError(f"near_duplicates = {threshold} must be above 0 and at most 1 (0.8 is usual).")
        try:
            from rensa import RMinHash, RMinHashLSH
        except ImportError as error:
            raise InputError(
                "Finding near-duplicates needs the package rensa, which is not installed: pip install 'elision[dedup]'."
            ) from error
        self.threshold = threshold
        self._num_permutations = num_permutations
        self._sign = RMinHash
        self._index = RMinHashLSH(threshold=threshold, num_perm=num_permutations, num_bands=num_bands)
        self._signatures: list[object] = []

    def is_near_copy(self, text: str) -> bool:
        """Tell whether an earlier text is as similar as the threshold; remembers the text if not."""
        words = text.split()
        # Scripts without spaces have no words to run over; five characters do the same work there.
        runs = [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]
        if len(words) * 20 < len(text):
            runs = [text[i : i + 5] for i in range(max(1, len(text) - 4))]
        signature = self._sign(num_perm=self._num_permutations, seed=1)
        signature.update(runs)
        for candidate in self._index.query(signature):
            if self._signatures[candidate].jaccard(signature) >= self.threshold:
                return True
        self._index.insert(len(self._signatures), signature)
        self._signatures.append(signature)
        return False
