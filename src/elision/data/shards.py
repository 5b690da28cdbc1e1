"""Writing a token store: documents gather in memory, full shards go to disk whole, a journal lets the work continue."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from elision import atomic
from elision.data.store import (
    FORMAT,
    JOURNAL,
    MANIFEST,
    OFFSETS,
    Store,
    check_size,
    hash_file,
    read_shard,
    translated_of,
)
from elision.text.tokenizer import Tokenizer

SHARD_TOKENS = 1 << 25
WORK = ".work"
LARGEST_UINT16_VOCABULARY = 1 << 16


@dataclasses.dataclass(frozen=True)
class Documents:
    """A batch of tokenised documents, flat: all ids in a row, and the lengths that cut them up."""

    ids: np.ndarray
    """[tokens] ids of all documents."""
    num_tokens: np.ndarray
    """int64 [documents]; never 0."""
    sentence_lengths: np.ndarray
    """uint32 [sentences] tokens of each sentence; never 0."""
    num_sentences: np.ndarray
    """int64 [documents]; never 0."""
    num_bytes: np.ndarray
    """int64 [documents] UTF-8 bytes of the cleaned text."""
    hashes: np.ndarray
    """uint64 [documents] hash of the cleaned text, which decides the split."""
    languages: Sequence[str | None]
    identifiers: Sequence[str | None]
    translated: np.ndarray | None = None
    """bool [documents]: the document after this one is its translation; None = no pairs. Both have the same hash."""
    codes: Sequence[str | None] | None = None
    """What kind of text each document is; None = no document says."""

    def __len__(self) -> int:
        return len(self.num_tokens)

    def pick(self, chosen: np.ndarray) -> "Documents":
        """Return the documents where `chosen` (bool [documents]) is true."""
        if chosen.all():
            return self
        where = np.flatnonzero(chosen).tolist()
        return Documents(
            ids=self.ids[np.repeat(chosen, self.num_tokens)],
            num_tokens=self.num_tokens[chosen],
            sentence_lengths=self.sentence_lengths[np.repeat(chosen, self.num_sentences)],
            num_sentences=self.num_sentences[chosen],
            num_bytes=self.num_bytes[chosen],
            hashes=self.hashes[chosen],
            languages=[self.languages[i] for i in where],
            identifiers=[self.identifiers[i] for i in where],
            translated=None if self.translated is None else self.translated[chosen],
            codes=None if self.codes is None else [self.codes[i] for i in where],
        )

    def cut(self, start: int, stop: int) -> "Documents":
        """Return documents `start` to `stop`, as views."""
        token = np.concatenate([[0], np.cumsum(self.num_tokens)])
        sentence = np.concatenate([[0], np.cumsum(self.num_sentences)])
        return Documents(
            ids=self.ids[token[start] : token[stop]],
            num_tokens=self.num_tokens[start:stop],
            sentence_lengths=self.sentence_lengths[sentence[start] : sentence[stop]],
            num_sentences=self.num_sentences[start:stop],
            num_bytes=self.num_bytes[start:stop],
            hashes=self.hashes[start:stop],
            languages=self.languages[start:stop],
            identifiers=self.identifiers[start:stop],
            translated=None if self.translated is None else self.translated[start:stop],
            codes=None if self.codes is None else self.codes[start:stop],
        )

    @staticmethod
    def join(parts: Sequence["Documents"]) -> "Documents":
        """Return one batch that holds the documents of all `parts`, which must not be empty."""
        arrays = ("ids", "num_tokens", "sentence_lengths", "num_sentences", "num_bytes", "hashes")
        return Documents(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
            languages=[language for part in parts for language in part.languages],
            identifiers=[identifier for part in parts for identifier in part.identifiers],
            translated=np.concatenate(
                [np.zeros(len(part), bool) if part.translated is None else part.translated for part in parts]
            ),
            codes=[code for part in parts for code in part.codes or [None] * len(part)],
        )

    def to_batch(self, dtype: np.dtype, metadata: dict[str, str]) -> pa.RecordBatch:
        """Return the Arrow form: one row a document."""
        offsets = pa.array(np.concatenate([[0], np.cumsum(self.num_tokens)]), pa.int64())
        sentences = pa.array(np.concatenate([[0], np.cumsum(self.num_sentences)]), pa.int64())
        columns = {
            "ids": pa.LargeListArray.from_arrays(offsets, pa.array(self.ids.astype(dtype, copy=False))),
            "sentences": pa.LargeListArray.from_arrays(sentences, pa.array(self.sentence_lengths)),
            "language": pa.array(self.languages, pa.string()).dictionary_encode(),
            "id": pa.array(self.identifiers, pa.string()),
            "num_bytes": pa.array(self.num_bytes),
            "hash": pa.array(self.hashes),
        }
        if self.translated is not None and self.translated.any():
            columns["translated"] = pa.array(self.translated)
        if self.codes is not None and any(code is not None for code in self.codes):
            columns["code"] = pa.array(self.codes, pa.string()).dictionary_encode()
        batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
        return batch.replace_schema_metadata(metadata)

    @staticmethod
    def from_batch(batch: pa.RecordBatch) -> "Documents":
        """Return what `to_batch` wrote."""
        ids, sentences = batch.column("ids"), batch.column("sentences")
        return Documents(
            ids=ids.values.to_numpy(),
            num_tokens=np.diff(ids.offsets.to_numpy()),
            sentence_lengths=sentences.values.to_numpy(),
            num_sentences=np.diff(sentences.offsets.to_numpy()),
            num_bytes=batch.column("num_bytes").to_numpy(),
            hashes=batch.column("hash").to_numpy(),
            languages=batch.column("language").to_pylist(),
            identifiers=batch.column("id").to_pylist(),
            translated=translated_of(batch),
            codes=batch.column("code").to_pylist() if "code" in batch.schema.names else None,
        )


class StoreWriter:
    """Writes a store in bounded memory; after `commit(state)` a killed writer continues from that very state.

    `state` is whatever the caller needs to know to go on (how far it has read); `self.state` gives it back. The bytes
    of the finished store do not depend on when commits or interruptions happened.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, validation: float, shard_tokens: int = SHARD_TOKENS):
        self.path = path
        self.tokenizer = tokenizer
        self.validation = validation
        self.shard_tokens = shard_tokens
        self.state: dict[str, Any] = {}
        self.has_news = False
        """Whether a shard was written since the last commit."""
        size = tokenizer.vocabulary.size
        self.dtype = np.dtype(np.uint16 if size <= LARGEST_UINT16_VOCABULARY else np.uint32)
        self._waiting: dict[str, list[Documents]] = {"train": [], "validation": []}
        self._num_waiting = {"train": 0, "validation": 0}
        self._shards: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
        self._num_commits = 0
        if (path / JOURNAL).is_file():
            self._restore(json.loads((path / JOURNAL).read_text(encoding="utf-8")))
        self._remove_strays()

    def append(self, documents: Documents) -> None:
        """Add documents, each to the split that its hash decides; writes every shard that becomes full."""
        in_validation = documents.hashes < np.uint64(min(int(self.validation * 2**64), 2**64 - 1))
        for split, chosen in (("train", ~in_validation), ("validation", in_validation)):
            if chosen.any():
                self._append(split, documents.pick(chosen))

    def commit(self, state: dict[str, Any]) -> None:
        """Make everything so far durable, together with `state`."""
        self._num_commits += 1
        waiting = {}
        for split, parts in self._waiting.items():
            if parts:
                file = f"{WORK}/{split}-{self._num_commits}.arrow"
                self._write(Documents.join(parts), self.path / file)
                waiting[split] = file
        self.state = state
        journal = {"state": state, "shards": self._shards, "waiting": waiting, "num_commits": self._num_commits}
        atomic.write_json(self.path / JOURNAL, journal)
        for file in (self.path / WORK).glob("*.arrow"):
            if f"{WORK}/{file.name}" not in waiting.values():
                file.unlink()
        self.has_news = False

    def finish(self, manifest: dict[str, Any]) -> Store:
        """Write what is left and the manifest (`manifest` plus counts and fingerprints), and open the store."""
        if self.validation > 0:
            self._fill_empty_split()
        for split, parts in self._waiting.items():
            if parts:
                self._flush(split, Documents.join(parts))
        splits = {}
        for split, shards in self._shards.items():
            if shards:
                counts = ("num_documents", "num_sentences", "num_tokens", "num_bytes")
                splits[split] = {name: sum(shard[name] for shard in shards) for name in counts}
                if any("num_pairs" in shard for shard in shards):
                    splits[split]["num_pairs"] = sum(shard.get("num_pairs", 0) for shard in shards)
                splits[split]["offset_file_bytes"] = self._write_offsets(split)
                splits[split]["shards"] = shards
        hashes = [self.tokenizer.fingerprint, *(s["sha256"] for split in splits.values() for s in split["shards"])]
        languages, codes = (
            # A journal of an earlier version knows of no codes.
            sorted({name for part in splits.values() for shard in part["shards"] for name in shard.pop(kind, ())})
            for kind in ("languages", "codes")
        )
        complete = {
            "elision_store": FORMAT,
            "fingerprint": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
            "dtype": self.dtype.name,
            "languages": languages,
            **({"codes": codes} if codes else {}),
            "tokenizer": {
                "fingerprint": self.tokenizer.fingerprint,
                "vocab_size": self.tokenizer.vocabulary.size,
                "kind": type(self.tokenizer.raw.model).__name__,
            },
            "splits": splits,
            **manifest,
        }
        atomic.write_json(self.path / MANIFEST, complete)
        (self.path / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(self.path / WORK, ignore_errors=True)
        return Store.open(self.path)

    @property
    def num_tokens(self) -> int:
        """Number of tokens so far, on disk and waiting."""
        written = sum(shard["num_tokens"] for shards in self._shards.values() for shard in shards)
        return written + sum(self._num_waiting.values())

    @property
    def is_empty(self) -> bool:
        """Whether not one document has been added."""
        return self.num_shards == 0 and not any(self._waiting.values())

    @property
    def num_shards(self) -> int:
        """Number of shards on disk."""
        return sum(map(len, self._shards.values()))

    def _append(self, split: str, documents: Documents) -> None:
        # The boundary between shards is a function of the documents alone, never of how they came in batches.
        while len(documents):
            ends = self._num_waiting[split] + np.cumsum(documents.num_tokens)
            full_at = int(np.searchsorted(ends, self.shard_tokens))
            if full_at >= len(documents):
                self._waiting[split].append(documents)
                self._num_waiting[split] = int(ends[-1])
                return
            # A pair stays in one shard, so that it can be moved as one thing.
            last = full_at + (documents.translated is not None and bool(documents.translated[full_at]))
            self._flush(split, Documents.join([*self._waiting[split], documents.cut(0, last + 1)]))
            documents = documents.cut(last + 1, len(documents))

    def _flush(self, split: str, documents: Documents) -> None:
        name = f"{split}-{len(self._shards[split]):05d}.arrow"
        self._write(documents, self.path / name)
        num_pairs = 0 if documents.translated is None else int(documents.translated.sum())
        self._shards[split].append(
            {
                "file": name,
                **({"num_pairs": num_pairs} if num_pairs else {}),
                "num_documents": len(documents),
                "num_sentences": len(documents.sentence_lengths),
                "num_tokens": len(documents.ids),
                "num_bytes": int(documents.num_bytes.sum()),
                "num_file_bytes": (self.path / name).stat().st_size,
                "sha256": hash_file(self.path / name),
                "languages": sorted({language for language in documents.languages if language is not None}),
                "codes": sorted({code for code in documents.codes or () if code is not None}),
            }
        )
        self._waiting[split], self._num_waiting[split] = [], 0
        self.has_news = True

    def _write(self, documents: Documents, file: Path) -> None:
        batch = documents.to_batch(self.dtype, {"elision.tokenizer": self.tokenizer.fingerprint})
        with atomic.replacing(file) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as sink:
            sink.write_batch(batch)

    def _write_offsets(self, split: str) -> dict[str, int]:
        """Write the offsets of the whole split from its shards, one shard in memory at a time."""
        shards = self._shards[split]
        documents, sentences = (sum(shard[name] for shard in shards) for name in ("num_documents", "num_sentences"))
        sizes = {}
        for kind, length in zip(OFFSETS, (documents, sentences, documents)):
            file = self.path / f"{split}.{kind}.npy"
            with atomic.replacing(file) as temporary:
                offsets = np.lib.format.open_memmap(temporary, "w+", np.int64, (length + 1,))
                position = base = 0
                for shard in shards:
                    part = Documents.from_batch(read_shard(self.path / shard["file"]))
                    field = {"document_starts": "num_tokens", "sentence_starts": "sentence_lengths"}
                    lengths = getattr(part, field.get(kind, "num_sentences"))
                    ends = base + np.cumsum(lengths, dtype=np.int64)
                    offsets[position + 1 : position + 1 + len(ends)] = ends
                    position, base = position + len(ends), int(ends[-1])
                offsets.flush()
                del offsets
            sizes[kind] = file.stat().st_size
        return sizes

    def _fill_empty_split(self) -> None:
        """Give an empty split the document whose hash comes nearest to it, when there are two documents or more."""
        for empty, donor in (("validation", "train"), ("train", "validation")):
            if self._shards[empty] or self._waiting[empty]:
                continue
            while sum(map(len, self._waiting[donor])) < 2 and self._shards[donor]:
                last = self._shards[donor].pop()
                self._waiting[donor].insert(0, Documents.from_batch(read_shard(self.path / last["file"])))
            if not self._waiting[donor]:
                return
            documents = Documents.join(self._waiting[donor])
            if len(documents) < 2:
                return
            nearest = documents.hashes.argmin() if empty == "validation" else documents.hashes.argmax()
            moved = np.arange(len(documents)) == nearest
            if documents.translated is not None:
                # With its translation, which has the same hash and so comes after.
                moved[1:] |= moved[:-1] & documents.translated[:-1]
                if moved.all():
                    return
            self._waiting[empty] = [documents.pick(moved)]
            self._waiting[donor] = [documents.pick(~moved)]
            # The donor's last shard may be written anew, so the journal must not count on the old one any more.
            self.commit(self.state)
            self._remove_strays()
            return

    def _restore(self, journal: dict[str, Any]) -> None:
        self.state, self._shards, self._num_commits = journal["state"], journal["shards"], journal["num_commits"]
        for split, file in journal["waiting"].items():
            documents = Documents.from_batch(read_shard(self.path / file))
            self._waiting[split] = [documents]
            self._num_waiting[split] = len(documents.ids)
        for shards in self._shards.values():
            for shard in shards:
                check_size(self.path / shard["file"], shard["num_file_bytes"])

    def _remove_strays(self) -> None:
        """Remove shards that the journal does not count, which come again, and what a kill left half-done."""
        known = {shard["file"] for shards in self._shards.values() for shard in shards}
        for file in [*self.path.glob("*.arrow"), *self.path.glob("**/.*.partial")]:
            if file.name not in known and file.parent != self.path / WORK:
                file.unlink()
