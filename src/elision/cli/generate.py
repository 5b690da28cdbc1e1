"""`elision generate`: let a causal language model continue a prompt."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from elision.generate import Sampling
from elision.progress import console


@dataclasses.dataclass(frozen=True)
class Generate:
    """Continue a prompt with a causal language model, shown as it is written.

    By default the likeliest token is taken each time; with a temperature tokens are drawn. It ends at the end of the
    text or after --num-tokens. A context longer than the model's position table slides: when the table is full, its
    later half stays.

    For example:

    elision generate runs/gpt2-tiny "Once upon a time"

    elision generate gpt2-hf "Dear Sir," --temperature 0.8 --top-p 0.95 --seed 7 --num-tokens 200

    echo "A prompt from standard input" | elision generate runs/gpt2-tiny -
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """a run, a checkpoint or a Hugging Face folder"""
    prompt: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PROMPT")] = ""
    """the text to continue; - reads it from standard input; empty = begin a new text"""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Sampling)
    cache: bool = True
    """keep keys and values of what was read; the text is the same without, only slower"""
    language: str | None = None
    """of the text, where the model has embeddings of languages; default: its first"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


def main(arguments: list[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Generate, prog="elision generate", args=arguments)
    from rich.console import Console

    from elision.loaded import load
    from elision.train.precision import choose_device

    prompt = sys.stdin.read().removesuffix("\n") if settings.prompt == "-" else settings.prompt
    model = load(settings.model, device=choose_device(settings.device), language=settings.language)
    for note in model.notes:
        console.print(f"[yellow]note:[/] {note}")
    pieces = model.generate(prompt, **dataclasses.asdict(settings.sampling), cache=settings.cache)
    out = Console(highlight=False, markup=False)
    out.print(prompt, style="dim", end="", soft_wrap=True)
    for piece in pieces:
        # Not through rich, which would wrap or hold back what has no line end yet.
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
