"""`elision evaluate`: measure a model on held-out text."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

import elision
from elision.data.store import Store
from elision.errors import InputError
from elision.progress import quantity, task
from elision.tasks.evaluate import Evaluation, Measured, evaluate_model
from elision.tasks.memory import set_memory
from elision.tasks.task import FILE, WritingTask, load_task
from elision.train.precision import choose_device

NAMES = {
    "mlm": "masked tokens",
    "tlm": "masked translations",
    "clm": "next tokens",
    "plm": "permuted tokens",
    "seq2seq": "all that is written",
    "written": "of it, the text",
    "nsp": "next sentence",
    "sop": "sentence order",
    "soft": "teacher's predictions",
    "cosine": "teacher's states",
}


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure a pretrained model on held-out text, beside unigram and trigram models at the very same places.

    For every objective of the model: loss, accuracy, and where tokens are predicted also perplexity and bits per byte
    (which compare across tokenizers). A masked model sees both sides, the trigram only the left; its perplexity is a
    pseudo-perplexity, over masked places alone, and compares with no causal model's. What encoder-decoders write holds
    symbols too; n-grams and copying from what was read are asked for the text in it.

    For example:

    elision evaluate runs/bert-mini --data store

    elision evaluate runs/gpt2-tiny --data store --examples 2000 --json

    elision evaluate runs/transformer-xl-tiny --data store --examples 4096 --memory-length 640 --same-length
    """

    model: tyro.conf.Positional[Path]
    """run, checkpoint or Hugging Face folder"""
    data: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """a token store made with the same tokenizer"""
    split: str = "validation"
    """which split of it"""
    examples: int = 512
    """how many examples, always the same with the same noise"""
    baselines: bool = True
    """count n-grams of the training split and compare"""
    baseline_tokens: int = 20_000_000
    """count at most so many training tokens (some 100 bytes of memory each)"""
    memory_length: int | None = None
    """of a model that remembers: how many states before each example its layers look at, be it more than in training; None =
    as in training. Give --examples enough: a memory starts empty, in each of the rows that are read side by side"""
    same_length: bool = False
    """let every token see exactly memory_length tokens, itself included, however late in an example it stands"""
    clamp_distance: int | None = None
    """have longer distances count as this one; None = as in training"""
    segment_length: int | None = None
    """tokens in an example; None = as in training. Shorter ones make the most of a memory"""
    json: bool = False
    """print JSON instead of a table"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        for name in ("examples", "baseline_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Evaluate, prog="elision evaluate", args=arguments)
    folders = [path for path in (settings.model, *settings.model.glob("seed-*")) if (path / FILE).exists()]
    # What was taught to write can still be asked for the text that it was pretrained on.
    if any(load_task(folder).learns != WritingTask.learns for folder in folders):
        raise InputError(
            f"{settings.model} is a fine-tuned model, which predicts no tokens: its results.json says how good it is, and "
            f"`elision predict` labels text with it"
        )
    loaded = elision.load(settings.model, device=choose_device(settings.device))
    set_memory(
        loaded,
        memory_length=settings.memory_length,
        same_length=settings.same_length or None,
        clamp_distance=settings.clamp_distance,
        segment_length=settings.segment_length,
    )
    store = Store.open(settings.data)
    with task("evaluating", total=settings.examples, unit="examples") as bar:
        evaluation = evaluate_model(
            loaded,
            store,
            settings.split,
            num_examples=settings.examples,
            baselines=settings.baselines,
            max_baseline_tokens=settings.baseline_tokens,
            advance=bar.advance,
        )
    if settings.json:
        values = dataclasses.asdict(evaluation)
        values["lines"] = [{**dataclasses.asdict(line), "perplexity": line.perplexity} for line in evaluation.lines]
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
    else:
        _show(evaluation, store)
    return 0


def _show(evaluation: Evaluation, store: Store) -> None:
    from rich.console import Console
    from rich.table import Table

    masked = evaluation.restores == "masked"
    title = f"{evaluation.name} on {store.path} ({evaluation.split}), {evaluation.num_examples:,} examples"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), header_style="bold")
    table.add_column("what", no_wrap=True)
    table.add_column("by", no_wrap=True)
    for name in ("places", "accuracy", "nats", "pseudo-\nperplexity" if masked else "perplexity", "bits/byte"):
        table.add_column(name, justify="right")
    before = None
    for line in evaluation.lines:
        if before is not None and line.term != before:
            table.add_section()
        table.add_row(
            NAMES.get(line.term, line.term) if line.term != before else "",
            f"[bold]{line.model}[/]" if line.model == "model" else line.model,
            *_cells(line),
            style=None if line.model == "model" else "dim",
        )
        before = line.term
    # Results go to standard output, so that they can be kept.
    out = Console(highlight=False)
    out.print(table)
    if evaluation.num_baseline_tokens is not None:
        counted, there = evaluation.num_baseline_tokens, store.split("train").num_tokens
        share = "all of" if counted >= there else f"the first {quantity(counted)} of"
        out.print(
            f"[dim]Baselines: Witten-Bell interpolation, counted on {share} the {quantity(there)} training tokens, given "
            f"the true text to the left of each place.[/]"
        )
    if masked:
        out.print(
            "[dim]Pseudo-perplexity: over masked places, seen from both sides; no causal model's compares with it.[/]"
        )


def _cells(line: Measured) -> list[str]:
    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        f"{line.num:,}",
        cell(line.accuracy, ".2%"),
        cell(line.loss, ".4f"),
        cell(line.perplexity, ",.2f"),
        cell(line.bits_per_byte, ".4f"),
    ]
