"""`elision import`: read a Hugging Face folder into a checkpoint."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from elision.progress import console


@dataclasses.dataclass(frozen=True)
class Import:
    """Read a Hugging Face folder into a checkpoint that pretraining can go on from, or that predicts.

    Weights may be safetensors or .bin (read without running code), whole or in shards. Heads that the file lacks start
    anew, and the command says so. A model that classifies, tags or answers keeps its head and labels for `elision
    predict`; pretraining goes on from its backbone.

    For example:

    elision import bert-base-uncased/ imported-bert

    elision prepare my-texts/ --tokenizer imported-bert --out store

    elision pretrain --config imported-bert/recipe.json --data store --init-from imported-bert
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="HF_FOLDER")]
    """folder with config.json, the weights and the tokenizer"""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """the checkpoint folder to write"""
    tokenizer: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """where the tokenizer is, when HF_FOLDER has none"""
    overwrite: bool = False
    """replace OUT with all that is in it"""


def main(arguments: list[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Import, prog="elision import", args=arguments)
    from elision.errors import InputError
    from elision.export.reading import read_folder, write_checkpoint
    from elision.export.writing import check_free
    from elision.progress import quantity

    check_free(settings.out, settings.overwrite)
    if settings.folder.resolve().is_relative_to(settings.out.resolve()):
        raise InputError(f"{settings.out} is where the model itself lies: name another folder")
    imported = read_folder(settings.folder, settings.tokenizer)
    if imported.tokenizer_error is not None:
        raise InputError(f"{imported.tokenizer_error} Name one with --tokenizer PATH.")
    write_checkpoint(imported, settings.out)
    numbers = sum(tensor.numel() for tensor in imported.tensors.values())
    kept = imported.recipe.objectives if imported.task is None else (imported.task.objective,)
    objectives = " + ".join(type(objective).__name__ for objective in kept)
    console.print(f"{settings.folder} -> [bold]{settings.out}[/] ({quantity(numbers)} parameters, {objectives})")
    for note in imported.notes:
        console.print(f"[yellow]note:[/] {note}")
    if imported.task is not None:
        labels = f" ({', '.join(imported.task.labels[:6])}{', ...' if len(imported.task.labels) > 6 else ''})"
        console.print(f"fine-tuned for {imported.task.type}{labels if imported.task.labels else ''}; next:")
        console.print(f"  elision predict --model {settings.out} --data TABLE", markup=False, soft_wrap=True)
