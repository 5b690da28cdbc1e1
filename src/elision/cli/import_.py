"""`elision import`: read a Hugging Face folder into a checkpoint."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from elision.progress import console


@dataclasses.dataclass(frozen=True)
class Import:
    """Read a Hugging Face folder (BERT or GPT-2) into a checkpoint that pretraining can go on from.

    Weights may be safetensors or .bin (read without running code), whole or in shards. Heads that the file lacks start
    anew, and the command says so.

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
    objectives = " + ".join(type(objective).__name__ for objective in imported.recipe.objectives)
    console.print(f"{settings.folder} -> [bold]{settings.out}[/] ({quantity(numbers)} parameters, {objectives})")
    for note in imported.notes:
        console.print(f"[yellow]note:[/] {note}")
