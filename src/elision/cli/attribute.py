"""`elision attribute`: which kind of text a text most likely is."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from elision.errors import InputError
from elision.progress import console

if TYPE_CHECKING:
    from elision.tasks.attribute import Attribution


@dataclasses.dataclass(frozen=True)
class Attribute:
    """Rank control codes by how well a model that was trained with them (CTRL) predicts a text behind each.

    The codes are those that the corpus of the model had, or those given. Without a prior all count alike; with one, a
    JSON file such as {"Books": 30, "News": 70}, frequent ones count more.

    For example:

    elision attribute runs/ctrl "The minister said on Tuesday that"

    elision attribute runs/ctrl - --prior shares.json < letter.txt
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """a run, a checkpoint or a Hugging Face folder"""
    text: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TEXT")] = "-"
    """the text; - reads it from standard input"""
    codes: tuple[str, ...] = ()
    """the codes to rank; default: all that the tokenizer has symbols for"""
    prior: Path | None = None
    """a JSON file that says how frequent each code is"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


def main(arguments: list[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Attribute, prog="elision attribute", args=arguments)
    from elision.loaded import load
    from elision.tasks.attribute import attribute
    from elision.train.precision import choose_device

    prior = None if settings.prior is None else read_prior(settings.prior)
    model = load(settings.model, device=choose_device(settings.device))
    for note in model.notes:
        console.print(f"[yellow]note:[/] {note}")
    text = sys.stdin.read().strip() if settings.text == "-" else settings.text
    show(attribute(model, text, settings.codes, prior))


def read_prior(path: Path) -> dict[str, float]:
    """Read how frequent each code is. Raises: InputError when the file is no JSON object of numbers."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--prior {path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--prior {path} is not JSON: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(value, int | float) for value in values.values()):
        raise InputError(f'--prior {path} must hold a JSON object of numbers, such as {{"Books": 30, "News": 70}}')
    return values


def show(found: "list[Attribution]") -> None:
    """Print the codes, the likeliest first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("code", "probability", "perplexity"):
        table.add_column(title, justify="left" if title == "code" else "right")
    for rank, one in enumerate(found):
        style = "bold" if rank == 0 else ""
        table.add_row(one.code, f"{100 * one.probability:.1f} %", f"{one.perplexity:.1f}", style=style)
    Console(highlight=False, markup=False).print(table)
