"""A tokenised corpus on disk, memory-mapped: documents and sentences as offsets in one long stream of token ids.

STORE/manifest.json             what it is: counts, settings, fingerprints (its presence means: finished)
STORE/tokenizer/                the tokenizer that made the ids
STORE/train-00000.arrow ...     shards: Arrow IPC files of one record batch each, one row a document; a pair of
                                translations is two documents in a row, the first marked
STORE/train.sentence_starts.npy the offsets of the whole split, derived from its shards so that they can be mapped
"""

import bisect
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from elision.errors import InputError, nearest
from elision.text.tokenizer import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"
JOURNAL = "journal.json"
COUNTED_AT_ONCE = 1 << 24
OFFSETS = ("document_starts", "sentence_starts", "document_sentences")


class Store:
    """A finished token store. Open one with `Store.open`."""

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {part['num_tokens']} tokens" for name, part in self.manifest["splits"].items())
        return f"Store({str(self.path)!r}, {splits})"

    def __reduce__(self) -> tuple:
        return Store.open, (self.path,)

    @classmethod
    def open(cls, path: str | Path, expect_tokenizer: str | None = None) -> "Store":
        """Map the store at `path`; `expect_tokenizer` is the fingerprint that it must have been made with.

        Raises: InputError when `path` is no store, is unfinished or newer than this version, was made with another
        tokenizer, or has a shard that is missing, truncated or foreign (named).
        """
        path = Path(path)
        if not (path / MANIFEST).is_file():
            if (path / JOURNAL).is_file():
                raise InputError(
                    f"The store {path} is unfinished: `elision prepare` was interrupted. Run the same command again; "
                    "it continues where it stopped."
                )
            what = "is no token store: it has no manifest.json" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}. Make one with `elision prepare INPUT --out {path}`.")
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            version = manifest["elision_store"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path / MANIFEST} is not the manifest of a token store.") from error
        if version > FORMAT:
            raise InputError(
                f"The store {path} has format {version}; this elision reads up to {FORMAT}. Upgrade elision, or "
                "prepare the store again."
            )
        store = cls(path, manifest)
        if expect_tokenizer is not None and expect_tokenizer != store.tokenizer_fingerprint:
            raise InputError(
                f"The store {path} was made with another tokenizer: {store.tokenizer_fingerprint[:16]} "
                f"({path / 'tokenizer'}), but {expect_tokenizer[:16]} is needed. Prepare the text again with "
                "`--tokenizer` set to the tokenizer of the model."
            )
        store._check_files()
        return store

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the tokenizer and every shard: equal fingerprints mean equal content."""
        return self.manifest["fingerprint"]

    @property
    def tokenizer_fingerprint(self) -> str:
        """The fingerprint of the tokenizer that made the ids."""
        return self.manifest["tokenizer"]["fingerprint"]

    @property
    def splits(self) -> list[str]:
        """The names of the splits, usually train and validation."""
        return list(self.manifest["splits"])

    @property
    def languages(self) -> list[str]:
        """Every language that a document declares, in alphabetical order."""
        return self.manifest["languages"]

    @property
    def codes(self) -> list[str]:
        """Every control code that a document declares, in alphabetical order."""
        return self.manifest.get("codes", [])

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids. Raises InputError when its files were changed."""
        tokenizer = Tokenizer.load(self.path / "tokenizer")
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise InputError(
                f"The files in {self.path / 'tokenizer'} changed after the store was made: fingerprint "
                f"{tokenizer.fingerprint[:16]}, the manifest says {self.tokenizer_fingerprint[:16]}. Restore them."
            )
        return tokenizer

    @functools.cached_property
    def token_counts(self) -> np.ndarray:
        """int64 [vocabulary size]: how often each id stands in the training split."""
        split, size = self.split("train"), self.tokenizer.vocabulary.size
        counts = np.zeros(size, np.int64)
        for start in range(0, split.num_tokens, COUNTED_AT_ONCE):
            stop = min(start + COUNTED_AT_ONCE, split.num_tokens)
            counts += np.bincount(split.tokens(start, stop), minlength=size)
        return counts

    def split(self, name: str) -> "Split":
        """Return one split. Raises InputError that lists the splits there are."""
        if name not in self.manifest["splits"]:
            raise InputError(
                f"The store {self.path} has no split {name!r}.{nearest(name, self.splits)} "
                f"It has: {', '.join(self.splits)}."
            )
        return Split(self, name)

    def verify(self) -> None:
        """Read every shard and compare its hash with the manifest. Raises InputError that names a damaged file."""
        for split in self.manifest["splits"].values():
            for shard in split["shards"]:
                if hash_file(self.path / shard["file"]) != shard["sha256"]:
                    raise _damaged(self.path / shard["file"], "its content is not what was written")

    def _check_files(self) -> None:
        expected = {shard["file"]: shard for split in self.manifest["splits"].values() for shard in split["shards"]}
        for file in sorted(self.path.glob("*.arrow")):
            if file.name not in expected:
                raise InputError(
                    f"{file} does not belong to this store: the manifest does not list it. Move it elsewhere."
                )
        for name, shard in expected.items():
            check_size(self.path / name, shard["num_file_bytes"])
        for name, split in self.manifest["splits"].items():
            for kind, size in split["offset_file_bytes"].items():
                check_size(self.path / f"{name}.{kind}.npy", size)


class Split:
    """One split of a store; every array is a view on memory-mapped files."""

    def __init__(self, store: Store, name: str):
        record = store.manifest["splits"][name]
        self.store = store
        self.name = name
        self.num_documents: int = record["num_documents"]
        self.num_sentences: int = record["num_sentences"]
        self.num_tokens: int = record["num_tokens"]
        self.num_bytes: int = record["num_bytes"]
        """UTF-8 bytes of the cleaned text, what bits per byte divides by."""
        self.num_pairs: int = record.get("num_pairs", 0)
        """Documents that are followed by their translation."""
        self._shards = record["shards"]
        self._token_starts = [0, *np.cumsum([shard["num_tokens"] for shard in self._shards], dtype=np.int64).tolist()]
        self._batches: list[pa.RecordBatch | None] = [None] * len(self._shards)
        self._values: list[np.ndarray | None] = [None] * len(self._shards)
        self._dtype = np.dtype(store.manifest["dtype"])

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {self.num_documents} documents, {self.num_tokens} tokens)"

    def __reduce__(self) -> tuple:
        return _reopen, (self.store.path, self.name)

    @functools.cached_property
    def document_starts(self) -> np.ndarray:
        """int64 [num_documents + 1]: where each document begins in the token stream; the last entry is its end."""
        return self._offsets("document_starts")

    @functools.cached_property
    def sentence_starts(self) -> np.ndarray:
        """int64 [num_sentences + 1]: where each sentence begins in the token stream; the last entry is its end."""
        return self._offsets("sentence_starts")

    @functools.cached_property
    def document_sentences(self) -> np.ndarray:
        """int64 [num_documents + 1]: the index of each document's first sentence; the last entry is num_sentences."""
        return self._offsets("document_sentences")

    @functools.cached_property
    def language_codes(self) -> np.ndarray:
        """int16 [num_documents]: index of each document's language in `languages`, -1 where none is declared."""
        return self._numbered("language", self.languages)

    @functools.cached_property
    def code_numbers(self) -> np.ndarray:
        """int16 [num_documents]: index of each document's control code in `codes`, -1 where none is declared."""
        return self._numbered("code", self.codes)

    @functools.cached_property
    def pair_starts(self) -> np.ndarray:
        """int64 [num_pairs]: the documents whose translation is the document after them."""
        found, first = [np.empty(0, np.int64)], 0
        for shard, record in enumerate(self._shards):
            if "num_pairs" in record:
                found.append(first + np.flatnonzero(translated_of(self._batch(shard))))
            first += record["num_documents"]
        return np.concatenate(found)

    @property
    def languages(self) -> list[str]:
        """Every language that a document of the store declares."""
        return self.store.languages

    @property
    def codes(self) -> list[str]:
        """Every control code that a document of the store declares."""
        return self.store.codes

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Return ids `start` to `stop` of the token stream (uint16 or uint32); zero-copy inside one shard."""
        assert 0 <= start <= stop <= self.num_tokens, (start, stop, self.num_tokens)
        first = bisect.bisect_right(self._token_starts, start) - 1
        if first == len(self._shards):
            return np.empty(0, dtype=self._dtype)
        base = self._token_starts[first]
        if stop <= self._token_starts[first + 1]:
            return self._ids(first)[start - base : stop - base]
        last = bisect.bisect_left(self._token_starts, stop) - 1
        middle = [self._ids(shard) for shard in range(first + 1, last)]
        head, tail = self._ids(first)[start - base :], self._ids(last)[: stop - self._token_starts[last]]
        return np.concatenate([head, *middle, tail])

    def document(self, index: int) -> np.ndarray:
        """Return the ids of one document."""
        return self.tokens(int(self.document_starts[index]), int(self.document_starts[index + 1]))

    def language(self, index: int) -> str | None:
        """Return the declared language of one document."""
        code = self.language_codes[index]
        return self.languages[code] if code >= 0 else None

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of whole numbers of the shards (`num_bytes` ...), [num_documents]."""
        columns = [self._batch(shard).column(name).to_numpy() for shard in range(len(self._shards))]
        return np.concatenate(columns) if columns else np.empty(0, np.int64)

    def column(self, name: str, index: int) -> Any:
        """Return what a shard's column (`id`, `num_bytes`, `hash` ...) says of one document."""
        for shard, record in enumerate(self._shards):
            if index < record["num_documents"]:
                return self._batch(shard).column(name)[index].as_py()
            index -= record["num_documents"]
        raise IndexError(index)

    def _numbered(self, name: str, names: list[str]) -> np.ndarray:
        """Return the index in `names` of each document's entry in a column of names, -1 where it has none."""
        numbers = np.full(self.num_documents, -1, dtype=np.int16)
        order = {entry: i for i, entry in enumerate(names)}
        first = 0
        for shard, record in enumerate(self._shards):
            batch = self._batch(shard)
            if name in batch.schema.names:
                column = batch.column(name)
                local = np.array([order[entry] for entry in column.dictionary.to_pylist()] + [-1], dtype=np.int16)
                picks = column.indices.fill_null(len(local) - 1).to_numpy(zero_copy_only=False)
                numbers[first : first + len(column)] = local[picks]
            first += record["num_documents"]
        return numbers

    def _ids(self, shard: int) -> np.ndarray:
        values = self._values[shard]
        if values is None:
            values = self._values[shard] = self._batch(shard).column("ids").values.to_numpy(zero_copy_only=True)
        return values

    def _batch(self, shard: int) -> pa.RecordBatch:
        if self._batches[shard] is None:
            record = self._shards[shard]
            batch = read_shard(self.store.path / record["file"])
            mine = self.store.tokenizer_fingerprint
            if batch.schema.metadata.get(b"elision.tokenizer", b"").decode() != mine:
                raise _damaged(self.store.path / record["file"], "it comes from a store with another tokenizer")
            if batch.num_rows != record["num_documents"] or len(batch.column("ids").values) != record["num_tokens"]:
                raise _damaged(self.store.path / record["file"], "its counts are not those of the manifest")
            self._batches[shard] = batch
        return self._batches[shard]

    def _offsets(self, kind: str) -> np.ndarray:
        return np.load(self.store.path / f"{self.name}.{kind}.npy", mmap_mode="r")


def read_shard(file: Path) -> pa.RecordBatch:
    """Map one shard. Raises InputError that names the file when it is no whole Arrow file."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise _damaged(file, f"it is not a whole Arrow file ({error})") from error


def translated_of(batch: pa.RecordBatch) -> np.ndarray:
    """Return bool [documents]: whether the document after each is its translation. Most shards hold no pairs."""
    if "translated" not in batch.schema.names:
        return np.zeros(batch.num_rows, bool)
    return batch.column("translated").to_numpy(zero_copy_only=False)


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_size(file: Path, size: int) -> None:
    """Raise InputError that names `file` when it is missing, truncated or another one."""
    if not file.is_file():
        raise _damaged(file, "it is missing")
    found = file.stat().st_size
    if found < size:
        raise _damaged(file, f"it is truncated ({found} of {size} bytes)")
    if found != size:
        raise _damaged(file, f"it is another file than was written ({found} bytes, {size} expected)")


def _damaged(file: Path, why: str) -> InputError:
    return InputError(f"The store file {file} is damaged: {why}. Copy it again from the original, or prepare anew.")


def _reopen(path: Path, name: str) -> Split:
    return Store.open(path).split(name)
