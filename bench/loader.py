"""How fast batches are made, beside how fast the trainer of BERT-mini (and of a small GPT-2) reads them.

    python -m bench.loader                     on the installed documentation
    python -m bench.loader --seconds 5         longer

The loader works on one thread, as it does beside a training run: pairs, masking and packing for BERT, chunks for GPT-2.
The trainer takes whole steps with all threads. Both are measured in turns in one process.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.data import Work, loader_for
from bench.pretrain import STORES, choose_store, num_cores
from bench.sides import Ours, Settings
from elision import recipes
from elision.data.loader import Loader
from elision.progress import task
from elision.recipe import Recipe
from elision.train.precision import compute_dtype

SHAPES = ("bert-mini", "gpt2-mini")


def loader_rate(loader: Loader, first: int, seconds: float) -> float:
    """Return tokens per second of `Loader.microbatches`, from step `first` on, for about so many seconds."""
    tokens, step, started = 0, first, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        tokens += sum(batch.num_tokens for batch in loader.microbatches(step))
        step += 1
    return tokens / elapsed


def trainer_rate(trainer: Ours, seconds: float) -> float:
    """Return tokens per second of whole training steps, for about so many seconds and at least one step."""
    tokens, started = 0.0, time.perf_counter()
    while not tokens or time.perf_counter() - started < seconds:
        trainer.step()
        tokens += trainer.batches[0].num_tokens
    return tokens / (time.perf_counter() - started)


def measure(
    recipe: Recipe, loader: Loader, rounds: int, seconds: float, num_threads: int, advance: Callable[[], None]
) -> dict[str, float | str]:
    """Measure one recipe; returns a row of the table. The ratio is the median over rounds."""
    precision = "bfloat16" if compute_dtype("auto", torch.device("cpu")) == torch.bfloat16 else "float32"
    (batch,) = loader.microbatches(0)
    trainer = Ours(Settings(recipe, precision, num_threads=num_threads), [Work(batch, batch)])
    trainer.step()
    loader_rate(loader, 0, seconds / 4)
    made, read = [], []
    for index in range(rounds):
        made.append(loader_rate(loader, 1 + 10_000 * index, seconds))
        read.append(trainer_rate(trainer, seconds))
        advance()
    return {
        "case": f"{recipe.name}, {loader.batch_size} x {recipe.segmenter.max_length}",
        "trainer": f"{recipe.name} {precision}, {num_threads} threads",
        "loader_tokens_per_second": statistics.median(made),
        "trainer_tokens_per_second": statistics.median(read),
        "ratio": statistics.median(a / b for a, b in zip(made, read, strict=True)),
    }


def main(arguments: list[str] | None = None) -> list[dict[str, float | str]]:
    """Measure, print the table, return its rows."""
    from bench.report import print_loader

    parser = argparse.ArgumentParser(
        prog="python -m bench.loader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help=f"recipes (default: {' '.join(SHAPES)})")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in a round (default 1)")
    parser.add_argument("--threads", type=int, default=num_cores(), help="threads of the trainer (default: all cores)")
    parser.add_argument("--data", type=Path, help="a token store; the installed documentation when not given")
    options = parser.parse_args(arguments)
    rows = []
    with task("loader", options.rounds * len(options.shapes), "rounds") as bar:
        for shape in options.shapes:
            recipe = recipes.get(shape)
            store = choose_store(recipe, None if options.data is None else str(options.data))
            assert store is not None, STORES
            # The published vocabulary: the trainer's cost must not depend on how much text lies in the store.
            recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=32))
            loader = loader_for(recipe, store, rows=32)
            rows.append(measure(recipe, loader, options.rounds, options.seconds, options.threads, bar.advance))
    print_loader(rows)
    return rows


if __name__ == "__main__":
    main()
