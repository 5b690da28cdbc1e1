"""Does it learn? A small real run of every system: its own loss beside a trivial predictor, and what it is worth after.

    python -m bench.learns                          every system below, one after the other (about ten minutes each)
    python -m bench.learns electra xlnet            some of them
    python -m bench.learns --steps 300 --seeds 1    a quick look

Each system is pretrained from the documentation of the installed Python packages with its own tokenizer, segmenter,
noise and objectives, at a size that two cores train in minutes. Then the same weights, and random ones in the same
architecture, are fine-tuned on the library task (64 labelled rows of eight classes, tested on 480 rows of other modules) with
several seeds. Runs lie in build/learns and are gone on with when the command is given again.

A system has learned when its loss is well below what a predictor without context achieves (the unigram distribution for
tokens, the more frequent answer for yes-or-no questions), and when the gain from pretraining exceeds the spread of the seeds.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import elision
from bench import report
from elision import recipes
from elision.atomic import write_json
from elision.data.segment import CodedChunks
from elision.data.store import MANIFEST, Store
from elision.progress import console, task
from elision.recipe import Recipe
from elision.tasks.classify import FineTune, finetune_classifier
from elision.tasks.evaluate import Evaluation, evaluate_model
from elision.text.library_task import library_task
from elision.text.prepare import prepare
from elision.text.pydocs import PydocsSource
from elision.text.readers import Document
from elision.train.loop import fit
from elision.train.pretrain import prepare_run

OUT = Path("build/learns")
RESULTS = OUT / "results"

# What a run of minutes needs instead of days, by name of the field, wherever a recipe has it. A model sees little more than
# one pass over the text, so it cannot overfit and dropout would only slow it down; the wider initialisation lets so narrow a
# network leave the unigram plateau early (LOG.md, 2026-11-22); short examples make many updates.
SMALL: dict[str, Any] = {
    "vocab_size": 8192,
    "num_layers": 2,
    "hidden_size": 128,
    "num_heads": 2,
    "feedforward_size": 512,
    "max_length": 64,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "std": 0.08,
    "learning_rate": 1e-3,
    "batch_size": 32,
    "warmup": 0.06,
    "eval_examples": 384,
    "keep_checkpoints": 1,
}


@dataclasses.dataclass(frozen=True)
class System:
    """A recipe, and what differs for it from `SMALL`."""

    recipe: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 3000
    """updates of pretraining; detecting replaced tokens takes longer to begin (LOG.md, 2026-11-23)"""
    finetune_rate: float | None = 1e-3
    """None: it is not fine-tuned as a classifier (T5 answers in words)"""
    teacher: str | None = None
    """the system whose run it is distilled from"""
    writes: bool = False
    """it writes a text of its own, which `bench.restores` compares with the original"""


SYSTEMS: dict[str, System] = {
    "bert": System("bert-tiny"),
    "roberta": System("roberta-tiny"),
    "xlm-r": System("xlm-r-tiny"),
    "albert": System("albert-tiny", {"learning_rate": 5e-3}),
    "electra": System("electra-tiny", steps=8000),
    "spanbert": System("spanbert-tiny"),
    "distilbert": System("distilbert-tiny", {"num_layers": 1}, teacher="bert"),
    "deberta": System("deberta-tiny"),
    "deberta-v2": System("deberta-v2-tiny"),
    "deberta-v3": System("deberta-v3-tiny", steps=8000),
    "xlnet": System("xlnet-tiny", {"max_length": 64, "reuse_length": 32, "memory_length": 32, "permute_length": 32}),
    "xlm": System("xlm-tiny-mlm"),
    "gpt1": System("gpt1-tiny", steps=1000, finetune_rate=None),
    "gpt2": System("gpt2-tiny", steps=1000, finetune_rate=None),
    "gpt3": System("gpt3-tiny", steps=1000, finetune_rate=None),
    "transformer-xl": System("transformer-xl-tiny", {"memory_length": 64}, steps=1000, finetune_rate=None),
    "ctrl": System("ctrl-tiny", {"learning_rate": 0.05}, steps=1000, finetune_rate=None),
    "pythia": System("pythia-tiny", steps=1000, finetune_rate=None),
    "polyglot": System("polyglot-tiny", steps=1000, finetune_rate=None),
    "llama": System("llama-tiny", steps=1000, finetune_rate=None),
    "llama2": System("llama2-tiny", steps=1000, finetune_rate=None),
    # A window and shared heads that matter at this size.
    "mistral": System("mistral-tiny", {"windows": (16,), "num_key_value_heads": 1}, steps=1000, finetune_rate=None),
    "bart": System("bart-tiny", steps=2500, finetune_rate=None, writes=True),
    "t5": System("t5-tiny", {"learning_rate": 1.0, "max_length": 128}, steps=2500, finetune_rate=None, writes=True),
    "t5-v1.1": System(
        "t5-v1.1-tiny", {"learning_rate": 1.0, "max_length": 128}, steps=2500, finetune_rate=None, writes=True
    ),
    "mass": System("mass-tiny", steps=2500, finetune_rate=None, writes=True),
    "elmo": System("elmo-tiny", {"max_length": 40, "learning_rate": 0.2, "std": 0.02}),
}


def small(part: Any, settings: dict[str, Any]) -> Any:
    """Return a recipe (or a part of one) with fields set by name, all the way down."""
    if isinstance(part, tuple):
        return tuple(small(item, settings) for item in part)
    if not dataclasses.is_dataclass(part):
        return part
    return type(part)(
        **{
            field.name: settings[field.name] if field.name in settings else small(getattr(part, field.name), settings)
            for field in dataclasses.fields(part)
        }
    )


def recipe_of(name: str, steps: int) -> Recipe:
    """Return the recipe that a line of the table trains."""
    system = SYSTEMS[name]
    settings = SMALL | {"steps": steps, "name": f"{name}-learns"} | system.changes
    if system.teacher is not None:
        settings["teacher"] = str(OUT / "runs" / system.teacher)
    return small(recipes.get(system.recipe), settings)


def store_of(recipe: Recipe) -> Store:
    """Return the documentation as the recipe's tokenizer reads it; recipes of the same tokenizer share a store."""
    spec = recipe.tokenizer
    kind = "-".join([type(spec).__name__.lower(), *([spec.layout] if hasattr(spec, "layout") else [])])
    coded = isinstance(recipe.segmenter, CodedChunks)
    path = OUT / "stores" / (f"{kind}-coded" if coded else kind)
    if (path / MANIFEST).is_file():
        return Store.open(path)
    return prepare([CodedPydocs() if coded else PydocsSource()], path, spec, sample_megabytes=10)


@dataclasses.dataclass(frozen=True)
class CodedPydocs(PydocsSource):
    """The documentation, each document with the package that it is of as its control code."""

    name: str = "coded-pydocs"

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield the documents; packages with little text share a code."""
        for document in super().documents(progress):
            package = document.id.split(".")[0]
            yield dataclasses.replace(document, code=package if package in PACKAGES else "other")


PACKAGES = ("networkx", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch")


def pretrain(name: str, recipe: Recipe, store: Store) -> tuple[Evaluation, Evaluation]:
    """Train, or go on; returns what the model was before its first step and what it is at its best."""
    folder = OUT / "runs" / name
    run = prepare_run(recipe, store, folder, report=lambda progress: bar.advance(progress.step - bar.done))
    fresh = elision.loaded.Loaded(folder, run.model.eval(), recipe, store.tokenizer, None, [])
    before = evaluate_model(fresh, store, num_examples=recipe.train.eval_examples)
    run.model.train()
    with task(f"{name}: pretraining", recipe.train.steps, "steps") as bar:
        fit(run)
    after = evaluate_model(elision.load(folder), store, num_examples=recipe.train.eval_examples)
    return before, after


def finetune(name: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Return the accuracy of each seed with and without the pretrained weights, and the majority's."""
    labelled = library_task(train_per_class=8)
    train = [(row["text"], row["label"]) for row in labelled.train]
    valid = [(row["text"], row["label"]) for row in labelled.valid]
    loaded = elision.load(OUT / "runs" / name)
    scores: dict[str, list[float]] = {"pretrained": [], "scratch": []}
    with task(f"{name}: fine-tuning", 2 * len(seeds), "runs") as bar:
        for seed in seeds:
            for kind in scores:
                settings = FineTune(
                    epochs=30,
                    learning_rate=SYSTEMS[name].finetune_rate,
                    seed=seed,
                    from_scratch=kind == "scratch",
                    max_length=SMALL["max_length"],
                )
                folder = OUT / "finetuned" / f"{name}-{kind}-{seed}"
                result = finetune_classifier(loaded, train, valid, folder, settings)
                scores[kind].append(result.metrics["accuracy"])
                bar.advance()
    return {**scores, "majority": [result.baseline.value]}


def measure(name: str, steps: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Run one system; returns its line, which is also kept as a file."""
    recipe = recipe_of(name, steps)
    before, after = pretrain(name, recipe, store_of(recipe))
    terms = {}
    for line in after.lines:
        if line.model != "model" or line.loss is None:
            continue
        start = next(other.loss for other in before.lines if (other.term, other.model) == (line.term, "model"))
        trivial = [other for other in after.lines if other.term == line.term and other.model in ("unigram", "majority")]
        per_byte = line.bits_per_byte / line.loss if line.bits_per_byte is not None else None
        terms[line.term] = {
            "start": start,
            "end": line.loss,
            "trivial": trivial[0].loss if trivial else None,
            "bits_per_byte_per_nat": per_byte,
            "accuracy": line.accuracy,
            "rivals": {
                other.model: {"loss": other.loss, "accuracy": other.accuracy}
                for other in after.lines
                if other.term == line.term and other.model != "model"
            },
        }
    result = {
        "system": name,
        "recipe": recipe.to_dict(),
        "steps": steps,
        "parameters": elision.load(OUT / "runs" / name).model.num_parameters(),
        "terms": terms,
        **(finetune(name, seeds) if SYSTEMS[name].finetune_rate is not None else {}),
    }
    write_json(RESULTS / f"{name}.json", result)
    return result


def cells(result: dict[str, Any]) -> list[str]:
    """Return the cells of one line of the table."""
    shown = []
    for term, values in result["terms"].items():
        scale, unit = (values["bits_per_byte_per_nat"], " bpb") if values["bits_per_byte_per_nat"] else (1.0, "")
        trivial = "" if values["trivial"] is None else f" (trivial {scale * values['trivial']:.3f})"
        shown.append(f"{term} {scale * values['start']:.3f} → {scale * values['end']:.3f}{unit}{trivial}")
    gain = statistics.mean(result["pretrained"]) - statistics.mean(result["scratch"])
    spread = max(_spread(result["pretrained"]), _spread(result["scratch"]))
    return [
        result["system"],
        f"{result['steps']}",
        "; ".join(shown),
        _mean_and_spread(result["pretrained"]),
        _mean_and_spread(result["scratch"]),
        f"{gain:+.3f}" + ("" if gain > spread else " (within the spread)"),
    ]


def writer_cells(result: dict[str, Any]) -> list[str]:
    """Return the cells of one line of the table of systems that are not fine-tuned: beside every rival that was measured."""
    terms = result["terms"]
    # Of a text that is framed and written, the text itself.
    values = terms.get("written") or next(iter(terms.values()))
    scale, rivals = values["bits_per_byte_per_nat"], values["rivals"]

    def bits(loss: float | None) -> str:
        return "" if loss is None else f"{scale * loss:.3f}"

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f} %"

    return [
        result["system"],
        f"{result['steps']:,}",
        f"{bits(values['start'])} → {bits(values['end'])}",
        *(bits(rivals.get(name, {}).get("loss")) for name in ("unigram", "trigram")),
        share(values["accuracy"]),
        *(share(rivals.get(name, {}).get("accuracy")) for name in ("trigram", "copying")),
    ]


COLUMNS = ("system", "steps", "held-out loss, start → end", "fine-tuned", "from scratch", "gain")
WRITER_COLUMNS = (
    "system", "steps", "bits per byte, start → end", "unigram", "trigram", "right", "trigram", "copying",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run the systems, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.learns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", help=f"of {', '.join(SYSTEMS)} (default: all)")
    parser.add_argument(
        "--steps", type=int, help="updates of pretraining (default 3000; 8000 to detect replaced tokens)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds of fine-tuning (default 3)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--write-readme", action="store_true", help="put the table of all results into bench/README.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.systems or SYSTEMS:
        result = measure(name, options.steps or SYSTEMS[name].steps, range(1, options.seeds + 1))
        console.print(" | ".join((cells if "pretrained" in result else writer_cells)(result)), markup=False)
    results = [json.loads(file.read_text()) for name in SYSTEMS if (file := RESULTS / f"{name}.json").is_file()]
    tuned = [cells(result) for result in results if "pretrained" in result]
    others = [writer_cells(result) for result in results if "pretrained" not in result]
    if tuned:
        report.print_table("what small runs learn", COLUMNS, tuned)
    if others:
        report.print_table("what small decoders and encoder-decoders learn", WRITER_COLUMNS, others)
    if options.write_readme:
        for name, columns, lines in (("learns", COLUMNS, tuned), ("learns-writers", WRITER_COLUMNS, others)):
            if lines:
                report.write_section(name, columns, lines)


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {_spread(values):.3f}"


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
