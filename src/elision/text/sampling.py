"""A sample of a corpus that is bounded, spread over all of it, and the same whatever the order of the documents."""

import heapq
from collections.abc import Iterable

from elision.text.duplicates import hash_text

# Longer documents enter in parts, so that one book does not push everything else out.
_PART_CHARACTERS = 1 << 18


def sample_texts(texts: Iterable[str], max_characters: int) -> list[str]:
    """Return parts of `texts` of at most about `max_characters` in all: those with the lowest hashes, copies once."""
    heap: list[tuple[int, str]] = []
    there: set[int] = set()
    size = 0
    for text in texts:
        for start in range(0, len(text), _PART_CHARACTERS):
            part = text[start : start + _PART_CHARACTERS]
            number = hash_text(part.encode("utf-8"))[0]
            if number in there or (size > max_characters and -number < heap[0][0]):
                continue
            there.add(number)
            heapq.heappush(heap, (-number, part))
            size += len(part)
            while size > max_characters and len(heap) > 1:
                dropped, gone = heapq.heappop(heap)
                there.discard(-dropped)
                size -= len(gone)
    return [part for _, part in sorted(heap, reverse=True)]
