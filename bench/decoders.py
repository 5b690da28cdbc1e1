"""How fast decoders and encoder-decoders train beside `transformers`.

    python -m bench.decoders                        every system that has a counterpart there, at a small shape
    python -m bench.decoders llama t5               some of them
    python -m bench.decoders llama gpt2 --shape small   the width and depth of GPT-2 small

Decoders read full rows of real text (the installed documentation); encoder-decoders read it as it comes, one document or
block of sentences to an example, so that lengths differ on both sides: ours are packed, theirs padded to the longest. What
is trained on pairs, or on languages, has neither here: Marian, BlenderBot and mBART write the second part of a document after
its first, CTRL reads no code.
Both: the published size of vocabulary, dropout 0.1 where the system has any, float32.
"""

import argparse
import dataclasses
from typing import Any

from bench import report, sides
from bench.data import Lengths, store_for, works
from bench.learns import small
from bench.pairs import compare, worker
from bench.pretrain import STORES, num_cores
from elision import recipes
from elision.data.noise import TextToText
from elision.data.noise.text_to_text import Ending
from elision.data.segment import Chunks, CodedChunks, LanguageBlocks, SourceTarget
from elision.model.encoder_decoder import EncoderDecoder
from elision.progress import console, quantity, task
from elision.recipe import Recipe

SHAPES: dict[str, dict[str, Any]] = {
    "mini": {"num_layers": 4, "hidden_size": 256, "num_heads": 4, "feedforward_size": 1024},
    "small": {"num_layers": 12, "hidden_size": 768, "num_heads": 12, "feedforward_size": 3072},
}
# What each is called here, its recipe, and what differs from the shape.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt1": ("gpt1-tiny", {}),
    "gpt2": ("gpt2-tiny", {}),
    "gpt3": ("gpt3-tiny", {}),
    "ctrl": ("ctrl-tiny", {}),
    "pythia": ("pythia-tiny", {}),
    "llama": ("llama-tiny", {"gated": True}),
    "mistral": ("mistral-tiny", {"gated": True}),
    "bart": ("bart-tiny", {}),
    "mbart": ("mbart-tiny", {}),
    "t5": ("t5-tiny", {}),
    "t5-v1.1": ("t5-v1.1-tiny", {"gated": True}),
    "mt5": ("mt5-tiny", {"gated": True}),
    "marian": ("marian-tiny", {}),
    "blenderbot": ("blenderbot-tiny", {}),
}
VOCAB_SIZE = 32000


def recipe_of(name: str, shape: str, length: int) -> Recipe:
    """Return a recipe at the shape of the bench."""
    recipe, changes = SYSTEMS[name]
    settings = SHAPES[shape] | {"max_length": length, "dropout": 0.1, "attention_dropout": 0.1, "num_languages": 0}
    settings |= {"mixing": None, "num_positions": max(512, 2 * length), "head_size": None} | changes
    if settings.pop("gated", False):
        # Three matrices in place of two.
        settings["feedforward_size"] = settings["feedforward_size"] * 2 // 3
    found = recipes.get(recipe)
    if not _drops(found):
        settings |= {"dropout": 0.0, "attention_dropout": 0.0}
    if found.backbone.max_length is None:
        del settings["num_positions"]
    if isinstance(found.segmenter, SourceTarget | LanguageBlocks):
        found = dataclasses.replace(
            found,
            backbone=small(found.backbone, settings),
            segmenter=Chunks(length, separated=False),
            noise=TextToText(Ending(), read="dropped", write="left out"),
        )
    elif isinstance(found.segmenter, CodedChunks):
        found = dataclasses.replace(found, segmenter=Chunks(length))
    made = small(found, settings)
    return dataclasses.replace(made, tokenizer=small(made.tokenizer, {"vocab_size": VOCAB_SIZE}))


def _drops(recipe: Recipe) -> bool:
    sides_of = (recipe.backbone.encoder,) if isinstance(recipe.backbone, EncoderDecoder) else (recipe.backbone,)
    return any(side.dropout > 0 for side in sides_of)


COLUMNS = ("system", "shape", "times as fast (range)", "tokens/s", "theirs", "peak memory", "theirs")


def beside_transformers(name: str, options: argparse.Namespace) -> list[str]:
    """Measure one system beside its counterpart; returns its line."""
    recipe = recipe_of(name, options.shape, options.length)
    settings = sides.Settings(recipe, "float32", num_threads=options.threads)
    lengths: Lengths = "real" if isinstance(recipe.backbone, EncoderDecoder) else "full"
    read = works(recipe, store_for(recipe, STORES), lengths, options.rows, options.steps)
    with (
        worker(name, sides.ours, settings, read) as one,
        worker("transformers", sides.theirs, settings, read) as two,
        task(f"{name} beside transformers", options.rounds + 2, "rounds") as bar,
    ):
        pair = compare(one, two, options.rounds, options.steps, 1, options.clock, bar.advance)
    figures, tokens = pair.summary(), pair.our_facts["tokens"] * options.steps
    shape = SHAPES[options.shape]
    return [
        name,
        f"{shape['num_layers']} x {shape['hidden_size']}, {options.rows} x {options.length} {lengths}",
        f"{figures['ratio']:.2f}x ({figures['ratio_min']:.2f}-{figures['ratio_max']:.2f})",
        quantity(tokens / figures["our_seconds"]),
        quantity(tokens / figures["their_seconds"]),
        *(f"{facts['peak_bytes'] / 1e9:.2f} GB" for facts in (pair.our_facts, pair.their_facts)),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decoders", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", help="which (default: all of the table)")
    parser.add_argument("--shape", default="mini", choices=tuple(SHAPES))
    parser.add_argument("--length", type=int, default=128, help="tokens of an example (default 128)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds (default 5)")
    parser.add_argument("--steps", type=int, default=2, help="steps in a round (default 2)")
    parser.add_argument("--rows", type=int, default=16, help="examples in a step (default 16)")
    parser.add_argument("--threads", type=int, default=num_cores(), help="threads of each side (default: all cores)")
    parser.add_argument("--write-readme", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: on a machine that others use")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    lines: list[list[str]] = []
    for name in options.systems or SYSTEMS:
        lines.append(beside_transformers(name, options))
        console.print("  ".join(lines[-1]), markup=False)
    report.print_table("a training step beside transformers", COLUMNS, lines)
    if options.write_readme:
        report.write_section(f"decoders-{options.shape}", COLUMNS, lines)


if __name__ == "__main__":
    main()
