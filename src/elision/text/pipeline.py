"""The stages between a source and a store: clean, drop copies, cut into sentences, encode while the next is read."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from elision.data.shards import Documents
from elision.text.cleaning import Cleaning, Report
from elision.text.duplicates import NearCopies, SeenTable, hash_text
from elision.text.readers import Document, Source
from elision.text.sentences import split_sentences
from elision.text.tokenizer import Tokenizer
from elision.text.wordwise import encoder

BATCH_CHARACTERS = 1 << 20
_BATCH_DOCUMENTS = 1 << 14
_NUM_AHEAD = 2
# Between the sides of a pair where both are looked at as one text; cleaned text has no such character.
_JOINT = "\0"


@dataclasses.dataclass
class Position:
    """How far the corpus was read: everything before it is in the store (or was dropped)."""

    source: int = 0
    document: int = 0
    """Documents read of that source."""
    number: int = 0
    """Documents read in all."""


@dataclasses.dataclass
class CleanBatch:
    """Cleaned documents, with the position behind them and what cleaning had counted up to there."""

    texts: list[str]
    num_bytes: list[int]
    hashes: list[int]
    documents: list[Document]
    translated: list[bool]
    """Whether the document after this one is its translation."""
    position: Position
    report: dict[str, Any]
    num_read_bytes: int


def clean_batches(
    sources: Sequence[Source],
    cleaning: Cleaning,
    report: Report,
    start: Position,
    seen: SeenTable | None,
    near: NearCopies | None,
) -> Iterator[CleanBatch]:
    """Read and clean the corpus from `start` on, in batches of about a megabyte; `report` grows meanwhile.

    With `near`, the documents before `start` are read too, only to fill its index again.
    """
    read_bytes = sum(source.num_bytes or 0 for source in sources[: start.source])
    first = 0 if near is not None else start.source
    number = 0 if near is not None else start.number - start.document
    unused = Report()
    for index in range(first, len(sources)):
        skip = start.document if index == start.source else 0
        progress = [0]
        numbered = enumerate(sources[index].documents(lambda n, at=progress: at.__setitem__(0, n)), 1)
        done = 0
        batch: list[tuple[tuple[str, ...], Document, int]] = []
        size = 0
        for done, document in numbered:
            number += 1
            is_old = number <= start.number
            if is_old and near is None:
                continue
            # Documents that are in the store already only fill the index of near copies again.
            texts = cleaning.clean_document(document, unused if is_old else report)
            if texts:
                if is_old:
                    near.is_near_copy(_JOINT.join(texts))
                    continue
                batch.append((texts, document, number))
                size += sum(map(len, texts))
            if size >= BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
                position = Position(index, done, number)
                yield _without_copies(batch, position, report, seen, near, read_bytes + progress[0])
                batch, size = [], 0
        if done >= skip and number >= start.number:
            read_bytes += sources[index].num_bytes or 0
            yield _without_copies(batch, Position(index + 1, 0, number), report, seen, near, read_bytes)


def _without_copies(
    batch: list[tuple[tuple[str, ...], Document, int]],
    position: Position,
    report: Report,
    seen: SeenTable | None,
    near: NearCopies | None,
    num_read_bytes: int,
) -> CleanBatch:
    # A pair is one thing: a sentence may come again with another translation, and both sides belong to one split.
    whole = [_JOINT.join(texts) for texts, _, _ in batch]
    digests = [hash_text(text.encode("utf-8")) for text in whole]
    keep = [True] * len(batch)
    if seen is not None and batch:
        hashes = np.array([digest for digest, _ in digests], dtype=np.uint64)
        copies = seen.is_copy(hashes, np.array([number for _, _, number in batch], dtype=np.int64))
        report.add("duplicate_documents", int(copies.sum()))
        keep = (~copies).tolist()
    if near is not None:
        for i, text in enumerate(whole):
            if keep[i] and near.is_near_copy(text):
                report.add("near_duplicate_documents")
                keep[i] = False
    sides = [
        (text, side, digest, side is not document.translation and document.translation is not None)
        for (texts, document, _), (_, digest), kept in zip(batch, digests, keep)
        if kept
        for text, side in zip(texts, (document, document.translation))
    ]
    return CleanBatch(
        texts=[text for text, _, _, _ in sides],
        num_bytes=[len(text.encode("utf-8")) for text, _, _, _ in sides],
        hashes=[digest for _, _, digest, _ in sides],
        documents=[side for _, side, _, _ in sides],
        translated=[translated for _, _, _, translated in sides],
        position=position,
        report=report.to_json(),
        num_read_bytes=num_read_bytes,
    )


@dataclasses.dataclass
class EncodedBatch:
    """The ids of a batch, and how many of its documents came to no token."""

    documents: Documents
    num_tokenless: int
    source: CleanBatch


def encode_batches(batches: Iterator[CleanBatch], tokenizer: Tokenizer, sentences: bool) -> Iterator[EncodedBatch]:
    """Yield each batch with its ids, encoding on all cores in a thread while the next batches are read and cleaned."""
    waiting: collections.deque[tuple[concurrent.futures.Future, CleanBatch, list[int]]] = collections.deque()
    words = encoder(tokenizer)
    # One thread is enough: the encoder spreads over the cores by itself and leaves the interpreter to this one.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        for batch in batches:
            if sentences:
                cut = [split_sentences(t, d.language) for t, d in zip(batch.texts, batch.documents)]
                counts = [len(pieces) for pieces in cut]
                texts = [piece for pieces in cut for piece in pieces]
            else:
                counts, texts = [1] * len(batch.texts), batch.texts
            waiting.append((thread.submit(words.encode, texts), batch, counts))
            if len(waiting) > _NUM_AHEAD:
                yield _documents(*waiting.popleft())
        while waiting:
            yield _documents(*waiting.popleft())


def _documents(encoding: concurrent.futures.Future, batch: CleanBatch, counts: list[int]) -> EncodedBatch:
    ids, lengths = encoding.result()
    owners = np.repeat(np.arange(len(counts)), counts)
    # White space and the like may come to no token at all: such sentences, and documents of them, are not stored.
    num_tokens = np.bincount(owners, weights=lengths, minlength=len(counts)).astype(np.int64)
    num_sentences = np.bincount(owners[lengths > 0], minlength=len(counts)).astype(np.int64)
    kept = num_tokens > 0
    translated = np.array(batch.translated, bool)
    # A side without tokens takes the other with it.
    complete = kept.copy()
    first = np.flatnonzero(translated)
    complete[first] = complete[first + 1] = kept[first] & kept[first + 1]
    where = np.flatnonzero(kept).tolist()
    documents = Documents(
        ids=ids,
        num_tokens=num_tokens[kept],
        sentence_lengths=lengths[lengths > 0].astype(np.uint32),
        num_sentences=num_sentences[kept],
        num_bytes=np.array(batch.num_bytes, dtype=np.int64)[kept],
        hashes=np.array(batch.hashes, dtype=np.uint64)[kept],
        languages=[batch.documents[i].language for i in where],
        identifiers=[batch.documents[i].id for i in where],
        codes=[batch.documents[i].code for i in where],
        translated=translated[kept],
    )
    return EncodedBatch(documents.pick(complete[kept]), int((~complete).sum()), batch)
