"""How fast and how small a training step is, beside the same model in `transformers`.

    python -m bench.pretrain                                          the published shapes, both precisions
    python -m bench.pretrain --shapes bert-mini --rounds 9            one of them, longer
    python -m bench.pretrain --shapes bert-base --device cuda --length 512 --rows 64 --precision bfloat16 --compile

Each side runs in a process of its own; rounds are interleaved and the ratio is the median over rounds. A row says what
was measured: `full` rows hold examples of the full length only, so packing gains nothing; `real` ones come as the
corpus gives them, packed on our side and padded to the longest on the other.
"""

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from bench import sides
from bench.data import Lengths, store_for, works
from bench.pairs import Clock, compare, worker
from elision import recipes
from elision.data.noise import TokenMask
from elision.data.store import Store
from elision.objectives import MaskedLM
from elision.progress import console, task
from elision.recipe import Recipe

SHAPES = ("bert-mini", "bert-base", "gpt2-small")
STORES = Path("build/bench")

# Rows and steps of a round on a CPU: a round should last about a second where it can.
CPU_SIZES = {"bert-mini": (32, 4), "bert-base": (8, 1), "gpt2-small": (1, 1)}


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table."""

    recipe: Recipe
    precision: str
    their_precision: str
    lengths: Lengths
    rows: int
    steps_per_round: int
    rounds: int
    num_threads: int
    device: str = "cpu"
    compiled: bool = False
    fused_optimizer: bool = False
    clock: Clock = "wall"

    @property
    def title(self) -> str:
        """What the line measures, in a few words."""
        objectives = "+".join(objective.name for objective in self.recipe.objectives)
        return f"{self.recipe.name} {objectives}, {self.rows} x {self.recipe.segmenter.max_length} {self.lengths}"


def measure(case: Case, store: Store | None) -> dict[str, float | str]:
    """Run one case; returns what the table shows. `store` None: random tokens."""
    data = works(case.recipe, store, case.lengths, case.rows, case.steps_per_round)
    mine = sides.Settings(case.recipe, case.precision, case.device, case.compiled, case.num_threads)
    other = dataclasses.replace(mine, precision=case.their_precision, fused_optimizer=case.fused_optimizer)
    warmup = max(3 if case.compiled else 1, case.steps_per_round)
    with (
        worker("elision", sides.ours, mine, data) as ours,
        worker("transformers", sides.theirs, other, data) as theirs,
        task(f"{case.title}, {case.precision}", case.rounds + 2, "rounds") as bar,
    ):
        pair = compare(ours, theirs, case.rounds, case.steps_per_round, warmup, case.clock, bar.advance)
    summary, us, them = pair.summary(), pair.our_facts, pair.their_facts
    tokens, flops = us["tokens"] * case.steps_per_round, us["flops"] * case.steps_per_round
    return {
        "case": case.title,
        "shape": case.recipe.name,
        "lengths": case.lengths,
        "precision": case.precision,
        "their_precision": case.their_precision,
        "compiled": case.compiled,
        "fused_peer": case.fused_optimizer,
        "num_threads": case.num_threads,
        "clock": case.clock,
        **summary,
        "our_tokens_per_second": tokens / summary["our_seconds"],
        "their_tokens_per_second": tokens / summary["their_seconds"],
        "our_flop_utilisation": flops / summary["our_seconds"] / us["matmul_peak"],
        "their_flop_utilisation": flops / summary["their_seconds"] / them["matmul_peak"],
        "our_matmul_peak": us["matmul_peak"],
        "our_peak_bytes": us["peak_bytes"],
        "their_peak_bytes": them["peak_bytes"],
        "our_growth_bytes": us["peak_bytes"] - us["built_bytes"],
        "their_growth_bytes": them["peak_bytes"] - them["built_bytes"],
    }


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the lines of the table for the command line's options."""
    for shape in options.shapes:
        recipe = with_length(recipes.get(shape), options.length)
        rows, steps = CPU_SIZES.get(shape, (8, 1)) if options.device == "cpu" else (64, 8)
        shared = {
            "rows": options.rows or rows,
            "steps_per_round": options.steps or steps,
            "rounds": options.rounds,
            "num_threads": options.threads,
            "device": options.device,
            "compiled": options.compile,
            "fused_optimizer": options.fused_peer,
            "clock": options.clock,
        }
        alone = recipe
        if len(recipe.objectives) > 1:
            alone = dataclasses.replace(recipe, objectives=(MaskedLM(),))
        kinds = ("full", "real") if recipe.segmenter.num_types else ("full",)
        for lengths in kinds:
            if options.lengths not in (None, lengths):
                continue
            for precision in options.precision:
                yield Case(alone, precision, precision, lengths, **shared)
        if {"float32", "bfloat16"} <= set(options.precision) and options.lengths != "real":
            yield Case(alone, "bfloat16", "float32", "full", **shared)
        if alone is not recipe and shape == "bert-mini" and options.lengths != "full":
            yield Case(recipe, options.precision[-1], options.precision[-1], "real", **shared)


def with_length(recipe: Recipe, length: int | None) -> Recipe:
    """Return the recipe with examples of another length (and, for BERT, as many targets as its code takes there)."""
    if length is None:
        return recipe
    noise = recipe.noise
    if isinstance(noise, TokenMask) and noise.max_targets is not None:
        noise = dataclasses.replace(noise, max_targets=round(noise.rate * length))
    segmenter = dataclasses.replace(recipe.segmenter, max_length=length)
    return dataclasses.replace(recipe, segmenter=segmenter, noise=noise)


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    built = argparse.ArgumentParser(
        prog="python -m bench.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = built.add_argument
    add("--shapes", nargs="+", default=list(SHAPES), help=f"recipes (default: {' '.join(SHAPES)})")
    add("--precision", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    add("--lengths", choices=("full", "real"), help="BERT's examples; both when not given")
    add("--rounds", type=int, default=5, help="pairs of rounds (default 5)")
    add("--steps", type=int, help="steps in a round")
    add("--rows", type=int, help="examples in a step")
    add("--length", type=int, help="tokens in an example; the recipe's own when not given")
    add("--threads", type=int, default=num_cores(), help="threads of each side (default: all cores)")
    add("--device", default="cpu", help="cpu or cuda (default cpu)")
    add("--compile", action="store_true", help="torch.compile on both sides")
    add("--fused-peer", action="store_true", help="give the other side torch's fused AdamW too")
    add("--clock", default="wall", choices=("wall", "cpu"), help="cpu: processor time, for a machine that others use")
    add("--data", help="a token store, or 'random'; the installed documentation when not given")
    return built


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_store(recipe: Recipe, data: str | None) -> Store | None:
    """Return the store that `--data` asks for: None means random tokens."""
    if data == "random":
        return None
    return Store.open(data) if data is not None else store_for(recipe, STORES)


def main(arguments: list[str] | None = None) -> list[dict[str, float | str]]:
    """Measure, print the table, return its rows."""
    from bench.report import pretrain_cells, print_pretrain

    options = parser().parse_args(arguments)
    if options.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"--device {options.device}: torch finds no GPU here")
    rows = []
    for case in cases(options):
        rows.append(measure(case, choose_store(case.recipe, options.data)))
        # The table comes last; whoever stops early has seen what was measured.
        console.print("  ".join(pretrain_cells(rows[-1])[:5]), markup=False)
    print_pretrain(rows)
    return rows


if __name__ == "__main__":
    main()
