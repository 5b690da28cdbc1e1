"""`elision demo`: the whole road once."""

import dataclasses
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

import elision
from elision import demo
from elision.cli.pretrain import View
from elision.progress import console, duration, quantity, task
from elision.tasks.evaluate import Evaluation
from elision.train.loop import Progress, Run
from elision.train.metrics import read_metrics

BAR_WIDTH = 36


@dataclasses.dataclass(frozen=True)
class Demo:
    """The whole road once, on the documentation that is already on this machine: nothing is downloaded.

    Trains a tokenizer, builds a token store, pretrains a small BERT for a few minutes against unigram and trigram
    baselines, fills blanks, fine-tunes with and without the pretrained weights, and exports a Hugging Face folder.
    Interrupted, it goes on where it was; finished, it shows its results again (delete the folder to start anew).

    For example:

    elision demo

    elision demo --size mini --minutes 10 --out demo-mini
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("demo")
    """where everything is written"""
    minutes: float = 6.0
    """how long to pretrain"""
    size: Literal["tiny", "mini"] = "tiny"
    """which BERT"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Demo, prog="elision demo", args=arguments)
    started = time.monotonic()
    screen = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    _headline(screen, 1, "Text in: the documentation of the Python packages on this machine")
    store = demo.prepare_store(settings.out / "store")
    held_out = store.split("validation")
    screen.print(
        f"{quantity(store.split('train').num_bytes)}B of text, {store.split('train').num_documents:,} documents, "
        f"{quantity(store.split('train').num_tokens)} tokens of {store.tokenizer.vocabulary.size:,} kinds; "
        f"{held_out.num_documents:,} documents held out"
    )

    recipe = demo.demo_recipe(settings.minutes, settings.size)
    _headline(
        screen, 2, f"Pretraining {recipe.name}: leave words out, learn to restore them ({settings.minutes:g} minutes)"
    )
    chart = Chart(screen)
    run_folder = settings.out / "pretrained"
    with task("pretraining", unit="steps") as bar:
        chart.view.bar = bar

        def begin(run: Run) -> None:
            bar.grow(run.train.steps)
            chart.start(demo.untrained(run, store), run)

        demo.pretrain(recipe, store, run_folder, begin, chart.report)
    chart.conclude(run_folder)

    _headline(screen, 3, "Filling blanks in held-out sentences")
    model = elision.load(run_folder)
    for blank in demo.fill_blanks(model, held_out, count=8):
        offers = ", ".join(f"{token} {probability:.0%}" for token, probability in blank.offers)
        line = Text(f"  {blank.before} ", style="dim")
        line.append(f"[{blank.truth}]", style="bold green" if blank.offers[0][0] == blank.truth else "bold yellow")
        line.append(f" {blank.after}\n")
        line.append(f"      {offers}", style="cyan")
        screen.print(line)

    _headline(screen, 4, "What is it worth? Which library does a description come from, with few labels")
    with task("fine-tuning", total=2 * len(demo.SEEDS), unit="runs") as bar:

        def progress(name: str, seed: int, accuracy: float) -> None:
            bar.note(f"{name}, seed {seed}: accuracy {accuracy:.3f}")
            bar.advance()

        result = demo.compare(run_folder, settings.out / "finetuned", progress)
    screen.print(
        f"{result.num_train} labelled rows of {len(result.labels)} libraries ({', '.join(result.labels)}), their names "
        f"blanked; accuracy on {result.num_valid} rows, {len(demo.SEEDS)} seeds:"
    )
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_row("fine-tuned from the pretrained weights", f"[bold green]{demo.mean_and_spread(result.pretrained)}[/]")
    table.add_row("same model, same budget, random weights", demo.mean_and_spread(result.scratch))
    table.add_row("always the commonest label", f"{result.majority:.3f}")
    screen.print(table)
    gain = statistics.mean(result.pretrained) - statistics.mean(result.scratch)
    screen.print(f"pretraining is worth {100 * gain:+.1f} points here")

    _headline(screen, 5, "Out again: a folder that transformers loads")
    demo.export(run_folder, settings.out / "huggingface")
    demo.export(settings.out / "finetuned" / f"pretrained-{demo.SEEDS[0]}", settings.out / "huggingface-classifier")
    for what, path, use in (
        ("token store", "store", ""),
        ("pretraining run", "pretrained", "curves: tensorboard --logdir"),
        ("fine-tuned classifier", f"finetuned/pretrained-{demo.SEEDS[0]}", "elision predict --model"),
        ("Hugging Face folder", "huggingface", "AutoModelForMaskedLM.from_pretrained"),
        ("Hugging Face classifier", "huggingface-classifier", "AutoModelForSequenceClassification.from_pretrained"),
    ):
        screen.print(f"  {what:<24} {settings.out / path}", f"  [dim]{use}[/]" if use else "")
    screen.print(f"\n[dim]All of it took {duration(time.monotonic() - started)}. Next, on a text of your own:[/]")
    screen.print("  elision show bert-tiny 'What does the model read? What must it restore?'", markup=False)
    screen.print("  elision prepare YOUR_TEXTS --out store --recipe bert-mini", markup=False)
    screen.print("  elision pretrain bert-mini --data store --train.budget 20min", markup=False)
    return 0


class Chart:
    """The held-out loss as it falls, beside the baselines."""

    def __init__(self, screen: Console):
        self.screen, self.view = screen, View()
        self.start_bits, self.levels = 1.0, {}

    def start(self, evaluation: Evaluation, run: Run) -> None:
        """Print where an untrained model and the baselines stand."""
        bits = {line.model: line.bits_per_byte for line in evaluation.lines if line.bits_per_byte is not None}
        self.start_bits = bits["model"]
        self.levels = {name: value for name, value in bits.items() if name != "model"}
        self.screen.print(
            f"{quantity(run.model.num_parameters())} parameters, {run.train.steps:,} steps of {run.train.batch_size} "
            f"examples. Bits per byte of the left-out words in held-out text (lower is better):"
        )
        for name, value in bits.items():
            label = "before training" if name == "model" else f"{name} baseline"
            self._line(label, value, "dim" if name == "model" else "yellow")
        for line in read_metrics(run.folder):
            if line["split"] == "validation":
                self._evaluated(line["step"], line["bits_per_byte"])

    def report(self, progress: Progress) -> None:
        """Print one evaluation."""
        if progress.split != "validation":
            self.view.report(progress)
            return
        self._evaluated(progress.step, progress.values["bits_per_byte"])

    def _evaluated(self, step: int, value: float) -> None:
        below = [name for name, level in self.levels.items() if value < level]
        note = f"below {' and '.join(below)}" if below else ""
        self._line(f"step {step:,}", value, "green" if len(below) == len(self.levels) else "cyan", note)

    def conclude(self, run_folder: Path) -> None:
        """Say how it ended."""
        lines = [line for line in read_metrics(run_folder) if line["split"] == "validation"]
        best = min(lines, key=lambda line: line["bits_per_byte"])
        self.screen.print(
            f"best: {best['bits_per_byte']:.3f} bits per byte at step {best['step']:,}; "
            + ", ".join(f"{name} {value:.3f}" for name, value in self.levels.items())
        )

    def _line(self, label: str, value: float, style: str, note: str = "") -> None:
        bar = "█" * max(1, round(BAR_WIDTH * value / self.start_bits))
        console_line = Text(f"  {label:<20} {value:6.3f} ")
        console_line.append(f"{bar:<{BAR_WIDTH}}", style=style)
        console_line.append(f" {note}", style="dim")
        self.screen.print(console_line)


def _headline(screen: Console, number: int, text: str) -> None:
    screen.print(f"\n[bold]{number}. {text}[/]")
    console.file.flush()
