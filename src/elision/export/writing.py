"""A model written as a Hugging Face folder, which transformers loads with no code of ours."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from safetensors.torch import save_file

import elision
from elision.atomic import replacing, write_json, write_text
from elision.errors import InputError
from elision.export import bilm, card, classifier, families, generators
from elision.loaded import Loaded
from elision.model.backbones import Backbone
from elision.model.elmo import Elmo
from elision.tasks.task import WritingTask

# Its presence says that a folder was written here and may be written again. Nothing else copies it along.
MARK = "elision.json"

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def check_free(out: Path, overwrite: bool, mark: str | None = None) -> None:
    """Raise InputError when `out` holds something that writing there would destroy.

    A folder with a file named `mark` may be replaced, any other only with `overwrite`.
    """
    if out.is_file():
        raise InputError(f"{out} is a file: name a folder to write to")
    if not out.is_dir() or not any(out.iterdir()) or overwrite:
        return
    if mark is not None and (out / mark).is_file():
        return
    earlier = "" if mark is None else " and is no earlier export"
    raise InputError(f"{out} is not empty{earlier}: name another folder, or replace all of it with --overwrite")


def write_folder(
    loaded: Loaded,
    out: Path,
    dtype: Literal["stored", "float32", "float16", "bfloat16", "float64"] = "stored",
    *,
    overwrite: bool = False,
) -> str:
    """Write config.json, model.safetensors, the tokenizer, a model card and, for what writes, generation_config.json.

    A model with a generator is two there and becomes two such folders in `out`, discriminator/ and generator/. ELMo,
    which Hugging Face has no class for, is written as files of its own instead (see `bilm`).

    dtype: of the weights on disk; "stored" as the model holds them. Returns the name of the Hugging Face class (or of two,
    with "and" between them). The folder appears whole or not at all.

    Raises: InputError when the model has a part that Hugging Face's class cannot express, or `out` holds other things.
    """
    out = Path(out)
    if isinstance(loaded.recipe.backbone, Elmo):
        return _write_bilm(loaded, out, overwrite)
    heads = tuple(objective.name for objective in loaded.model.objectives if not objective.pretraining_only)
    family = families.of_recipe(loaded.recipe, heads)
    parts = generators.parts_of(loaded.recipe, loaded.model, family.ARCHITECTURES)
    for part in parts:
        family.check(part.recipe.backbone)
        if part.heads not in family.ARCHITECTURES:
            known = " or ".join(" + ".join(names) for names in family.ARCHITECTURES if names)
            raise InputError(
                f"the objectives are {' + '.join(heads)}; Hugging Face has classes for {known} on this backbone"
            )
    check_free(out, overwrite, MARK)
    if loaded.path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} is where the model itself lies: name another folder")
    facts = card.gather(loaded.path)
    with replacing(out) as temporary:
        temporary.mkdir()
        classes = {}
        for part in parts:
            (temporary / part.folder).mkdir(exist_ok=True)
            classes[part.folder] = _write_part(loaded, part, family, temporary / part.folder, dtype, facts, out.name)
        if len(parts) > 1:
            write_text(temporary / "README.md", card.write_index(classes, out.name))
        write_json(temporary / MARK, _provenance(loaded, facts))
    return " and ".join(classes.values())


def _write_part(
    loaded: Loaded, part: generators.Part, family: ModuleType, folder: Path, dtype: str, facts: card.Facts, name: str
) -> str:
    """Write one model of an export into a folder; returns the name of its class."""
    # What was taught to write is a language model like any other.
    tokenizer, task = loaded.tokenizer, None if isinstance(loaded.task, WritingTask) else loaded.task
    backbone = classifier.without_pooler(part.recipe.backbone, task)
    state = part.state
    if backbone is not part.recipe.backbone:
        state = {name: value for name, value in state.items() if not name.startswith("backbone.pooler.")}
    tensors = family.key_map(backbone, part.heads).to_theirs(state)
    family.complete(tensors, backbone)
    table = family.token_table(part.heads) if hasattr(family, "token_table") else family.TOKEN_TABLE
    if task is not None:
        tokenizer = classifier.frame(tokenizer, backbone)
        classifier.make_room(tensors, table, tokenizer.vocabulary.size)
    if dtype != "stored":
        tensors = {name: value.to(DTYPES[dtype]) for name, value in tensors.items()}
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    vocabulary = tokenizer.vocabulary
    config = family.write_config(backbone, part.heads, tensors[table].shape[0], vocabulary)
    if languages := loaded.recipe.languages:
        config["lang2id"] = {language: number for number, language in enumerate(languages)}
        config["id2lang"] = {str(number): language for number, language in enumerate(languages)}
        config["lang_id"] = loaded.model.backbone.embeddings.language
    if task is not None:
        config |= classifier.write_config(task)
    config["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    write_json(folder / "config.json", config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors lets nobody else read what it writes; the folder is for others too, as the umask allows.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    tokenizer.save(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    max_length = backbone.max_length if task is None else task.max_length
    if max_length is not None:
        settings["model_max_length"] = max_length
    settings["padding_side"] = getattr(family, "PADDING_SIDE", "right")
    if backbone.num_types:
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    write_json(folder / "tokenizer_config.json", settings)
    if "clm" in part.heads or "seq2seq" in part.heads:
        write_json(folder / "generation_config.json", _generation(family, config, backbone))
    num_parameters = sum(value.numel() for value in tensors.values())
    path = f"{name}/{part.folder}".rstrip("/")
    write_text(folder / "README.md", card.write(loaded, config, facts, path, num_parameters))
    return config["architectures"][0]


def _generation(family: ModuleType, config: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    """Return how texts that the model writes begin and end, by the ids of symbols."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")
    given = {name: config[name] for name in names if config.get(name) is not None}
    more = getattr(family, "write_generation", None)
    return given if more is None else given | more(config, backbone)


def _write_bilm(loaded: Loaded, out: Path, overwrite: bool) -> str:
    check_free(out, overwrite, MARK)
    if loaded.path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} is where the model itself lies: name another folder")
    with replacing(out) as temporary:
        temporary.mkdir()
        bilm.write_files(loaded, temporary)
        write_json(temporary / MARK, _provenance(loaded, card.gather(loaded.path)))
    return "ELMo's options and weights"


def _provenance(loaded: Loaded, facts: card.Facts) -> dict[str, Any]:
    return {
        "elision": elision.__version__,
        "exported_with": shlex.join(["elision", *sys.argv[1:]]) if sys.argv else None,
        "recipe": loaded.recipe.to_dict(),
        **dataclasses.asdict(facts),
    }
