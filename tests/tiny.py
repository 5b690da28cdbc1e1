"""Stores, recipes and batches of test size: the parts of the real thing, made small."""

import dataclasses
import functools
import hashlib
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elision import recipes
from elision.data.loader import Loader
from elision.data.noise.frequency import counted
from elision.data.segment import (
    Chunks,
    LanguageBlocks,
    LanguagePairs,
    MemoryStreams,
    SourceTarget,
    Streams,
    TranslationPairs,
)
from elision.data.shards import Documents, StoreWriter
from elision.data.store import Store
from elision.model.language_model import LanguageModel
from elision.objectives import MaskedLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, TokenizerSpec, WordPiece
from elision.text.vocabulary import Vocabulary
from elision.train.checkpoint import write_weights

# Where the models lie that students learn from; written when a test first wants the store of such a recipe.
TEACHERS = Path(tempfile.gettempdir()) / f"elision-test-teachers-{os.getpid()}"

WORDPIECE = WordPiece(vocab_size=300)
BYTES = ByteLevelBPE(vocab_size=300)

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "head_size": 24,
    "num_key_value_heads": 1,
    "feedforward_size": 64,
    "cell_size": 48,
    "filters": ((1, 8), (2, 8), (3, 16)),
    "num_highways": 1,
    "num_targets": 100,
    "cutoffs": (150, 200),
    "num_samples": 0,
    "offset_size": 16,
    "num_positions": 32,
    "max_length": 24,
    "reuse_length": 12,
    "permute_length": 12,
    "memory_length": 18,
    "batch_size": 8,
    "initial_size": 2,
    "num_examples": 30,
    "steps": 40,
    "hold": 10,
    "eval_examples": 8,
    "log_every": 5,
    "precision": "float32",
}
"""Fields of recipes by name, and the value that each takes in a test."""


def shrunk(part: Any, **settings: Any) -> Any:
    """Return a recipe (or a part of one) with the same parts at the sizes above; `settings` sets fields by name.

    The width and the sharing of heads only where the recipe says them: neither need follow from the width of the model.
    What a layer sees, where it does not see everything, is a part of an example here too.
    """
    if isinstance(part, tuple):
        return tuple(shrunk(item, **settings) for item in part)
    if not dataclasses.is_dataclass(part):
        return part
    wanted = SIZES | settings
    for optional in ("head_size", "num_key_value_heads"):
        if getattr(part, optional, None) is None:
            wanted.pop(optional)
    if getattr(part, "windows", ()):
        wanted["windows"] = tuple(window and 7 for window in part.windows)
    fields = {
        field.name: wanted[field.name] if field.name in wanted else shrunk(getattr(part, field.name), **settings)
        for field in dataclasses.fields(part)
    }
    return type(part)(**fields)


def recipe(name: str, **settings: Any) -> Recipe:
    """Return the named recipe at test size; "xlm-tiny/tlm" reads one of its turns alone."""
    name, _, turn = name.partition("/")
    small = shrunk(recipes.get(name), **settings)
    teacher = str(TEACHERS / type(small.tokenizer).__name__)
    objectives = tuple(
        dataclasses.replace(objective, teacher=teacher) if hasattr(objective, "teacher") else objective
        for objective in small.objectives
    )
    small = dataclasses.replace(small, objectives=objectives)
    if isinstance(small.segmenter, LanguageBlocks | LanguagePairs):
        # Symbols of the languages that the texts here are in.
        tokenizer = dataclasses.replace(small.tokenizer, extra_special_tokens=("aa_XX", "bb_XX"))
        small = dataclasses.replace(small, tokenizer=tokenizer)
    return small.turned(turn) if turn else small


def save_teachers(recipe: Recipe, store: Store) -> None:
    """Write the teachers that the recipe's objectives name: like the student, with weights of their own."""
    for objective in recipe.objectives:
        folder = Path(getattr(objective, "teacher", "") or ".")
        if TEACHERS not in folder.parents or folder.exists():
            continue
        folder.mkdir(parents=True)
        dataclasses.replace(recipe, objectives=(MaskedLM(),)).save(folder / "recipe.json")
        store.tokenizer.save(folder / "tokenizer")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            write_weights(folder, LanguageModel(recipe.backbone, (MaskedLM(),), store.tokenizer.vocabulary.size))


def without_memory(recipe: Recipe) -> Recipe:
    """Return the recipe over documents in any order, which can share a row, if it goes along streams to remember them."""
    if not isinstance(recipe.segmenter, MemoryStreams | Streams):
        return recipe
    return dataclasses.replace(
        recipe,
        segmenter=Chunks(max_length=recipe.segmenter.max_length, cross_documents=False),
        backbone=dataclasses.replace(recipe.backbone, memory_length=0),
    )


@functools.cache
def systems() -> tuple[str, ...]:
    """Return one recipe name for each distinct system under recipes/: sizes that shrink to the same are one.

    A turn is a system of its own, too.
    """
    distinct: dict[str, str] = {}
    for name in (f"{paper}{turn}" for paper in recipes.names() for turn in _turns(paper)):
        small = dataclasses.replace(recipe(name, learning_rate=1e-3), name="")
        distinct.setdefault(repr(small), name)
    return tuple(distinct.values())


def _turns(name: str) -> list[str]:
    return ["", *(f"/{turn.name}" for turn in recipes.get(name).turns)]


def reads_pairs(recipe: Recipe) -> bool:
    """Tell whether the recipe needs a store with translations."""
    return any(isinstance(kind.segmenter, TranslationPairs | SourceTarget) for kind in recipe.kinds)


def texts(num_documents: int = 40, seed: int = 0) -> list[list[str]]:
    """Return documents as lists of sentences, in words that are short, few and unevenly frequent."""
    rng = random.Random(seed)
    syllables = ["ba", "do", "ki", "lu", "me", "no", "ra", "su", "ti", "ve"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(500)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [
        [" ".join(rng.choices(words, weights, k=rng.randint(3, 9))) + "." for _ in range(rng.randint(1, 9))]
        for _ in range(num_documents)
    ]


def tokenizer(spec: TokenizerSpec) -> Tokenizer:
    """Train a tokenizer on `texts`."""
    return spec.train(" ".join(document) for document in texts())


def text_store(path: Path, spec: TokenizerSpec, validation: float = 0.2, num_pairs: int = 0) -> Store:
    """Write a store of `texts` with a tokenizer of its own, a part of it held out; every third is of another language,
    every other one has another control code.

    With `num_pairs` translations after them: sentences of one language, and their words in reverse in the other.
    """
    trained = tokenizer(spec)
    documents = [[ids for ids in trained.encode_batch(document) if len(ids)] for document in texts()]
    languages = ["bb" if index % 3 == 2 else "aa" for index in range(len(documents))]
    sentences = [sentence for document in texts(num_pairs, seed=1) for sentence in document][:num_pairs]
    pairs = [
        [trained.encode_batch([sentence]), trained.encode_batch([" ".join(reversed(sentence.split()))])]
        for sentence in sentences
    ]
    # Single letters, which every tokenizer has a symbol for.
    codes = ["a" if index % 2 else "o" for index in range(len(documents))]
    return id_store(path, trained, documents, validation, languages=languages, codes=codes, pairs=pairs)


def id_store(
    path: Path,
    made_with: Tokenizer,
    documents: Sequence[Sequence[Sequence[int]]],
    validation: float = 0.0,
    shard_tokens: int = 1 << 10,
    languages: Sequence[str] | None = None,
    codes: Sequence[str | None] | None = None,
    pairs: Sequence[Sequence[Sequence[Sequence[int]]]] = (),
    pair_languages: tuple[str | None, str | None] = ("aa", "bb"),
) -> Store:
    """Write documents that are given as the token ids of their sentences; several shards, so that reads cross them.

    `pairs` are further documents in twos, translations of each other.
    """
    made_with.save(path / "tokenizer")
    writer = StoreWriter(path, made_with, validation, shard_tokens)
    for index, document in enumerate(documents):
        written = _documents(index, document, None if languages is None else languages[index])
        writer.append(dataclasses.replace(written, codes=None if codes is None else [codes[index]]))
    for index, sides in enumerate(pairs, len(documents)):
        one, other = (_documents(index, side, language) for side, language in zip(sides, pair_languages, strict=True))
        pair = Documents.join([one, dataclasses.replace(other, hashes=one.hashes)])
        writer.append(dataclasses.replace(pair, translated=np.array([True, False])))
    return writer.finish({})


def _documents(index: int, document: Sequence[Sequence[int]], language: str | None) -> Documents:
    ids = np.concatenate([np.asarray(sentence) for sentence in document])
    digest = hashlib.blake2b(f"{index}".encode() + ids.tobytes(), digest_size=8).digest()
    return Documents(
        ids=ids,
        num_tokens=np.array([len(ids)]),
        sentence_lengths=np.array([len(sentence) for sentence in document], np.uint32),
        num_sentences=np.array([len(document)]),
        num_bytes=np.array([4 * len(ids)]),
        hashes=np.array([int.from_bytes(digest, "little")], np.uint64),
        languages=[language],
        identifiers=[None],
    )


def vocabulary(size: int, continues_word: np.ndarray | None = None) -> Vocabulary:
    """Return a vocabulary whose first five ids are pad, unk, cls, sep, mask; 5 is the end of text, too."""
    special = np.arange(size) < 6
    continues = np.zeros(size, bool) if continues_word is None else continues_word
    return Vocabulary(size, special, continues, pad=0, unk=1, cls=2, sep=3, mask=4, bos=5, eos=5)


def loader(recipe: Recipe, store: Store, **settings: Any) -> Loader:
    """Return a loader over the training split, as `prepare_run` builds it; `settings` sets its fields."""
    words, train = counted(store.tokenizer.vocabulary, recipe.noise, store.split("train")), recipe.train
    built = Loader(
        plan=recipe.plan(store.split("train"), words),
        noise=recipe.noise,
        vocabulary=words,
        seed=train.seed,
        batch_size=train.batch_size,
        microbatch_size=train.microbatch_size or train.batch_size,
        row_length=recipe.row_length(),
        answers=recipe.answers(words),
        languages=recipe.language_numbers(store.split("train")),
    )
    return dataclasses.replace(built, **settings)


def model(recipe: Recipe, store: Store) -> LanguageModel:
    """Return the model of a recipe, with weights from PyTorch's global generator as it stands."""
    built = LanguageModel(recipe.backbone, recipe.objectives, store.tokenizer.vocabulary.size)
    built.begin(store.tokenizer.symbols())
    return built
