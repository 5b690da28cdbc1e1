"""`elision fill`: let a masked language model fill the blanks of a sentence."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from elision.errors import InputError
from elision.progress import console

if TYPE_CHECKING:
    from elision.tasks.fill import Filled


@dataclasses.dataclass(frozen=True)
class Fill:
    """Fill the blanks of a text with a masked language model, the likeliest tokens first, or with one that writes what was
    left out (T5, BART), the likeliest texts first.

    A blank is written [MASK], <mask>, {mask} or ___; several are filled independently of each other, but by a model that
    writes together. Without TEXT (or with "-") every line of standard input is filled.

    For example:

    elision fill runs/bert-mini "The capital of France is [MASK]."

    elision fill bert-mini-hf "She ___ the door and ___ outside." --top-k 3

    cat sentences.txt | elision fill runs/bert-mini
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """a run, a checkpoint or a Hugging Face folder"""
    text: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TEXT")] = "-"
    """the text with its blanks"""
    top_k: int = 5
    """how many candidates to show for each blank"""
    language: str | None = None
    """of the text, where the model has embeddings of languages; default: its first"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Fill, prog="elision fill", args=arguments)
    from elision.loaded import load
    from elision.train.precision import choose_device

    model = load(settings.model, device=choose_device(settings.device), language=settings.language)
    for note in model.notes:
        console.print(f"[yellow]note:[/] {note}")
    if settings.text != "-":
        show(model.fill(settings.text, settings.top_k))
        return 0
    status = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            show(model.fill(line.strip(), settings.top_k))
        except InputError as error:
            # One bad line must not cost the others.
            print(f"elision fill: line {number}: {error}", file=sys.stderr)
            status = 2
    return status


def show(filled: "Filled") -> None:
    """Print the filled text, and a table of candidates for each blank."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console(highlight=False)
    out.print(Text(filled.text, style="bold"), soft_wrap=True)
    several = len(filled.blanks) > 1
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    for number, candidates in enumerate(filled.blanks, 1):
        largest = candidates[0].probability
        for rank, candidate in enumerate(candidates):
            bar = "━" * max(1, round(20 * candidate.probability / max(largest, 1e-9)))
            lead = [Text(f"blank {number}" if rank == 0 else "", style="dim")] if several else []
            share = f"{100 * candidate.probability:.1f} %"
            token = Text(candidate.token, style="bold cyan" if rank == 0 else "")
            table.add_row(*lead, token, Text(share, justify="right"), Text(bar, style="cyan" if rank == 0 else "dim"))
    out.print(table)
