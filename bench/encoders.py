"""How fast every encoder trains: beside `transformers`, and beside plain BERT.

    python -m bench.encoders                        every system beside its counterpart in transformers, 16 x 128
    python -m bench.encoders electra xlnet          some of them
    python -m bench.encoders --against bert         DeBERTa and XLNet beside our BERT of the same shape at length 512

The first table has 4 layers of width 256 over full rows of real text (the installed documentation), the published size of
vocabulary, dropout 0.1, float32. It says how many times as fast as theirs ours is. The second says how many times as long as
a step of BERT one of another encoder takes, in processor time of one thread.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any

from bench import report, sides
from bench.data import store_for, works
from bench.learns import small
from bench.pairs import Pair, compare, worker
from bench.pretrain import STORES, num_cores
from elision import recipes
from elision.model.language_model import LanguageModel
from elision.progress import console, quantity, task
from elision.recipe import Recipe
from elision.train import checkpoint

SHAPE: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 256,
    "num_heads": 4,
    "feedforward_size": 1024,
    "max_length": 128,
    "max_targets": 20,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "num_languages": 0,
    "mixing": None,
}

# What each is called here, its recipe, and what differs from SHAPE.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert-mini", {}),
    "roberta": ("roberta-tiny", {}),
    "xlm-r": ("xlm-r-tiny", {}),
    "albert": ("albert-tiny", {}),
    "electra": ("electra-tiny", {}),
    "spanbert": ("spanbert-tiny", {}),
    "distilbert": ("distilbert-tiny", {"num_layers": 2}),
    "deberta": ("deberta-tiny", {}),
    "deberta-v2": ("deberta-v2-tiny", {}),
    "deberta-v3": ("deberta-v3-tiny", {}),
    "xlnet": ("xlnet-tiny", {"reuse_length": 64, "permute_length": 64, "memory_length": 0}),
    "xlm": ("xlm-tiny-mlm", {}),
}
# Vocabularies as published would make the table of XLM-R half of a small model; all have BERT's number of symbols.
VOCAB_SIZE = 30522

AGAINST_BERT = {
    "deberta": ("deberta-tiny", {}),
    "deberta-v2": ("deberta-v2-tiny", {}),
    "xlnet": ("xlnet-tiny", {"reuse_length": 256, "permute_length": 256, "memory_length": 0}),
    "xlnet with memory": ("xlnet-tiny", {"reuse_length": 256, "permute_length": 256, "memory_length": 384}),
}


def recipe_of(name: str, changes: dict[str, Any]) -> Recipe:
    """Return a recipe at the shape of the bench."""
    settings = SHAPE | changes
    if name.startswith("distilbert"):
        settings["teacher"] = str(teacher(settings))
    recipe = small(recipes.get(name), settings)
    return dataclasses.replace(recipe, tokenizer=small(recipe.tokenizer, {"vocab_size": VOCAB_SIZE}))


def teacher(settings: dict[str, Any]) -> Path:
    """Return an untrained BERT of twice as many layers to distil from: what it says does not matter, what it costs does."""
    folder = STORES / "teacher"
    recipe = small(recipes.get("bert-mini"), settings | {"num_layers": 2 * settings["num_layers"]})
    store = store_for(recipe, STORES)
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(folder / "recipe.json")
    store.tokenizer.save(folder / "tokenizer")
    checkpoint.write_weights(folder, LanguageModel(recipe.backbone, recipe.objectives, VOCAB_SIZE))
    return folder


def measured(ours: sides.Settings, theirs: sides.Settings, names: tuple[str, str], options: argparse.Namespace) -> Pair:
    """Let two recipes train in turns on the same text; `theirs` by transformers unless it is a recipe of its own."""
    count = options.steps
    mine = works(ours.recipe, store_for(ours.recipe, STORES), "full", options.rows, count)
    other = mine
    build = sides.theirs
    if theirs.recipe is not ours.recipe:
        other, build = works(theirs.recipe, store_for(theirs.recipe, STORES), "full", options.rows, count), sides.ours
    with (
        worker(names[0], sides.ours, ours, mine) as one,
        worker(names[1], build, theirs, other) as two,
        task(f"{names[0]} beside {names[1]}", options.rounds + 2, "rounds") as bar,
    ):
        return compare(one, two, options.rounds, count, 1, options.clock, bar.advance)


COLUMNS = ("system", "times as fast (range)", "tokens/s", "theirs", "peak memory", "theirs")


def beside_transformers(name: str, options: argparse.Namespace) -> list[str]:
    """Measure one system beside its counterpart; returns its line."""
    recipe = recipe_of(*SYSTEMS[name])
    settings = sides.Settings(recipe, "float32", num_threads=options.threads)
    pair = measured(settings, settings, (name, "transformers"), options)
    figures, tokens = pair.summary(), pair.our_facts["tokens"] * options.steps
    return [
        name,
        f"{figures['ratio']:.2f}x ({figures['ratio_min']:.2f}-{figures['ratio_max']:.2f})",
        quantity(tokens / figures["our_seconds"]),
        quantity(tokens / figures["their_seconds"]),
        *(f"{facts['peak_bytes'] / 1e9:.2f} GB" for facts in (pair.our_facts, pair.their_facts)),
    ]


BERT_COLUMNS = ("system", "shape", "times as long as BERT (range)")


def beside_bert(name: str, width: int, layers: int, options: argparse.Namespace) -> list[str]:
    """Measure one system beside BERT of the same shape at length 512; returns its line."""
    shape = {
        "num_layers": layers, "hidden_size": width, "num_heads": width // 64, "feedforward_size": 4 * width,
        "max_length": 512, "max_targets": 77,
    }  # fmt: skip
    system, changes = AGAINST_BERT[name]
    other, bert = recipe_of(system, shape | changes), recipe_of("bert-mini", shape)
    # The masked language model alone, so that both restore the same share of the tokens.
    bert = dataclasses.replace(bert, objectives=bert.objectives[:1])
    mine = sides.Settings(other, "float32", num_threads=1)
    pair = measured(mine, dataclasses.replace(mine, recipe=bert), (name, "BERT"), options)
    ratios = sorted(ours / theirs for ours, theirs in zip(pair.ours, pair.theirs, strict=True))
    return [
        name,
        f"{layers} x {width}, {options.rows} x 512",
        f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.encoders", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", help="which (default: all of the table)")
    parser.add_argument("--against", default="transformers", choices=("transformers", "bert"))
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds (default 5)")
    parser.add_argument("--steps", type=int, default=2, help="steps in a round (default 2)")
    parser.add_argument("--rows", type=int, default=16, help="examples in a step (default 16)")
    parser.add_argument("--threads", type=int, default=num_cores(), help="threads of each side (default: all cores)")
    parser.add_argument("--write-readme", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: on a machine that others use")
    options = parser.parse_args(arguments)
    known = AGAINST_BERT if options.against == "bert" else SYSTEMS
    unknown = [name for name in options.systems if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    lines: list[list[str]] = []
    if options.against == "bert":
        options.clock, options.steps, options.rows = "cpu", 1, min(options.rows, 8)
        for name in options.systems or AGAINST_BERT:
            for width, layers in ((256, 4), (768, 2)):
                lines.append(beside_bert(name, width, layers, options))
                console.print("  ".join(lines[-1]), markup=False)
        report.print_table("a step beside BERT's", BERT_COLUMNS, lines)
        if options.write_readme:
            report.write_section("encoders-bert", BERT_COLUMNS, lines)
        return
    for name in options.systems or SYSTEMS:
        lines.append(beside_transformers(name, options))
        console.print("  ".join(lines[-1]), markup=False)
    report.print_table("a training step beside transformers", COLUMNS, lines)
    if options.write_readme:
        report.write_section("encoders", COLUMNS, lines)


if __name__ == "__main__":
    main()
