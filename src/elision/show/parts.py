"""What a recipe is made of, in words: each part, the question it answers, its settings and what they mean."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from typing import Any

from elision import recipes
from elision.recipe import Recipe

QUESTIONS = {
    "tokenizer": "what are the symbols",
    "segmenter": "which stretch of which documents is one example",
    "noise": "what is left out, and what stands in its place",
    "backbone": "who sees what while restoring it",
    "objectives": "what must be restored, and what a mistake costs",
    "train": "how it is optimised",
    "mixing": "how often each language is read",
    "turns": "which other batches come in turn with these",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a recipe: its role, the question that it answers, its class and its settings."""

    role: str
    question: str
    kind: type
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.kind.__name__

    @property
    def summary(self) -> str:
        """What the class does, in one line."""
        return summary(self.kind)


def parts_of(recipe: Recipe) -> list[Part]:
    """Return the parts of a recipe in the order in which text meets them; each objective is a part."""
    found = []
    for role, question in QUESTIONS.items():
        value = getattr(recipe, role)
        for part in value if isinstance(value, tuple) else () if value is None else (value,):
            settings = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
            found.append(Part(role, question, type(part), settings))
    return found


def summary(kind: type) -> str:
    """Return the first line of a class docstring."""
    return (inspect.getdoc(kind) or "").split("\n\n")[0].split("\n")[0]


def paragraphs(name: str) -> list[str]:
    """Return what the file of a recipe says of its paper, a paragraph an entry; nothing for a recipe of one's own."""
    if name not in recipes.names():
        return []
    return [" ".join(paragraph.split()) for paragraph in recipes.about(name).split("\n\n")]


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """Return the string under each field of a dataclass."""
    docs: dict[str, str] = {}
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs
