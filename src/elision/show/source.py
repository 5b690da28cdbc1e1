"""Examples to show: drawn from a store, or made of a text by way of a small store of its own.

Either way the recipe's own segmenter and noise make them, with the generators that training uses.
"""

import contextlib
import dataclasses
import functools
import pydoc_data.topics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from elision.data.batch import Batch
from elision.data.example import Example
from elision.data.noise.frequency import counted
from elision.data.order import generator
from elision.data.segment import CodedChunks, LanguageBlocks, LanguagePairs, SourceTarget, TranslationPairs
from elision.data.store import Split
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.objectives import Objective
from elision.progress import console
from elision.recipe import Recipe
from elision.show.explain import Explanation, explain
from elision.show.trace import traced
from elision.text.cleaning import Cleaning
from elision.text.codes import known_codes, with_codes
from elision.text.formats import Document
from elision.text.prepare import prepare
from elision.text.readers import TextsSource
from elision.text.tokenizer import Tokenizer, TokenizerSpec

# A throw-away tokenizer should take about a second to train.
SMALL_VOCABULARY = 8192
LONGEST_TRAINING_TEXT = 1_000_000
# Among how many examples the one with the most different tokens is looked for: a short text also makes pairs that
# repeat it or hold only a part of it, which show less.
NUM_TRIED = 64


def explain_texts(
    recipe: Recipe,
    texts: Sequence[str],
    tokenizer: Tokenizer | None = None,
    seed: int | None = None,
    index: int | None = None,
    num_examples: int = 1,
    model: LanguageModel | None = None,
    languages: Sequence[str] = (),
) -> Explanation:
    """Explain what `recipe` makes of `texts`, one document each.

    Without a `tokenizer` the recipe's own kind is trained on the spot. `index` chooses the example; None takes
    one that shows much of the text. `languages`: of the texts, or of the first and the second of every pair; where none is
    given, one that the tokenizer has a symbol for, if any. Raises: InputError when there is no text, or no such example.
    """
    notes = []
    if tokenizer is None:
        # Whoever reads a code before a text is shown one.
        codes = {"Text"} if isinstance(recipe.segmenter, CodedChunks) else set()
        tokenizer = small_tokenizer(with_codes(recipe.tokenizer, codes), texts)
        notes.append(
            f"The tokenizer ({tokenizer.vocabulary.size:,} symbols) was trained just now on this text and the Python "
            f"manual; --data or --tokenizer takes a real one."
        )
    pairs = isinstance(recipe.segmenter, TranslationPairs | SourceTarget)
    with split_of_texts(texts, tokenizer, pairs, languages or _known_languages(recipe, tokenizer)) as split:
        return explain_split(recipe, split, tokenizer, seed, index, num_examples, notes, model)


def explain_split(
    recipe: Recipe,
    split: Split,
    tokenizer: Tokenizer,
    seed: int | None = None,
    index: int | None = None,
    num_examples: int = 1,
    notes: Sequence[str] = (),
    model: LanguageModel | None = None,
) -> Explanation:
    """Explain examples `index` and following, `num_examples` of them, that `recipe` makes of a split.

    Seed and index fix everything: the same noise as in the first epoch of a training with that seed. `model`: says what it
    would predict, and its generator fills places in, where the recipe has one; None = a generator without training.
    Raises: InputError when there is no such example.
    """
    vocabulary = counted(tokenizer.vocabulary, recipe.noise, split)
    seed = recipe.train.seed if seed is None else seed
    recipe.noise.check(vocabulary)
    plan = recipe.plan(split, vocabulary, seed)
    if num_examples < 1:
        raise InputError(f"--examples is {num_examples}: it must be at least 1")
    if index is None:
        index = max(range(min(len(plan), NUM_TRIED)), key=lambda i: len(np.unique(plan.example(i).inputs)))
    if not 0 <= index < len(plan):
        raise InputError(f"--index is {index}: this text makes {len(plan)} examples, numbered from 0")
    chosen = range(index, min(index + num_examples, len(plan)))
    before: list[Example] = [plan.example(i) for i in chosen]
    answers = recipe.answers(vocabulary)
    draws = [functools.partial(generator, seed, "noise", 0, i) for i in chosen]
    # A noise may write into what it is given, so it gets an example of its own.
    after = [answers(recipe.noise(plan.example(i), vocabulary, rng())) for i, rng in zip(chosen, draws)]
    traces = []
    if recipe.noise.restores == "sequence":
        traces = [
            traced(recipe.noise, answers, *pair, vocabulary, rng)
            for *pair, rng in zip(before, after, draws, strict=True)
        ]
    which = f"Example {index}" if len(chosen) == 1 else f"Examples {index} to {chosen[-1]}"
    hint = "" if len(plan) == 1 else "; --index N shows another"
    told = [f"{which} of {len(plan):,}, seed {seed}{hint}.", *notes]
    rewrite = None
    if any(type(objective).before is not Objective.before for objective in recipe.objectives):
        if model is None:
            told.append("A generator guesses at random before its first step; --model RUN shows a trained one at work.")
        rewrite = functools.partial(_rewritten, model, vocabulary.size, seed)
    predict = None
    if model is not None and model.token_objective is not None and rewrite is None:
        predict = functools.partial(_predicted, model)
    return explain(recipe, before, after, tokenizer, told, rewrite, traces, predict)


def _known_languages(recipe: Recipe, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return what to call the languages of texts: numbers, but for a recipe that ends a text with a symbol of its language."""
    symbols = getattr(recipe.tokenizer, "extra_special_tokens", ())
    known = [symbol for symbol in symbols if tokenizer.raw.token_to_id(symbol) is not None]
    if not isinstance(recipe.segmenter, LanguageBlocks | LanguagePairs) or not known:
        return "1", "2"
    english = next((symbol for symbol in known if symbol.startswith("en")), known[0])
    if isinstance(recipe.segmenter, LanguageBlocks):
        return (english,)
    return english, next((symbol for symbol in known if symbol != english), english)


def _predicted(model: LanguageModel, batch: Batch) -> np.ndarray:
    """Return the likeliest token at each place with a target."""
    with torch.no_grad():
        return model.eval().logits(batch).flatten(0, 1)[batch.target_at].argmax(-1).numpy()


def _rewritten(model: LanguageModel | None, vocab_size: int, seed: int, batch: Batch) -> Batch:
    """Return the batch as the backbone reads it, after the objectives have acted on it."""
    if model is None:
        guesses = generator(seed, "untrained generator").integers(0, vocab_size, batch.num_targets)
        inputs = batch.inputs.flatten().index_copy(0, batch.target_at, torch.from_numpy(guesses))
        return dataclasses.replace(batch, inputs=inputs.view_as(batch.inputs))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for objective in model.objectives:
            batch, _ = objective.before(model.heads[objective.name], model.eval().backbone, batch)
    return batch


@contextlib.contextmanager
def split_of_texts(
    texts: Sequence[str], tokenizer: Tokenizer, pairs: bool = False, languages: Sequence[str] = ("1", "2")
) -> Iterator[Split]:
    """Yield `texts`, one document each, as the only split of a store that is removed afterwards.

    pairs: two successive texts belong together, as a text and its translation. languages: of all texts, or of the first and
    the second of every pair. Raises: InputError when there is no text, or one without its translation.
    """
    _require_text(texts)
    if pairs and len(texts) % 2:
        raise InputError(
            f"{_texts(len(texts))} cannot be parted into pairs: give each text and then what is to be "
            f"written from it, its translation for example"
        )
    one, other = languages[0], languages[-1]
    if pairs:
        documents = [Document(a, one, translation=Document(b, other)) for a, b in zip(texts[::2], texts[1::2])]
    else:
        # A tokenizer without codes has letters, which can be one.
        code = next(iter(known_codes(tokenizer)), "a")
        documents = [Document(text, one, code=code) for text in texts]
    with tempfile.TemporaryDirectory(prefix="elision-show-") as folder:
        with _without_progress():
            source, cleaning = TextsSource(tuple(documents)), Cleaning(duplicates=False)
            store = prepare([source], Path(folder) / "store", tokenizer, cleaning=cleaning, validation=0.0)
        yield store.split("train")


def small_tokenizer(spec: TokenizerSpec, texts: Sequence[str]) -> Tokenizer:
    """Train a small tokenizer of the given kind on `texts` and the language reference that Python carries with it."""
    _require_text(texts)
    own = "\n".join(texts)[:LONGEST_TRAINING_TEXT]
    # Twice, so that also a word that occurs once is frequent enough to be joined.
    corpus = [own, own, *pydoc_data.topics.topics.values()]
    changes: dict[str, int | float] = {"vocab_size": min(spec.vocab_size, SMALL_VOCABULARY)}
    if hasattr(spec, "character_coverage"):
        # Beside so much English, every character of a short text in another script would count as a rare one.
        changes["character_coverage"] = 1.0
    return dataclasses.replace(spec, **changes).train(corpus)


def _texts(number: int) -> str:
    return f"{number} text{'' if number == 1 else 's'}"


def _require_text(texts: Sequence[str]) -> None:
    if not any(text.strip() for text in texts):
        raise InputError("The text is empty: give at least one word.")


@contextlib.contextmanager
def _without_progress() -> Iterator[None]:
    """Hide the bars of `prepare`: for a page of text they would only flicker."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
