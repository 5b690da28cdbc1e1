"""From raw text to a token store in one call; killed at any moment, the same call continues."""

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from elision import __version__, atomic, progress
from elision.data.shards import SHARD_TOKENS, WORK, StoreWriter
from elision.data.store import JOURNAL, MANIFEST, Store
from elision.errors import InputError
from elision.text.cleaning import DROPPED, Cleaning, Report
from elision.text.codes import with_codes
from elision.text.duplicates import NearCopies, SeenTable
from elision.text.pipeline import Position, clean_batches, encode_batches
from elision.text.pydocs import PydocsSource
from elision.text.readers import (
    Document,
    FileSource,
    Reading,
    Source,
    SpooledSource,
    TextsSource,
    find_sources,
    spool_standard_input,
)
from elision.text.sampling import sample_texts
from elision.text.tokenizer import Tokenizer, TokenizerSpec

COMMIT_SECONDS = 30.0
STANDARD_INPUT = "-"
# A control code and what has it: code:Books=novels/.
_CODE = re.compile(r"code:([^=]+)=(.+)")
# A language and what is of that language: ne=news/, zh-Hans=-.
_LANGUAGE = re.compile(r"([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*)=(.+)")


def prepare(
    inputs: str | Path | Source | Iterable[str | Path | Source],
    out: str | Path,
    tokenizer: TokenizerSpec | Tokenizer | str | Path,
    *,
    reading: Reading | None = None,
    cleaning: Cleaning | None = None,
    validation: float = 0.02,
    sentences: bool = True,
    sample_megabytes: float = 100.0,
    shard_tokens: int = SHARD_TOKENS,
) -> Store:
    """Read, clean, tokenise and store the inputs; return the store at `out`.

    `inputs` are files, folders, globs, `datasets` names, "-" for standard input, or sources of one's own (such as
    those of `parallel_sources`); one of them or several. "ne=news/" says that the language of news/ is ne, and
    "code:Books=novels/" that the control code of novels/ is Books. `tokenizer` is one to train (on at most
    `sample_megabytes` million characters; it gets a symbol for each code), a trained one, or a path to one. `validation`
    is the share of documents, chosen by hash, that is held out. When `out` holds the same store already, it is returned
    as it is; when it holds a part of it, the work continues there.

    Raises: InputError for an empty corpus, unreadable inputs, or an `out` that holds something else.
    """
    reading, cleaning, out = reading or Reading(), cleaning or Cleaning(), Path(out)
    if not 0 <= validation < 1:
        raise InputError(f"validation = {validation} must be a share from 0 to below 1 (0.02 is usual).")
    several = isinstance(inputs, Iterable) and not isinstance(inputs, str)
    every = list(inputs) if several else [inputs]
    if not every:
        raise InputError("There is nothing to read: give files, folders, globs or `datasets` names.")
    loaded = Tokenizer.load(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
    _check_out(out)
    with atomic.locked(out, "prepared", f"{WORK}/lock"):
        sources = [source for given in every for source in _sources(given, reading, out)]
        settings = {
            "inputs": [source.identity() for source in sources],
            "reading": dataclasses.asdict(reading),
            "cleaning": dataclasses.asdict(cleaning),
            "validation": validation,
            "sentences": sentences,
            "shard_tokens": shard_tokens,
            "tokenizer": loaded.fingerprint
            if isinstance(loaded, Tokenizer)
            else {"kind": type(loaded).__name__} | dataclasses.asdict(loaded) | {"sample_megabytes": sample_megabytes},
        }
        settings = json.loads(json.dumps(settings))
        if (out / MANIFEST).is_file():
            store = Store.open(out)
            shutil.rmtree(out / WORK)
            _check_same(store.manifest["settings"], settings, out, "already holds a store that")
            return store
        begun = out / WORK / "settings.json"
        if begun.is_file():
            _check_same(json.loads(begun.read_text(encoding="utf-8")), settings, out, "holds an unfinished store that")
        else:
            atomic.write_json(begun, settings)
        trained = _trained(loaded, sources, cleaning, sample_megabytes, out)
        writer = StoreWriter(out, trained, validation, shard_tokens)
        report = _fill(writer, sources, cleaning, sentences)
        if writer.is_empty:
            shutil.rmtree(out)
            raise InputError(f"The corpus is empty: no document with text in {_names(sources)}.{_why_empty(report)}")
        made_with = {"elision": __version__}
        return writer.finish({"cleaning": report.to_json(), "settings": settings, "made_with": made_with})


def prepare_texts(
    texts: Sequence[str],
    out: str | Path,
    tokenizer: TokenizerSpec | Tokenizer | str | Path,
    *,
    languages: Sequence[str | None] | None = None,
    codes: Sequence[str | None] | None = None,
    cleaning: Cleaning | None = None,
    validation: float = 0.02,
    sentences: bool = True,
    shard_tokens: int = SHARD_TOKENS,
) -> Store:
    """Make a store from texts in memory, each one document; see `prepare`."""
    languages = languages if languages is not None else [None] * len(texts)
    codes = codes if codes is not None else [None] * len(texts)
    numbered = enumerate(zip(texts, languages, codes, strict=True))
    documents = tuple(Document(text, language, None, f"texts:{i}", code=code) for i, (text, language, code) in numbered)
    return prepare(
        [TextsSource(documents)],
        out,
        tokenizer,
        cleaning=cleaning,
        validation=validation,
        sentences=sentences,
        shard_tokens=shard_tokens,
    )


def _fill(writer: StoreWriter, sources: list[Source], cleaning: Cleaning, sentences: bool) -> Report:
    """Run the corpus through the pipeline into the writer, from where an earlier run stopped."""
    start = Position(**writer.state["position"]) if writer.state else Position()
    report = Report.from_json(writer.state["report"]) if writer.state else Report()
    num_tokenless = report.counts["tokenless_documents"]
    seen = SeenTable(writer.path / WORK / "seen.table") if cleaning.duplicates else None
    near = NearCopies(cleaning.near_duplicates) if cleaning.near_duplicates is not None else None
    sizes = [source.num_bytes for source in sources]
    total = sum(sizes) if None not in sizes else None
    done = float(sum(size or 0 for size in sizes[: start.source]))
    batches = clean_batches(sources, cleaning, report, start, seen, near)
    committed = time.monotonic()
    state = writer.state
    with progress.task("tokenising", total, "B", start=done) as task:
        try:
            for encoded in encode_batches(batches, writer.tokenizer, sentences):
                if len(encoded.documents):
                    writer.append(encoded.documents)
                num_tokenless += encoded.num_tokenless
                batch = encoded.source
                counts = {**batch.report, "tokenless_documents": num_tokenless}
                state = {"position": dataclasses.asdict(batch.position), "report": counts}
                if writer.has_news or time.monotonic() - committed > COMMIT_SECONDS:
                    if seen is not None:
                        seen.flush()
                    writer.commit(state)
                    committed = time.monotonic()
                task.note(f"{progress.quantity(writer.num_tokens)} tokens, {writer.num_shards} shards")
                task.advance(batch.num_read_bytes - done)
                done = batch.num_read_bytes
        except KeyboardInterrupt:
            # What is encoded so far is whole batches, so an interrupted run loses next to nothing.
            if state and state != writer.state:
                writer.commit(state)
            raise
    if state:
        writer.commit(state)
        report = Report.from_json(state["report"])
    return report


def _trained(
    tokenizer: TokenizerSpec | Tokenizer,
    sources: list[Source],
    cleaning: Cleaning,
    sample_megabytes: float,
    out: Path,
) -> Tokenizer:
    """Return the store's tokenizer: the one already in it, else the given one, else one trained on a sample."""
    if (out / "tokenizer" / "tokenizer.json").is_file():
        return Tokenizer.load(out / "tokenizer")
    if not isinstance(tokenizer, Tokenizer):
        sizes = [source.num_bytes for source in sources]
        total = sum(sizes) if None not in sizes else None
        codes: set[str] = set()
        with progress.task("reading a sample", total, "B") as task:
            sample = sample_texts(_cleaned(sources, cleaning, task, codes), int(sample_megabytes * 1e6))
        if not sample:
            shutil.rmtree(out)
            raise InputError(f"The corpus is empty: no document with text in {_names(sources)}.")
        tokenizer = with_codes(tokenizer, codes)
        size = sum(map(len, sample))
        progress.console.print(
            f"training a {type(tokenizer).__name__} tokenizer of {tokenizer.vocab_size} symbols "
            f"on {progress.quantity(size)} characters",
            markup=False,
        )
        tokenizer = tokenizer.train(sample)
    tokenizer.save(out / "tokenizer")
    # As it will be read back, so that the first run and one that continues see the very same object.
    return Tokenizer.load(out / "tokenizer")


def _cleaned(sources: list[Source], cleaning: Cleaning, task: progress.Task, codes: set[str]) -> Iterator[str]:
    """Yield the cleaned texts, and note in `codes` the control codes of the documents they come from."""
    report = Report()
    for source in sources:
        reached = [0]
        last = 0
        for document in source.documents(lambda n, reached=reached: reached.__setitem__(0, n)):
            texts = cleaning.clean_document(document, report)
            if texts and document.code is not None:
                codes.add(document.code)
            yield from texts
            if reached[0] > last:
                task.advance(reached[0] - last)
                last = reached[0]


def _sources(given: str | Path | Source, reading: Reading, out: Path) -> list[Source]:
    if isinstance(given, PydocsSource):
        return [SpooledSource(given, out / WORK / "pydocs.jsonl")]
    if isinstance(given, Path):
        # A path is never the name of a data set, nor standard input.
        return find_sources([str(given) if given.is_absolute() else f"./{given}"], reading)
    if not isinstance(given, str):
        return [given]
    coded = _CODE.fullmatch(given)
    if coded is not None and not Path(given).exists():
        reading, given = dataclasses.replace(reading, code=coded[1]), coded[2]
    named = _LANGUAGE.fullmatch(given)
    if named is not None and not Path(given).exists():
        reading, given = dataclasses.replace(reading, language=named[1]), named[2]
    if given == STANDARD_INPUT:
        return [FileSource(spool_standard_input(out / WORK), reading)]
    return find_sources([given], reading)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder that does not exist yet.")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in (MANIFEST, JOURNAL, WORK)):
        raise InputError(f"--out {out} is a folder with other files in it; give one that does not exist yet.")


def _check_same(before: dict[str, Any], now: dict[str, Any], out: Path, what: str) -> None:
    different = [difference for name in now for difference in _differences(name, before.get(name), now[name])]
    if different:
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        raise InputError(
            f"{out} {what} was made with other settings: {', '.join(different[:3])}{more}. Give the same settings, choose "
            "another --out, or remove that folder."
        )


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """Return `field (... there, ... now)` for each field of a setting that differs."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict) and before.get("kind") == now.get("kind"):
        return [part for key in now for part in _differences(f"{name}.{key}", before.get(key), now[key])]
    if name == "inputs" and before is not None:
        gone, new = ([given for given in a if given not in b] for a, b in ((before, now), (now, before)))
        return [f"inputs ({_shown(gone or before)} there, {_shown(new or now)} now)"]
    return [f"{name} ({_shown(before)} there, {_shown(now)} now)"]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"a {value['kind']} to train" if "kind" in value else str(value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        rest = f" and {len(value) - 1} more" if len(value) > 1 else ""
        return " ".join(f"{part:,} B" if isinstance(part, int) else str(part) for part in value[0]) + rest
    if isinstance(value, str) and len(value) == 64:
        return f"the trained {value[:12]}"
    return str(value)


def _names(sources: list[Source]) -> str:
    return ", ".join(source.name for source in sources[:3]) + (f" and {len(sources) - 3} more" * (len(sources) > 3))


def _why_empty(report: Report) -> str:
    dropped = [f"{n} {DROPPED[rule]}" for rule, n in report.counts.items() if rule in DROPPED and n]
    return f" Dropped: {', '.join(dropped)}." if dropped else ""
