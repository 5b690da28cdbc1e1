"""The batches that both sides of a comparison read: the same examples, laid out as each side would.

Ours come packed, as our loader makes them. The other side gets them as its usual collator would: one example to a row,
padded to the longest of the batch, with an attention mask.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.data.loader import Loader
from elision.data.order import generator, shuffled
from elision.data.segment import Chunks
from elision.data.store import MANIFEST, Store
from elision.recipe import Recipe
from elision.text.docstrings import parse, source_files
from elision.text.prepare import prepare
from elision.text.readers import Document, TextsSource
from elision.text.vocabulary import Vocabulary
from elision.train.pretrain import loader_of

Lengths = Literal["full", "real"]

# Every so many-th source file of the installed packages: some megabytes of text are enough.
FILE_STRIDE = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """One step's data for both sides: packed for ours, one example to a row for the other."""

    ours: Batch
    padded: Batch


def store_for(recipe: Recipe, folder: Path) -> Store:
    """Open the store for a recipe in `folder`; where there is none, make one of the installed documentation."""
    spec = recipe.tokenizer
    path = folder / "-".join(
        [type(spec).__name__.lower(), *([spec.layout] if hasattr(spec, "layout") else []), "store"]
    )
    if (path / MANIFEST).is_file():
        return Store.open(path)
    texts = tuple(
        Document(text, "en", f"{module}.{name}", f"{file}:{line}")
        for module, file, found, _ in parse(source_files()[::FILE_STRIDE])
        for line, name, text in found
    )
    return prepare([TextsSource(texts)], path, recipe.tokenizer, sample_megabytes=4)


def loader_for(recipe: Recipe, store: Store, rows: int) -> Loader:
    """Return the loader that `elision pretrain` would use, with steps of `rows` examples."""
    return loader_of(recipe, store.split("train"), store.tokenizer.vocabulary, rows)


def works(recipe: Recipe, store: Store | None, lengths: Lengths, rows: int, count: int) -> list[Work]:
    """Return `count` steps of `rows` examples each, from a store or, without one, of random tokens.

    lengths: "real" takes examples as they come, "full" only those as long as the segmenter allows. Of chunks of an endless
    text none is shorter; where such are to be written, "real" takes every document by itself.
    """
    if (
        store is not None
        and lengths == "real"
        and recipe.noise.restores == "sequence"
        and isinstance(recipe.segmenter, Chunks)
    ):
        found = _documents(recipe, store)
    else:
        found = _real(recipe, store) if store is not None else _random(recipe, lengths)
    full = recipe.segmenter.max_length
    chosen: list[Example] = []
    for example in found:
        if lengths == "real" or recipe.noise.restores == "sequence" or len(example) == full:
            chosen.append(example)
        if len(chosen) == rows * count:
            break
    assert len(chosen) == rows * count, f"the store has only {len(chosen)} examples of {full} tokens"
    return [_laid_out(recipe, chosen[i : i + rows]) for i in range(0, len(chosen), rows)]


def _real(recipe: Recipe, store: Store) -> Iterator[Example]:
    loader = loader_for(recipe, store, rows=1)
    for place in range(len(loader.plan)):
        index = int(shuffled(np.array([place]), len(loader.plan), loader.seed, "epoch", 0)[0])
        yield loader.example(0, index)


def _documents(recipe: Recipe, store: Store) -> Iterator[Example]:
    loader = loader_for(recipe, store, rows=1)
    split, words = store.split("train"), store.tokenizer.vocabulary
    for place in range(split.num_documents):
        index = int(shuffled(np.array([place]), split.num_documents, loader.seed, "epoch", 0)[0])
        inputs = split.document(index)[: recipe.segmenter.max_length].astype(np.int64)
        if len(inputs) > 1:
            example = Example(inputs, np.zeros(len(inputs), bool))
            yield loader.answers(recipe.noise(example, words, generator(loader.seed, "bench", index)))


def _random(recipe: Recipe, lengths: Lengths) -> Iterator[Example]:
    size, full = recipe.tokenizer.vocab_size, recipe.segmenter.max_length
    special = np.arange(size) < 5
    vocabulary = Vocabulary(size, special, np.zeros(size, bool), pad=0, unk=1, cls=2, sep=3, mask=4, eos=1)
    rng = np.random.default_rng(0)
    pairs = recipe.segmenter.num_types > 0
    while True:
        # One in ten examples is short, as in the pairs of the BERT code.
        length = int(rng.integers(5, full)) if pairs and lengths == "real" and rng.random() < 0.1 else full
        inputs = rng.integers(5, size, length + recipe.noise.lookahead)
        frame = np.zeros(len(inputs), bool)
        types = label = None
        if pairs:
            frame[[0, length // 2, -1]] = True
            inputs[frame] = [2, 3, 3]
            types, label = (np.arange(len(inputs)) > length // 2).astype(np.int64), int(rng.random() < 0.5)
        example = recipe.noise(Example(inputs, frame, type_ids=types, label=label), vocabulary, rng)
        yield dataclasses.replace(example, draws=rng.random(len(example)))


def _laid_out(recipe: Recipe, examples: list[Example]) -> Work:
    # Rows that go on from step to step, each from its own memory, are not packed.
    remembers = getattr(recipe.backbone, "memory_length", 0) > 0
    _, answer_length = recipe.kinds[0].lengths
    ours = collate(
        examples,
        pad_id=0,
        row_length=recipe.row_length(),
        decoder_row_length=answer_length,
        packing=not remembers,
        contiguous=remembers,
    )
    return Work(ours, collate(examples, pad_id=0, packing=False))
