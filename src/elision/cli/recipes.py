"""`elision recipes`: what recipes there are, and what one is made of."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from elision import recipes
from elision.errors import InputError
from elision.model.backbones import Backbone
from elision.model.elmo import Elmo
from elision.model.encoder_decoder import EncoderDecoder
from elision.plain import to_plain
from elision.progress import quantity
from elision.recipe import Recipe
from elision.show.parts import field_docs, paragraphs, parts_of

# What most backbones have; one that lacks a number shows none.
SHAPE = ("num_layers", "hidden_size", "num_heads")


@dataclasses.dataclass(frozen=True)
class Recipes:
    """List the recipes and their sizes, or, with a name, all that one recipe says.

    For example:

    elision recipes

    elision recipes bert-base

    elision recipes --json
    """

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]")] = None
    """show this recipe: its paper, every setting and what it means, and the commands that run it"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """write JSON for other programs instead"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Recipes, prog="elision recipes", args=arguments)
    console = Console(highlight=False, soft_wrap=False)
    if settings.name is None:
        known = [recipes.get(name) for name in recipes.names()]
        if settings.json:
            print(json.dumps([facts(recipe) for recipe in known], indent=2))
        else:
            print_table(known, console)
        return 0
    recipe = recipes.get(settings.name)
    if settings.json:
        print(json.dumps({**facts(recipe), "settings": recipe.to_dict()}, indent=2))
    else:
        print_recipe(recipe, console)
    return 0


def facts(recipe: Recipe) -> dict[str, Any]:
    """Return what the table says of a recipe, as plain values; FLOPs are of forward and backward, per token."""
    from elision.show.cost import cost_of

    cost = cost_of(recipe)
    backbone = recipe.backbone
    return {
        "name": recipe.name,
        "paper": (paragraphs(recipe.name) or [""])[0],
        **_shape(backbone),
        "num_parameters": cost.num_parameters,
        "flops_per_token": cost.flops_per_token,
        "context": recipe.segmenter.max_length,
        "objectives": [type(objective).__name__ for objective in recipe.objectives],
        "noise": type(recipe.noise).__name__,
        "segmenter": type(recipe.segmenter).__name__,
        "tokenizer": type(recipe.tokenizer).__name__,
        "vocab_size": recipe.tokenizer.vocab_size,
        "visibility": backbone.visibility,
        "exports_as": export_class(recipe),
    }


def _shape(backbone: Backbone) -> dict[str, int | str | None]:
    """Return layers, width and heads; layers of an encoder and its decoder as "6 + 6"."""
    if not isinstance(backbone, EncoderDecoder):
        return {name: getattr(backbone, name, None) for name in SHAPE}
    return {
        "num_layers": f"{backbone.encoder.num_layers} + {backbone.decoder.num_layers}",
        "hidden_size": backbone.hidden_size,
        "num_heads": backbone.decoder.num_heads,
    }


def export_class(recipe: Recipe) -> str | None:
    """Return the Hugging Face class that the recipe exports as, or other files; None where it cannot be exported."""
    from elision.export import families, generators

    if isinstance(recipe.backbone, Elmo):
        return "bilm files"
    heads = tuple(objective.name for objective in recipe.objectives if not objective.pretraining_only)
    try:
        family = families.of_recipe(recipe, heads)
    except InputError:
        return None
    return generators.class_names(recipe.objectives, family.ARCHITECTURES)


def print_table(known: list[Recipe], console: Console) -> None:
    """Print all recipes, those of one paper together under what they share."""
    papers: dict[str, list[Recipe]] = {}
    for recipe in known:
        papers.setdefault(paragraphs(recipe.name)[0], []).append(recipe)
    for paper, group in papers.items():
        rows = [facts(recipe) for recipe in group]
        shared = rows[0]
        console.print()
        console.print(Padding(Text(paper, "bold"), (0, 1)))
        made_of = [
            f"{shared['tokenizer']} ({shared['vocab_size']:,})",
            shared["segmenter"],
            shared["noise"],
            f"{type(group[0].backbone).__name__} ({shared['visibility']})",
            " + ".join(shared["objectives"]),
            *([f"exports as {shared['exports_as']}"] if shared["exports_as"] else []),
        ]
        console.print(Padding(Text(" · ".join(made_of), "dim"), (0, 1)))
        table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
        table.add_column("name", style="cyan", no_wrap=True)
        for column in ("shape", "params", "FLOPs/tok", "context"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("besides", style="dim")
        for recipe, fact in zip(group, rows, strict=True):
            table.add_row(
                recipe.name,
                " × ".join(str(fact[name]) for name in SHAPE if fact[name] is not None),
                quantity(fact["num_parameters"]),
                quantity(fact["flops_per_token"]),
                str(fact["context"]),
                ", ".join(differences(group[0], recipe)),
            )
        console.print(table)
    console.print()
    key = (
        "shape: layers (encoder + decoder) × width × heads; FLOPs: forward and backward pass, per token of a full row."
    )
    console.print(Padding(Text(f"{key} `elision recipes NAME` explains one.", "dim"), (0, 1)))


def differences(first: Recipe, other: Recipe) -> Iterator[str]:
    """Yield the settings of tokenizer, segmenter, noise and objectives in which two recipes differ, context aside."""
    for one, two in zip(parts_of(first), parts_of(other), strict=False):
        if one.role in ("backbone", "train"):
            continue
        if one.kind is not two.kind:
            yield two.name
            continue
        for name, value in two.settings.items():
            if value != one.settings[name] and name != "max_length":
                yield from _difference(name, one.settings[name], value)


def _difference(name: str, first: object, other: object) -> Iterator[str]:
    if dataclasses.is_dataclass(other) and type(first) is type(other):
        for field in dataclasses.fields(other):
            values = getattr(first, field.name), getattr(other, field.name)
            if values[0] != values[1]:
                yield from _difference(f"{name}.{field.name}", *values)
    elif dataclasses.is_dataclass(other):
        yield type(other).__name__
    else:
        yield name if other is True else f"{name}={other:.3g}" if isinstance(other, float) else f"{name}={other}"


def print_recipe(recipe: Recipe, console: Console) -> None:
    """Print what the file of a recipe says, its size, every setting with its meaning, and how to run it."""
    fact = facts(recipe)
    console.print()
    for paragraph in paragraphs(recipe.name):
        console.print(Padding(Text(paragraph), (0, 1, 1, 1)))
    size = f"{quantity(fact['num_parameters'])} parameters, {quantity(fact['flops_per_token'])} FLOPs per token"
    exported = f"; exports as {fact['exports_as']}" if fact["exports_as"] else ""
    tree = Tree(Text.assemble((recipe.name, "bold cyan"), f"  {size}{exported}"), guide_style="dim")
    for part in parts_of(recipe):
        branch = tree.add(
            Text.assemble((part.role, "dim"), " ", (part.name, "bold"), "  ", (part.question, "dim italic"))
        )
        docs = field_docs(part.kind)
        for name, value in part.settings.items():
            _grow(branch, name, value, docs.get(name, ""))
    console.print(Padding(tree, (0, 1)))
    console.print()
    name = recipe.name
    for command in (
        f'elision show {name} "Some text of yours."',
        f"elision prepare TEXTS --recipe {name} --out store",
        f"elision pretrain {name} --data store --out runs/{name}",
        f"elision export runs/{name} {name}-hf",
    ):
        console.print(Padding(Text(command, "green"), (0, 1)))


def _grow(branch: Tree, name: str, value: object, doc: str) -> None:
    """Hang one setting into the tree; a setting that has settings of its own becomes a branch."""
    if not dataclasses.is_dataclass(value):
        plain = json.dumps(to_plain(value), ensure_ascii=False)
        branch.add(Text.assemble(name, " = ", (plain, "yellow"), "  ", (doc, "dim")))
        return
    inner = branch.add(Text.assemble(name, " = ", (type(value).__name__, "bold"), "  ", (doc, "dim")))
    docs = field_docs(type(value))
    for field in dataclasses.fields(value):
        _grow(inner, field.name, getattr(value, field.name), docs.get(field.name, ""))
