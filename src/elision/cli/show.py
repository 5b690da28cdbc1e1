"""`elision show`: see what a recipe does to a text."""

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import tyro

from elision import recipes
from elision.errors import InputError
from elision.recipe import Recipe
from elision.text.readers import FileSource, Reading, is_known

# Of a large file only the beginning is read: it makes more examples than anyone looks at.
MOST_CHARACTERS = 500_000


@dataclasses.dataclass(frozen=True)
class Show:
    """See what a recipe does to a text: what is left out, what stands in its place, what must be restored, and who
    sees whom. The segmenter, the noise and the batch are the very ones that training uses.

    A recipe is a name, or the recipe.json of a run; every field of it is an option, as in `elision pretrain`.

    For example:

    elision show bert-base "The cat sat on the mat. It was warm."

    elision show gpt2-small chapter.txt --html chapter.html

    elision show bert-tiny --data store --index 7 --noise.rate 0.3

    elision show marian-tiny "A cat sat." "Eine Katze saß." --language en de

    elision show t5-tiny --data store --model runs/t5-tiny
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    text: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[TEXT ...]")] = ()
    """what to show: a text (several are several documents; a recipe that reads pairs wants each text and then what is written
    from it), a file (blank lines part documents), or - for standard input; none with --data: an example of the store"""
    language: tuple[str, ...] = ()
    """the language of the text, or those of both sides of a pair, where the recipe asks for them (mBART: en_XX)"""
    data: Annotated[Path | None, tyro.conf.arg(metavar="STORE")] = None
    """take the tokenizer, and without a text also the example, from this token store"""
    turn: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """show the batches of this turn, where the recipe reads several kinds (tlm in XLM: a text, then its translation)"""
    split: str = "train"
    """which split of the store"""
    tokenizer: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """take the tokenizer from here (a folder, tokenizer.json, vocab.txt, ...)"""
    model: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """a run of this recipe, whose tokenizer is taken: show what it would predict at every place, or how its generator fills
    places in (ELECTRA, DeBERTa-v3)"""
    index: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """which example of the text or the store; default: one that shows much of the text, or the store's first"""
    examples: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """how many examples to lay into the row, as packing does"""
    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """of every random choice; default: the recipe's"""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """write a page instead of printing: one file that needs nothing else"""
    width: Annotated[int | None, tyro.conf.arg(metavar="COLUMNS")] = None
    """columns of the terminal; default: as many as it has"""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print every token of a long example"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = parse(arguments)
    import elision
    from elision.data.store import Store
    from elision.show.source import explain_split, explain_texts
    from elision.text.tokenizer import Tokenizer

    recipe = settings.recipe if settings.turn is None else settings.recipe.turned(settings.turn)
    texts = [document for argument in settings.text for document in read(argument)]
    if settings.width is not None and settings.width < 40:
        raise InputError(f"--width is {settings.width}: it must be at least 40")
    if settings.data is not None and settings.tokenizer is not None:
        raise InputError("--data and --tokenizer both name a tokenizer: give one of them")
    store = None if settings.data is None else Store.open(settings.data)
    loaded = None if settings.model is None else elision.load(settings.model)
    trained = None if loaded is None else loaded.model
    if settings.text:
        tokenizer = store.tokenizer if store is not None else None
        if loaded is not None:
            tokenizer = loaded.tokenizer
        if settings.tokenizer is not None:
            tokenizer = Tokenizer.load(settings.tokenizer)
        shown = explain_texts(
            recipe, texts, tokenizer, settings.seed, settings.index, settings.examples, trained, settings.language
        )
    elif store is not None:
        split = store.split(settings.split)
        index = 0 if settings.index is None else settings.index
        shown = explain_split(recipe, split, store.tokenizer, settings.seed, index, settings.examples, (), trained)
    else:
        raise InputError('there is nothing to show: give a text (elision show bert-base "Some text.") or --data STORE')
    if settings.html is not None:
        from elision.atomic import write_text
        from elision.show.page import page

        write_text(settings.html, page(shown))
        print(settings.html)
        return 0
    from rich.console import Console

    from elision.show.terminal import print_explanation

    console = Console(width=settings.width, highlight=False)
    print_explanation(shown, console, **({"max_tokens": None} if settings.all else {}))
    return 0


def parse(arguments: list[str]) -> Show:
    """Read the command line: the recipe first, since its fields are options too."""
    arguments = list(arguments)
    asks_help = any(flag in arguments for flag in ("-h", "--help"))
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
        recipe = Recipe.load(Path(name)) if name.endswith(".json") else recipes.get(name)
    elif asks_help:
        recipe = recipes.get("bert-base")
        sys.stdout.write("usage: elision show RECIPE [TEXT ...] [OPTIONS]\n\n")
        sys.stdout.write(
            f"RECIPE is one of: {', '.join(recipes.names())}.\nThe options below are those of bert-base.\n\n"
        )
    else:
        raise InputError('name a recipe first (elision show bert-base "Some text."); `elision recipes` lists them')
    return tyro.cli(
        Show,
        prog=f"elision show {recipe.name}",
        args=arguments,
        default=Show(recipe=recipe),
        config=(tyro.conf.AvoidSubcommands,),
    )


def read(argument: str) -> list[str]:
    """Return the documents that one argument stands for: standard input, a file of any kind, or the text itself."""
    if argument == "-":
        return [part for part in re.split(r"\n\s*\n", _valid(sys.stdin.read(MOST_CHARACTERS))) if part.strip()]
    path = Path(argument)
    if os.path.isfile(path):
        return _first_documents(FileSource(path, Reading()))
    if is_known(path) and not any(character.isspace() for character in argument):
        raise InputError(f"there is no file {argument}: give a file that exists, or a text in quotation marks")
    return [_valid(argument)]


def _first_documents(source: FileSource) -> list[str]:
    documents: list[str] = []
    left = MOST_CHARACTERS
    for document in source.documents(lambda num_bytes: None):
        documents.append(_valid(document.text)[:left])
        left -= len(documents[-1])
        if left <= 0:
            break
    return documents


def _valid(text: str) -> str:
    """Put the replacement character where bytes were no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
