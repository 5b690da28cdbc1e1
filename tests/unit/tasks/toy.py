"""A toy world for fine-tuning: a checkpoint with random weights, and rows whose label is plain to see."""

import dataclasses
import random
from pathlib import Path

import torch

from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.tasks.finetune import FineTune
from elision.tasks.labelled import Row
from elision.train import checkpoint
from tests import tiny

SETTINGS = FineTune(epochs=8, batch_size=8, learning_rate=3e-3, precision="float32")
COLOURS = {"red": ["ba", "do"], "blue": ["ki", "lu"]}


def untrained(folder: Path, name: str) -> Path:
    """Write a checkpoint of the named recipe at test size, with random weights."""
    recipe: Recipe = dataclasses.replace(tiny.recipe(name), name=name)
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer(recipe.tokenizer)
    folder.mkdir(parents=True)
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    checkpoint.write_weights(folder, LanguageModel(recipe.backbone, recipe.objectives, tokenizer.vocabulary.size))
    return folder


def rows(num_rows: int, seed: int) -> list[Row]:
    """Return texts whose words tell their label."""
    rng = random.Random(seed)
    made = []
    for _ in range(num_rows):
        label = rng.choice(list(COLOURS))
        made.append(Row(" ".join(rng.choices(COLOURS[label], k=rng.randint(2, 7))), label))
    return made


def pairs(num_rows: int, seed: int) -> list[Row]:
    """Return pairs whose score is how many words of the second text are "ba"."""
    rng = random.Random(seed)
    made = []
    for _ in range(num_rows):
        count = rng.randint(0, 4)
        made.append(Row("me no", float(count) + 0.5, pair=" ".join(["ba"] * count + ["su"] * (4 - count))))
    return made
