"""Recipes: one file for each paper. A public function of such a file that returns a Recipe is one of its sizes; one whose
name begins with a digit is that of a function with `size_` before it (size_7b).

The files are the registration: `names()` lists what lies in this folder.
"""

import importlib
import inspect
import pkgutil
import re

from elision.errors import InputError, nearest
from elision.recipe import Recipe


def names() -> list[str]:
    """Return the name of every recipe and size, such as 'bert-tiny', grouped by paper, in the order of its file."""
    return [
        f"{module.name}-{_spoken(size)}".replace("_", "-")
        for module in pkgutil.iter_modules(__path__)
        for size in _sizes(module.name)
    ]


def get(name: str) -> Recipe:
    """Return a recipe by name ('bert-base'; underscores, dots, colons and slashes serve as well).

    Raises: InputError naming the nearest known recipe.
    """
    wanted = re.sub(r"[_.:/\s]+", "-", name.strip().lower())
    known = names()
    if wanted not in known:
        sizes = [other for other in known if other.startswith(f"{wanted}-")]
        hint = f" Its sizes are: {', '.join(sizes)}." if sizes else nearest(wanted, known)
        raise InputError(f"There is no recipe {name!r}.{hint} `elision recipes` lists them all.")
    for module in pkgutil.iter_modules(__path__):
        prefix = f"{module.name}-".replace("_", "-")
        if wanted.startswith(prefix):
            for size in _sizes(module.name):
                if _spoken(size) == wanted.removeprefix(prefix):
                    return getattr(_module(module.name), size)()
    raise AssertionError(wanted)


def about(name: str) -> str:
    """Return what the file of a recipe says of its paper: the docstring of its module."""
    # "xlm-r-base" also begins like the sizes of "xlm".
    prefixes = [module.name for module in pkgutil.iter_modules(__path__) if _begins(name, module.name)]
    return inspect.getdoc(_module(max(prefixes, key=len))) or ""


def _begins(name: str, module: str) -> bool:
    return name.startswith(f"{module}-".replace("_", "-"))


def _module(name: str) -> object:
    return importlib.import_module(f"{__name__}.{name}")


def _spoken(size: str) -> str:
    return size.removeprefix("size_").replace("_", "-")


def _sizes(name: str) -> list[str]:
    return [
        size
        for size, function in vars(_module(name)).items()
        if inspect.isfunction(function)
        and not size.startswith("_")
        and function.__module__ == f"{__name__}.{name}"
        and inspect.signature(function).return_annotation is Recipe
    ]
