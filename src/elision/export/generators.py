"""A model with a generator as two Hugging Face folders, and two such folders as one model again.

The generator is a masked language model of the same family; each folder has embeddings of its own, whether the two share
them in training or not.
"""

import dataclasses
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.objectives import MaskedLM, Objective, ReplacedTokens
from elision.objectives.generator import Generator, Replacing
from elision.recipe import Recipe

DISCRIMINATOR, GENERATOR, ENCODER = "discriminator", "generator", "encoder"

_TABLE = "backbone.embeddings.tokens.weight"


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One folder of an export: its name ("" = the export itself), and the model in it under our names."""

    folder: str
    recipe: Recipe
    heads: tuple[str, ...]
    state: dict[str, Tensor]


def is_pair(folder: Path) -> bool:
    """Tell whether a folder holds a discriminator and its generator, as folders of their own."""
    return all((folder / name / "config.json").is_file() for name in (DISCRIMINATOR, GENERATOR))


def parts_of(recipe: Recipe, model: LanguageModel, classes: Container[tuple[str, ...]]) -> list[Part]:
    """Return what a model is written as: itself, or the main model and its generator.

    The main model keeps the head that judges tokens, where `classes` (by heads) has one with it. One that was trained to
    predict tokens is written without a head, since what it reads in training is no text with masks.
    """
    replacing = _replacing(model.objectives)
    state = {
        **{f"backbone.{name}": value for name, value in model.backbone.standalone_state().items()},
        **{name: value for name, value in model.state_dict().items() if name.startswith("heads.")},
    }
    judges = isinstance(replacing, ReplacedTokens)
    kept = kept_heads(model.objectives, classes)
    heads = tuple(f"heads.{name}." for name in kept)
    main = {
        name: value
        for name, value in state.items()
        if name.startswith(("backbone.", *heads)) and not name.startswith("heads.rtd.generator.")
    }
    if replacing is None:
        return [Part("", recipe, kept, main)]
    return [
        Part(DISCRIMINATOR if judges else ENCODER, recipe, kept, main),
        Part(GENERATOR, generator_recipe(recipe, replacing), ("mlm",), _generator_state(model, replacing, state)),
    ]


def kept_heads(objectives: Sequence[Objective], classes: Container[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the heads that the main model of an export keeps."""
    replacing = _replacing(objectives)
    keeps = isinstance(replacing, ReplacedTokens) and (replacing.name,) in classes
    return tuple(each.name for each in objectives if not each.pretraining_only and (keeps or each is not replacing))


def class_names(objectives: Sequence[Objective], architectures: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the class that a model is written as, "and" that of its generator; None where there is none."""
    name = architectures.get(kept_heads(objectives, architectures))
    if name is None or _replacing(objectives) is None:
        return name
    return f"{name} and {architectures['mlm',]}"


def _replacing(objectives: Sequence[Objective]) -> Replacing | None:
    return next((objective for objective in objectives if isinstance(objective, Replacing)), None)


def generator_recipe(recipe: Recipe, objective: Replacing) -> Recipe:
    """Return the recipe of the generator as a model of its own."""
    backbone = objective.generator.settings(recipe.backbone)
    return dataclasses.replace(recipe, name=f"{recipe.name}-generator", backbone=backbone, objectives=(MaskedLM(),))


def _generator_state(model: LanguageModel, objective: Replacing, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the generator's tensors under the names of a masked language model."""
    lent = {"all": "backbone.embeddings.", "tokens": _TABLE}.get(objective.generator.sharing)
    prefix = f"heads.{objective.name}.generator."
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {
        **{name: value for name, value in state.items() if lent is not None and name.startswith(lent)},
        **{_as_model(name): value for name, value in own.items()},
    }


def _as_model(name: str) -> str:
    for ours, theirs in (("model.", "backbone."), ("head.", "heads.mlm.")):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


def _as_generator(name: str, objective: str) -> str:
    for ours, theirs in (("backbone.", "model."), ("heads.mlm.", "head.")):
        if name.startswith(ours):
            return f"heads.{objective}.generator.{theirs}{name.removeprefix(ours)}"
    raise AssertionError(name)


def joined(
    main: tuple[Recipe, dict[str, Tensor]], generator: tuple[Recipe, dict[str, Tensor]], source: str
) -> tuple[Recipe, dict[str, Tensor]]:
    """Return recipe and tensors of the model that a discriminator and its generator are, each given as read alone.

    What they share is told from the tensors. Where the tables differ, the main model's is the generator's and a
    difference from it, if its recipe trains it so.

    Raises: InputError when the one is no generator for the other.
    """
    (recipe, ours), (other, theirs) = main, generator
    objective = next((each for each in recipe.objectives if isinstance(each, ReplacedTokens)), None)
    for there, folder, does in (
        (objective is not None, DISCRIMINATOR, "judges"),
        ([each.name for each in other.objectives] == ["mlm"], GENERATOR, "restores"),
    ):
        if not there:
            raise InputError(
                f"{source}/{folder} has no head that {does} tokens, so the two are not one model: load each by itself"
            )
    if ours[_TABLE].shape != theirs[_TABLE].shape:
        raise InputError(
            f"{source}: the token tables have shapes {tuple(ours[_TABLE].shape)} and {tuple(theirs[_TABLE].shape)}; "
            f"a discriminator and its generator have tables of one shape"
        )
    embeddings = [name for name in ours if name.startswith("backbone.embeddings.")]
    equal = {name: name in theirs and torch.equal(ours[name], theirs[name]) for name in embeddings}
    if all(equal.values()):
        sharing = "all"
    elif objective.generator.sharing == "disentangled":
        sharing = "disentangled"
    else:
        sharing = "tokens" if equal[_TABLE] else "none"
    sizes = Generator(
        width=other.backbone.hidden_size / recipe.backbone.hidden_size,
        depth=other.backbone.num_layers / recipe.backbone.num_layers,
        sharing=sharing,
        temperature=objective.generator.temperature,
    )
    built = sizes.settings(recipe.backbone)
    for field in dataclasses.fields(built):
        if field.name not in _IRRELEVANT and getattr(built, field.name) != getattr(other.backbone, field.name):
            raise InputError(
                f"{source}: the generator's {field.name} is {getattr(other.backbone, field.name)!r}; beside this "
                f"discriminator, one of {sizes.width:g} times the width has {getattr(built, field.name)!r}"
            )
    objectives = tuple(
        dataclasses.replace(each, generator=sizes) if each is objective else each for each in recipe.objectives
    )
    shared = {"all": "backbone.embeddings.", "tokens": _TABLE}.get(sharing)
    tensors = {name: value for name, value in ours.items() if not name.startswith(f"heads.{objective.name}.generator.")}
    if sharing == "disentangled":
        tensors[_TABLE] = ours[_TABLE] - theirs[_TABLE]
    tensors |= {
        _as_generator(name, objective.name): value
        for name, value in theirs.items()
        if shared is None or not name.startswith(shared)
    }
    return dataclasses.replace(recipe, objectives=objectives), tensors


# What may differ between the two without either being another model.
_IRRELEVANT = ("dropout", "attention_dropout", "init", "pooler")


def adopt(objectives: tuple, tensors: dict[str, Tensor], missing: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a model without a generator lacks, `missing`, such that the table it has stays its table.

    A table that is the generator's and a difference is then all the generator's: the difference, in `tensors`, becomes 0.
    """
    made = dict(missing)
    for objective in objectives:
        table = f"heads.{objective.name}.generator.model.embeddings.tokens.weight"
        if isinstance(objective, Replacing) and objective.generator.sharing == "disentangled" and table in made:
            made[table] = tensors[_TABLE]
            tensors[_TABLE] = torch.zeros_like(tensors[_TABLE])
    return made
