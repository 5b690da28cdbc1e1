"""How fast `elision prepare` tokenises, beside `tokenizers` alone and beside the usual `datasets` pipeline.

    python -m bench.prepare                        on the documentation of the installed packages
    python -m bench.prepare --text corpus.txt      on a text of one's own (blank line = document break)

All three see the same documents with the same trained tokenizer on all cores, in interleaved rounds; the figures are
medians, and the ratios are medians of the ratios within a round. `elision` is the whole road: reading, cleaning,
finding copies, splitting into sentences, encoding, writing. `tokenizers` is `encode_batch` alone on documents that lie
in memory. `datasets` is `load_dataset("text")`, `map(tokenize, batched)` and `map(group_texts, batched)` as in the
usual training scripts, without its cache.
"""

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from elision.text.prepare import prepare
from elision.text.pydocs import PydocsSource
from elision.text.readers import FileSource, Reading
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, WordPiece

BLOCK_TOKENS = 512


def measure_elision(text: Path, tokenizer: Tokenizer, folder: Path) -> float:
    """Return the seconds that `prepare` needs."""
    out = folder / "store"
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    prepare([str(text)], out, tokenizer)
    return time.perf_counter() - started


def measure_tokenizers(documents: list[str], tokenizer: Tokenizer) -> float:
    """Return the seconds that `encode_batch` needs, in batches as large as those of `prepare`."""
    started = time.perf_counter()
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= 1 << 20:
            tokenizer.raw.encode_batch(batch, add_special_tokens=False)
            batch, size = [], 0
    tokenizer.raw.encode_batch(batch, add_special_tokens=False)
    return time.perf_counter() - started


def group_texts(examples: dict) -> dict:
    """Concatenate and cut into blocks, as the usual scripts do."""
    joined = {name: list(itertools.chain(*rows)) for name, rows in examples.items()}
    total = len(joined["input_ids"]) // BLOCK_TOKENS * BLOCK_TOKENS
    return {name: [row[i : i + BLOCK_TOKENS] for i in range(0, total, BLOCK_TOKENS)] for name, row in joined.items()}


def measure_datasets(text: Path, folder: Path, num_processes: int) -> float:
    """Return the seconds that `datasets.map(tokenize)` and `group_texts` need."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")

    def tokenize(examples: dict) -> dict:
        return tokenizer(examples["text"], return_special_tokens_mask=True)

    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    started = time.perf_counter()
    rows = datasets.load_dataset(
        "text", data_files=str(text), sample_by="paragraph", split="train", cache_dir=str(cache)
    )
    rows = rows.map(tokenize, batched=True, num_proc=num_processes, remove_columns=["text"])
    rows.map(group_texts, batched=True, num_proc=num_processes)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, help="text file; the installed documentation when not given")
    parser.add_argument("--megabytes", type=float, default=20.0, help="how much of the text to use")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokenizer", choices=("wordpiece", "bpe"), default="wordpiece")
    options = parser.parse_args()

    import datasets

    datasets.disable_progress_bars()
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = FileSource(options.text, Reading()) if options.text else PydocsSource()
        documents, size = [], 0
        for document in source.documents(lambda n: None):
            # Blank lines would end a document early, and the three must see the same ones.
            documents.append("\n".join(line for line in document.text.splitlines() if line.strip()))
            size += len(documents[-1].encode())
            if size >= options.megabytes * 1e6:
                break
        documents = list(dict.fromkeys(filter(None, documents)))
        text = folder / "text.txt"
        text.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
        megabytes = text.stat().st_size / 1e6
        spec = WordPiece(16000) if options.tokenizer == "wordpiece" else ByteLevelBPE(16000)
        tokenizer = spec.train(documents[: 1 + len(documents) // 2])
        tokenizer.save(folder / "tokenizer")

        seconds: dict[str, list[float]] = {"elision": [], "tokenizers": [], "datasets": []}
        for _ in range(options.rounds):
            seconds["elision"].append(measure_elision(text, tokenizer, folder))
            seconds["tokenizers"].append(measure_tokenizers(documents, tokenizer))
            seconds["datasets"].append(measure_datasets(text, folder, num_cores))

    print(
        f"{megabytes:.1f} MB, {len(documents)} documents, {options.tokenizer}, "
        f"{num_cores} cores, {options.rounds} rounds"
    )
    print(f"{'':<12}{'MB/s':>8}{'elision is':>14}")
    for name, measured in seconds.items():
        ratio = statistics.median(other / own for other, own in zip(measured, seconds["elision"]))
        print(f"{name:<12}{megabytes / statistics.median(measured):>8.2f}{ratio:>13.2f}x")


if __name__ == "__main__":
    main()
