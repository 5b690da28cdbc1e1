"""A Hugging Face folder read into our parts: a recipe to go on with, and tensors under our names."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from elision.atomic import replacing
from elision.errors import InputError
from elision.export import classifier, families, generators
from elision.export.config import Config
from elision.export.weights import read_weights
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.tasks.task import AnyTask, save_task
from elision.text.tokenizer import ByteLevelBPE, SentencePieceBPE, Tokenizer, TokenizerSpec, Unigram, WordPiece, layouts
from elision.train.checkpoint import WEIGHTS


@dataclasses.dataclass
class Imported:
    """What a Hugging Face folder holds, in our terms.

    `tensors` are the state of a LanguageModel, in the data type of the file. `tokenizer` is None when the folder has
    none, and then `tokenizer_error` says why. `notes` tell what was left out or made anew. `task` is what a file with a
    fine-tuned head was fine-tuned for.
    """

    recipe: Recipe
    tensors: dict[str, Tensor]
    vocab_size: int
    tokenizer: Tokenizer | None
    tokenizer_error: InputError | None
    notes: list[str]
    task: AnyTask | None = None


def read_folder(folder: Path, tokenizer: Path | None = None) -> Imported:
    """Read config.json, the weights and the tokenizer (of the folder, or the one given).

    Raises: InputError naming the field or tensor that cannot be expressed here.
    """
    folder = Path(folder)
    from elision.export import bilm

    if bilm.is_folder(folder):
        return bilm.read_folder(folder, tokenizer)
    if generators.is_pair(folder):
        return _read_pair(folder, tokenizer)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is not a Hugging Face folder: it has no config.json")
    config = Config(folder / "config.json")
    family = families.of_config(config)
    tensors = family.normalise(read_weights(folder), str(folder))
    names = frozenset(tensors)
    heads = family.heads_in(names)
    backbone = family.read_backbone(config, names)
    recipe = family.read_recipe(folder.resolve().name, backbone, heads)
    recipe = dataclasses.replace(recipe, languages=_languages(config, backbone.num_languages))
    found, error = _tokenizer(folder if tokenizer is None else tokenizer)
    length = (
        min(recipe.segmenter.max_length, backbone.max_length) if backbone.max_length else recipe.segmenter.max_length
    )
    task = classifier.read_task(config, family.ARCHITECTURES, heads, backbone, length, found)
    objectives = recipe.objectives if task is None else (task.objective,)
    wanted = [objective.name for objective in objectives]
    kept = tuple(head for head in heads if head in wanted)
    table = family.key_map(backbone, kept)
    others = sorted(name for name in names - table.theirs if not family.backbone_names(name))
    if others:
        config.note(f"left out, since pretraining has no place for them: {', '.join(others)}")
    with torch.device("meta"):
        model = LanguageModel(backbone, objectives, config.count("vocab_size", also="n_words"))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    ours = table.to_ours({name: tensors[name] for name in names - set(others)}, shapes, str(folder))
    made = _new_heads(model, frozenset(ours), next(iter(ours.values())).dtype, config)
    ours |= generators.adopt(objectives, ours, made)
    vocab_size = model.backbone.vocab_size
    if found is not None:
        recipe = dataclasses.replace(recipe, tokenizer=_spec(found))
        if found.vocabulary.size > vocab_size:
            config.note(
                f"the tokenizer has {found.vocabulary.size} symbols, but the model only {vocab_size}: texts that use "
                f"the others will be refused"
            )
    return Imported(recipe, ours, vocab_size, found, error, config.notes, task)


def write_checkpoint(imported: Imported, out: Path) -> None:
    """Write a checkpoint folder that `elision.load`, `fill`, `generate` and `pretrain --init-from` take, atomically."""
    from safetensors.torch import save_file

    assert imported.tokenizer is not None
    with replacing(out) as temporary:
        temporary.mkdir()
        imported.recipe.save(temporary / "recipe.json")
        imported.tokenizer.save(temporary / "tokenizer")
        if imported.task is not None:
            save_task(imported.task, temporary)
        save_file(imported.tensors, temporary / WEIGHTS, metadata={"format": "pt"})


def _read_pair(folder: Path, tokenizer: Path | None) -> Imported:
    """Read a discriminator and its generator, two folders in one, as the one model that they are in training."""
    main = read_folder(folder / generators.DISCRIMINATOR, tokenizer)
    other = read_folder(folder / generators.GENERATOR, tokenizer)
    recipe, tensors = generators.joined((main.recipe, main.tensors), (other.recipe, other.tensors), str(folder))
    notes = [note for note in main.notes if note != _lacks([generators.GENERATOR], "rtd")] + other.notes
    recipe = dataclasses.replace(recipe, name=folder.resolve().name)
    return Imported(recipe, tensors, main.vocab_size, main.tokenizer, main.tokenizer_error, notes)


def _new_heads(model: LanguageModel, there: frozenset[str], dtype: torch.dtype, config: Config) -> dict[str, Tensor]:
    """Return initial weights for what the file lacks of the objectives' heads: always the same ones."""
    made: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for objective in model.objectives:
            state = objective.head(model.backbone).state_dict()
            lacking = {name: value for name, value in state.items() if f"heads.{objective.name}.{name}" not in there}
            made |= {f"heads.{objective.name}.{name}": value.to(dtype) for name, value in lacking.items()}
            if lacking:
                # A part of a head is a model in it: the generator.
                parts = sorted({name.split(".")[0] for name in lacking}) if len(lacking) < len(state) else ["head"]
                config.note(_lacks(parts, objective.name))
    return made


def _lacks(parts: Sequence[str], objective: str) -> str:
    return f"the file has no {' and '.join(parts)} for {objective}: a new one, not yet trained, stands in"


def _languages(config: Config, num_languages: int) -> tuple[str, ...]:
    """Return the languages by number, as far as the file names them without a gap."""
    numbers = config.values.get("lang2id") or {}
    names = sorted(numbers, key=numbers.get)
    if num_languages < 2 or sorted(numbers.values()) != list(range(len(names))):
        return ()
    return tuple(names[:num_languages])


def _tokenizer(path: Path) -> tuple[Tokenizer | None, InputError | None]:
    try:
        return Tokenizer.load(path), None
    except InputError as error:
        return None, error


def _spec(tokenizer: Tokenizer) -> TokenizerSpec:
    """Describe a tokenizer as one that could be trained anew, for `elision prepare --recipe`."""
    size, kind = tokenizer.vocabulary.size, type(tokenizer.raw.model).__name__
    normalizer = tokenizer.raw.normalizer
    lowercase = normalizer is not None and normalizer.normalize_str("A") == "a"
    if kind == "WordPiece":
        return WordPiece(vocab_size=size, lowercase=lowercase)
    if kind == "Unigram":
        alike = [spec.layout for spec in layouts(Unigram()) if spec.roles == tokenizer.roles] or ["t5"]
        # T5 and Marian have the same symbols, in another order.
        layout = "marian" if "marian" in alike and tokenizer.vocabulary.pad == size - 1 else alike[0]
        num_sentinels = len(tokenizer.vocabulary.sentinels)
        return Unigram(vocab_size=size, layout=layout, lowercase=lowercase, num_sentinels=num_sentinels)
    if kind == "BPE" and tokenizer.raw.model.byte_fallback:
        return SentencePieceBPE(vocab_size=size)
    if "mask" not in tokenizer.roles:
        return ByteLevelBPE(vocab_size=size, layout="blenderbot" if tokenizer.roles.get("eos") == "</s>" else "gpt2")
    return ByteLevelBPE(vocab_size=size, layout="xlm" if tokenizer.roles.get("cls") == "</s>" else "roberta")
