"""What all tests share. Stores and recipes of test size come from `tests.tiny`."""

import functools
import os
import shutil
from collections.abc import Callable, Iterator

# Two test processes share two cores, and bit-equality needs a fixed number of threads: set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from elision.data.store import Store
from elision.recipe import Recipe
from elision.text.tokenizer import TokenizerSpec
from tests import tiny


@pytest.fixture(scope="session")
def store_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Recipe], Store]]:
    """Gives the store for a recipe of test size: synthetic text in the symbols of its own tokenizer.

    The teachers that a recipe names are then there, too.
    """

    @functools.cache
    def store(spec: TokenizerSpec, num_pairs: int) -> Store:
        path = tmp_path_factory.mktemp("store") / type(spec).__name__.lower()
        return tiny.text_store(path, spec, num_pairs=num_pairs)

    def store_and_teachers(recipe: Recipe) -> Store:
        built = store(recipe.tokenizer, 60 if tiny.reads_pairs(recipe) else 0)
        tiny.save_teachers(recipe, built)
        return built

    yield store_and_teachers
    shutil.rmtree(tiny.TEACHERS, ignore_errors=True)


@pytest.fixture(scope="session")
def wordpiece_store(store_of: Callable[[Recipe], Store]) -> Store:
    """A store of synthetic text with a WordPiece tokenizer ([CLS], [SEP], [MASK] ...)."""
    return store_of(tiny.recipe("bert-tiny"))


@pytest.fixture(scope="session")
def bytes_store(store_of: Callable[[Recipe], Store]) -> Store:
    """The same text with a byte-level BPE tokenizer, whose only special symbol is the end of text."""
    return store_of(tiny.recipe("gpt2-tiny"))
