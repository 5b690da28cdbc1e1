"""`elision export`: write a Hugging Face folder."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from elision.progress import console


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a model as a Hugging Face folder that transformers loads with no remote code.

    The class follows from the recipe: BertForPreTraining, BertForMaskedLM, GPT2LMHeadModel, or a classifier for a
    fine-tuned model. The folder gets config.json, model.safetensors, the tokenizer and a model card.

    For example:

    elision export runs/bert-mini bert-mini-hf

    elision export runs/gpt2-tiny/checkpoints/step-00001000 gpt2-tiny-hf --dtype float16
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """a run (its best checkpoint, else its last), a checkpoint, or a fine-tuned folder"""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """the folder to write"""
    dtype: Literal["stored", "float32", "float16", "bfloat16", "float64"] = "stored"
    """of the weights on disk; stored = as in the checkpoint"""
    checkpoint: str = "best"
    """which checkpoint of a run: best, last, or a name such as step-00001000"""
    overwrite: bool = False
    """replace OUT with all that is in it, even when it is no earlier export"""


def main(arguments: list[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Export, prog="elision export", args=arguments)
    from elision.export.writing import write_folder
    from elision.loaded import load

    loaded = load(settings.model, which=settings.checkpoint, dtype="stored")
    architecture = write_folder(loaded, settings.out, settings.dtype, overwrite=settings.overwrite)
    console.print(f"{loaded.path} -> [bold]{settings.out}[/] ({architecture})")
    for objective in loaded.model.objectives:
        if objective.pretraining_only:
            console.print(f"left out: the head of {objective.name}, which serves pretraining alone")
    names = sorted(path.name for path in settings.out.iterdir())
    console.print(f"[dim]{', '.join(names)}[/]")
