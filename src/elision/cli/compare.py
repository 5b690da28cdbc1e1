"""`elision compare`: models side by side."""

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
from elision.tasks.compare import Compared, compare_models, joined, num_steps, seeds_of
from elision.train.precision import choose_device


@dataclasses.dataclass(frozen=True)
class Compare:
    """Put models side by side: how large, how fast, how good; each against the first.

    Meant for a student and its teacher, good for any models. With --data they restore the same tokens of the same
    held-out examples (those that the first model's recipe leaves out). Fine-tuned models bring their score along: the
    mean, where there are several seeds.

    For example:

    elision compare bert-base-hf runs/distilbert --data store

    elision compare runs/teacher-labels runs/student-labels
    """

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="MODEL MODEL ...")]
    """runs, checkpoints, fine-tuned or Hugging Face folders; the first is what the others are measured against"""
    data: Annotated[Path | None, tyro.conf.arg(metavar="STORE")] = None
    """a token store made with the models' tokenizer"""
    split: str = "validation"
    """which split of it"""
    examples: int = 256
    """how many examples of it"""
    rows: int = 8
    """texts read at a time when speed is measured"""
    length: int = 128
    """tokens in each of them"""
    seconds: float = 3.0
    """how long the speed of each model is measured"""
    json: bool = False
    """print JSON instead of a table"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        for name in ("examples", "rows", "length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.seconds <= 0:
            raise InputError(f"seconds is {self.seconds}: it must be above 0")


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Compare, prog="elision compare", args=arguments)
    if len(settings.models) < 2:
        raise InputError("there is nothing to compare with: name at least two models")
    device = choose_device(settings.device)
    groups = [seeds_of(path) for path in settings.models]
    models = [elision.load(path, device=device) for paths in groups for path in paths]
    store = None if settings.data is None else Store.open(settings.data)
    with task("comparing", total=num_steps(models, store, settings.examples), unit="steps") as bar:
        lines = compare_models(
            models,
            store,
            settings.split,
            num_examples=settings.examples,
            rows=settings.rows,
            length=settings.length,
            seconds=settings.seconds,
            advance=bar.advance,
        )
    by_model = []
    for path, paths in zip(settings.models, groups, strict=True):
        by_model.append(joined([lines.pop(0) for _ in paths], str(path)))
    if settings.json:
        sys.stdout.write(json.dumps([dataclasses.asdict(line) for line in by_model], indent=2) + "\n")
    else:
        _show(by_model, settings)
    return 0


def _show(lines: list[Compared], settings: Compare) -> None:
    from rich.console import Console
    from rich.table import Table

    first = lines[0]
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("model", overflow="fold")
    columns = [
        ("parameters", [quantity(line.num_parameters) for line in lines]),
        ("", [_ratio(line.num_parameters, first.num_parameters) for line in lines]),
        ("tokens/s", [quantity(line.tokens_per_second) for line in lines]),
        ("", [_ratio(line.tokens_per_second, first.tokens_per_second) for line in lines]),
    ]
    if any(line.bits_per_byte is not None for line in lines):
        columns += [
            ("bits/byte", [_number(line.bits_per_byte, ".4f") for line in lines]),
            ("accuracy", [_number(line.accuracy, ".2%") for line in lines]),
            ("", [_ratio(line.accuracy, first.accuracy) for line in lines]),
        ]
    if any(line.score is not None for line in lines):
        metrics = sorted({line.metric for line in lines if line.metric is not None})
        columns += [
            (" / ".join(metrics), [_number(line.score, ".4f") for line in lines]),
            ("", [_ratio(line.score, first.score) for line in lines]),
        ]
    for name, _ in columns:
        table.add_column(name, justify="right", style=None if name else "dim")
    for index, line in enumerate(lines):
        table.add_row(line.name, *(cells[index] for _, cells in columns))
    # Results go to standard output, so that they can be kept.
    out = Console(highlight=False)
    out.print(table)
    shape = f"{settings.rows} texts of {settings.length} tokens at a time"
    out.print(f"[dim]Dim: share of the first. Speed: without a head, {shape}, best of three rounds.[/]")
    if settings.data is not None:
        what = f"{settings.examples:,} examples of {settings.data} ({settings.split})"
        out.print(f"[dim]Bits per byte and accuracy: on the same left-out tokens of {what}.[/]", soft_wrap=True)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _ratio(value: float | None, first: float | None) -> str:
    return "" if value is None or not first else f"{value / first:.2f}×"
