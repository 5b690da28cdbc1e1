"""`elision generate`: let a model continue prompts, or write from sources."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from elision.atomic import replacing
from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.progress import console, task

if TYPE_CHECKING:
    from elision.generation.texts import Generated
    from elision.loaded import Loaded

# Prompts that are read before the first is written: those of similar length are written together.
PROMPTS_AT_A_TIME = 512


@dataclasses.dataclass(frozen=True)
class Generate:
    """Continue a prompt with a causal language model, or write from a source with an encoder-decoder; shown as it is written.

    By default the likeliest token is taken each time; with a temperature tokens are drawn, with --num-beams the likeliest
    text is searched for. It ends at the end of the text or after --num-tokens. A context longer than a causal model's
    position table slides: when the table is full, its later half stays.

    With --input, a file of prompts, one a line (or JSON lines with a field "text"), several are written together.

    For example:

    elision generate runs/gpt2-tiny "Once upon a time"

    elision generate gpt2-hf "Dear Sir," --temperature 0.8 --top-p 0.95 --seed 7 --num-tokens 200

    elision generate runs/bart-cnn --input articles.txt --output summaries.txt --num-beams 4 --length-penalty 2

    elision generate runs/chat "Hi, how are you?" --temperature 0.88 --num-samples 20 --num-texts 1

    echo "A prompt from standard input" | elision generate runs/gpt2-tiny -
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """a run, a checkpoint or a Hugging Face folder"""
    prompt: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PROMPT")] = ""
    """the text to continue, or to write from; - reads it from standard input; empty = begin a new text"""
    decoding: Annotated[Decoding, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Decoding)
    input: Path | None = None
    """a file of prompts, one a line, or JSON lines with a field "text" (.jsonl)"""
    output: Path | None = None
    """where to write texts, one a line; as .jsonl one line for each prompt, with all its texts, their log-likelihoods and why
    they end; default: the terminal"""
    rows: int = 16
    """with --input: samples or hypotheses that are written together; more are faster, and take more memory"""
    framed: bool = True
    """put the symbols around a source that an encoder was trained with; off where the source brings its own"""
    cache: bool = True
    """keep keys and values of what was read; the text is the same without, only slower"""
    language: str | None = None
    """of the text, where the model has embeddings of languages; default: its first"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


def main(arguments: list[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Generate, prog="elision generate", args=arguments)
    from elision.loaded import load
    from elision.train.precision import choose_device

    if settings.input is not None and settings.prompt:
        raise InputError("give either a prompt or --input FILE, not both")
    if settings.output is not None and settings.output.is_dir():
        raise InputError(f"--output {settings.output} is a folder: name a file")
    if settings.rows < 1:
        raise InputError(f"--rows is {settings.rows}: it must be at least 1")
    if settings.input is not None and not settings.input.is_file():
        raise InputError(f"--input {settings.input} is no file")
    model = load(settings.model, device=choose_device(settings.device), language=settings.language)
    for note in model.notes:
        console.print(f"[yellow]note:[/] {note}")
    if settings.input is not None:
        _write_file(settings, model)
        return
    prompt = sys.stdin.read().removesuffix("\n") if settings.prompt == "-" else settings.prompt
    if settings.decoding.num_given > 1 or settings.output is not None:
        _write_samples(settings, model, prompt)
        return
    from rich.console import Console

    pieces = model.generate(prompt, settings.decoding, framed=settings.framed, cache=settings.cache)
    if model.recipe.backbone.visibility == "causal":
        Console(highlight=False, markup=False).print(prompt, style="dim", end="", soft_wrap=True)
    for piece in pieces:
        # Not through rich, which would wrap or hold back what has no line end yet.
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _write_samples(settings: Generate, model: "Loaded", prompt: str) -> None:
    (texts,) = model.generate_batch(
        [prompt], settings.decoding, framed=settings.framed, num_rows=settings.rows, cache=settings.cache
    )
    if settings.output is not None:
        with replacing(settings.output) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.write(_lines(settings.output, prompt, texts))
        return
    for number, text in enumerate(texts, 1):
        console.print(
            f"[dim]{number}: log-likelihood {text.log_likelihood:.2f}, {len(text.ids)} tokens, {text.reason}[/]"
        )
        sys.stdout.write(text.text + "\n")


def _write_file(settings: Generate, model: "Loaded") -> None:
    prompts = list(_prompts(settings.input))
    if not prompts:
        raise InputError(f"{settings.input} holds no prompts")
    output = settings.output
    with task("generating", total=len(prompts), unit="prompts") as bar:

        def written() -> Iterator[str]:
            for begin in range(0, len(prompts), PROMPTS_AT_A_TIME):
                some = prompts[begin : begin + PROMPTS_AT_A_TIME]
                found = model.generate_batch(
                    some, settings.decoding, framed=settings.framed, num_rows=settings.rows, cache=settings.cache,
                    hear=bar.advance,
                )  # fmt: skip
                for prompt, texts in zip(some, found, strict=True):
                    yield _lines(output, prompt, texts)

        if output is None:
            sys.stdout.writelines(written())
            return
        with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(written())
    console.print(f"[dim]wrote {output}[/]")


def _prompts(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix != ".jsonl":
        yield from lines
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error.msg})") from None
        text = value if isinstance(value, str) else value.get("text") if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise InputError(f'{path}, line {number}: expected a text or an object with a field "text"')
        yield text


def _lines(output: Path | None, prompt: str, texts: "list[Generated]") -> str:
    if output is not None and output.suffix == ".jsonl":
        values = [
            {"text": each.text, "log_likelihood": round(each.log_likelihood, 4), "reason": each.reason}
            for each in texts
        ]
        return json.dumps({"prompt": prompt, "texts": values}, ensure_ascii=False) + "\n"
    # One line each: a line break within a text would be taken for its end.
    return "".join(each.text.replace("\n", " ").strip() + "\n" for each in texts)
