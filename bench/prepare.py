"""How fast `elision prepare` tokenises, beside `tokenizers` alone and beside the usual `datasets` pipeline.

    python -m bench.prepare                        on the documentation of the installed packages
    python -m bench.prepare --text corpus.txt      on a text of one's own (blank line = document break)

All three see the same documents with the same trained tokenizer on all cores, in interleaved rounds; the figures are
medians, and the ratios are medians of the ratios within a round. `elision` is the whole road: reading, cleaning,
finding copies, splitting into sentences, encoding, writing. `tokenizers` is `encode_batch` alone on documents that lie
in memory, and taking the ids out of its results. `datasets` is `load_dataset("text")`, `map(tokenize, batched)` and
`map(group_texts, batched)` as in the usual training scripts, with a process a core and without its cache. Processor
seconds count all threads and processes, and waver less than the clock on a machine that others use too.
"""

import argparse
import itertools
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from elision.text.prepare import prepare
from elision.text.pydocs import PydocsSource
from elision.text.readers import FileSource, Reading
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, WordPiece

BLOCK_TOKENS = 512


def run_elision(text: Path, tokenizer: Tokenizer, folder: Path) -> None:
    """Run `prepare`."""
    out = folder / "store"
    shutil.rmtree(out, ignore_errors=True)
    prepare([str(text)], out, tokenizer)


def run_tokenizers(documents: list[str], tokenizer: Tokenizer) -> None:
    """Run `encode_batch` in batches as large as those of `prepare`, and keep the ids."""
    batch, size, ids = [], 0, []
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= 1 << 20:
            ids += [encoding.ids for encoding in tokenizer.raw.encode_batch(batch, add_special_tokens=False)]
            batch, size = [], 0
    ids += [encoding.ids for encoding in tokenizer.raw.encode_batch(batch, add_special_tokens=False)]


def group_texts(examples: dict) -> dict:
    """Concatenate and cut into blocks, as the usual scripts do."""
    joined = {name: list(itertools.chain(*rows)) for name, rows in examples.items()}
    total = len(joined["input_ids"]) // BLOCK_TOKENS * BLOCK_TOKENS
    return {name: [row[i : i + BLOCK_TOKENS] for i in range(0, total, BLOCK_TOKENS)] for name, row in joined.items()}


def run_datasets(text: Path, folder: Path, num_processes: int) -> None:
    """Run `datasets.map(tokenize)` and `group_texts`."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")

    def tokenize(examples: dict) -> dict:
        return tokenizer(examples["text"], return_special_tokens_mask=True)

    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    rows = datasets.load_dataset(
        "text", data_files=str(text), sample_by="paragraph", split="train", cache_dir=str(cache)
    )
    rows = rows.map(tokenize, batched=True, num_proc=num_processes, remove_columns=["text"])
    rows.map(group_texts, batched=True, num_proc=num_processes)


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds and the processor seconds, children included, that `work` takes."""
    processor, clock = _processor_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - clock, _processor_seconds() - processor


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, help="text file; the installed documentation when not given")
    parser.add_argument("--megabytes", type=float, default=20.0, help="how much of the text to use")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    import datasets

    datasets.disable_progress_bars()
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        documents = read_documents(options.text, options.megabytes)
        text = folder / "text.txt"
        text.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
        megabytes = text.stat().st_size / 1e6
        print(f"{megabytes:.1f} MB, {len(documents)} documents, {num_cores} cores, {options.rounds} rounds")
        for name, spec in (("WordPiece", WordPiece(16000)), ("byte-level BPE", ByteLevelBPE(16000))):
            tokenizer = spec.train(documents[: 1 + len(documents) // 2])
            tokenizer.save(folder / "tokenizer")
            seconds: dict[str, list[tuple[float, float]]] = {"elision": [], "tokenizers": [], "datasets": []}
            for _ in range(options.rounds):
                seconds["elision"].append(measured(lambda: run_elision(text, tokenizer, folder)))  # noqa: B023
                seconds["tokenizers"].append(measured(lambda: run_tokenizers(documents, tokenizer)))  # noqa: B023
                seconds["datasets"].append(measured(lambda: run_datasets(text, folder, num_cores)))
            print_table(name, megabytes, seconds)


def read_documents(text: Path | None, megabytes: float) -> list[str]:
    """Return distinct documents of about `megabytes` in all."""
    source = FileSource(text, Reading()) if text else PydocsSource()
    documents, size = [], 0
    for document in source.documents(lambda n: None):
        # Blank lines would end a document early, and the three must see the same ones.
        documents.append("\n".join(line for line in document.text.splitlines() if line.strip()))
        size += len(documents[-1].encode())
        if size >= megabytes * 1e6:
            break
    return list(dict.fromkeys(filter(None, documents)))


def print_table(name: str, megabytes: float, seconds: dict[str, list[tuple[float, float]]]) -> None:
    """Print one line for each of the three."""
    print(f"\n{name:<16}{'MB/s':>8}{'elision is':>14}{'processor s/MB':>18}{'elision is':>14}")
    for which, rounds in seconds.items():
        clock, processor = zip(*rounds)
        own_clock, own_processor = zip(*seconds["elision"])
        faster = statistics.median(other / own for other, own in zip(clock, own_clock))
        cheaper = statistics.median(other / own for other, own in zip(processor, own_processor))
        rate, cost = megabytes / statistics.median(clock), statistics.median(processor) / megabytes
        print(f"{which:<16}{rate:>8.2f}{faster:>13.2f}x{cost:>18.3f}{cheaper:>13.2f}x", flush=True)


if __name__ == "__main__":
    main()
