"""The whole road once, on real text that is already on the machine: what `elision demo` does, step by step.

Read it as an example of the Python interface: prepare, pretrain, evaluate, fill, fine-tune, export.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import elision
from elision import recipes
from elision.atomic import locked
from elision.data.order import generator
from elision.data.store import Split, Store
from elision.export.writing import write_folder
from elision.loaded import Loaded
from elision.recipe import Recipe
from elision.tasks.classify import FineTune, finetune_classifier
from elision.tasks.evaluate import Evaluation, evaluate_model
from elision.text.library_task import library_task
from elision.text.prepare import prepare
from elision.text.pydocs import PydocsSource
from elision.text.tokenizer import WordPiece
from elision.text.vocabulary import Vocabulary
from elision.train.loop import Progress, Run, fit
from elision.train.pretrain import prepare_run

VOCAB_SIZE = 8192
LENGTH = 64
SEEDS = (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Blank:
    """A held-out sentence with one word left out, and what the model offers for it."""

    before: str
    truth: str
    after: str
    offers: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Accuracy on the labelled task for each seed, with and without the pretrained weights, and of the majority."""

    labels: tuple[str, ...]
    num_train: int
    num_valid: int
    pretrained: tuple[float, ...]
    scratch: tuple[float, ...]
    majority: float


def demo_recipe(minutes: float, size: str) -> Recipe:
    """Return BERT with settings for minutes instead of days.

    The published ones are for a million steps of 256 examples. Here a model sees little more than one pass over the
    text, so it cannot overfit and dropout would only slow it down; the wider initialisation lets so narrow a network
    leave the unigram plateau within the first minute (LOG.md, 2026-11-22); short examples make many updates.
    """
    recipe = recipes.get(f"bert-{size}").override(
        {
            "segmenter.max_length": LENGTH,
            "backbone.dropout": 0.0,
            "backbone.attention_dropout": 0.0,
            "backbone.init.std": 0.08,
            "train.batch_size": 64,
            "train.budget": f"{minutes}min",
            "train.optimizer.learning_rate": 1e-3,
            "train.schedule.warmup": 0.06,
            "train.eval_examples": 384,
        }
    )
    return dataclasses.replace(recipe, name=f"bert-{size}-demo")


def prepare_store(out: Path) -> Store:
    """Tokenise the documentation on this machine, with a WordPiece tokenizer trained on it."""
    return prepare([PydocsSource()], out, WordPiece(vocab_size=VOCAB_SIZE, lowercase=True), sample_megabytes=10)


def pretrain(
    recipe: Recipe, store: Store, out: Path, begin: Callable[[Run], None], report: Callable[[Progress], None]
) -> None:
    """Pretrain in `out`, or go on with what is there."""
    with locked(out, "trained"):
        run = prepare_run(recipe, store, out, report=report)
        begin(run)
        fit(run)


def untrained(run: Run, store: Store) -> Evaluation:
    """Measure the model before its first step, and n-gram baselines, at the places that the run evaluates."""
    recipe = dataclasses.replace(Recipe.load(run.folder / "recipe.json"), train=run.train)
    fresh = Loaded(run.folder, run.model.eval(), recipe, store.tokenizer, None, [])
    evaluation = evaluate_model(fresh, store, num_examples=run.train.eval_examples)
    run.model.train()
    return evaluation


def fill_blanks(model: Loaded, split: Split, count: int, seed: int = 5) -> list[Blank]:
    """Leave one word out of `count` held-out sentences and ask the model for it."""
    tokenizer, vocabulary = model.tokenizer, model.tokenizer.vocabulary
    mask, blanks = vocabulary.require("mask"), []
    for ids, place in _sentences_with_a_word(split, vocabulary, generator(seed, "demo blanks")):
        framed = torch.tensor([vocabulary.require("cls"), *ids, vocabulary.require("sep")])
        framed[place + 1] = mask
        probability = model.logits(framed)[0, place + 1].softmax(-1)
        probability[torch.tensor(vocabulary.special)] = 0
        top = probability.topk(3)
        offers = tuple((tokenizer.decode([i]), p) for p, i in zip(top.values.tolist(), top.indices.tolist()))
        before, truth, after = (
            tokenizer.decode(part) for part in (ids[:place], ids[place : place + 1], ids[place + 1 :])
        )
        blanks.append(Blank(before, truth, after, offers))
        if len(blanks) == count:
            break
    return blanks


def _sentences_with_a_word(
    split: Split, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[tuple[list[int], int]]:
    """Yield sentences of 10 to 26 tokens and the place of a word in them that is one token of three letters or more."""
    starts = split.sentence_starts
    for sentence in rng.permutation(split.num_sentences):
        ids = split.tokens(int(starts[sentence]), int(starts[sentence + 1])).astype(int).tolist()
        if not 10 <= len(ids) <= 26 or any(vocabulary.special[ids]):
            continue
        continued = [*vocabulary.continues_word[ids[1:]], False]
        whole = [i for i in range(3, len(ids) - 1) if not (vocabulary.continues_word[ids[i]] or continued[i])]
        if len(whole) >= 5:
            yield ids, int(rng.choice(whole))


def compare(model: Path, out: Path, report: Callable[[str, int, float], None]) -> Comparison:
    """Fine-tune on the library task with and without the pretrained weights: same rows, budget and seeds."""
    task = library_task()
    train = [(row["text"], row["label"]) for row in task.train]
    valid = [(row["text"], row["label"]) for row in task.valid]
    loaded = elision.load(model)
    scores: dict[str, list[float]] = {"pretrained": [], "scratch": []}
    majority = 0.0
    for seed in SEEDS:
        for name, from_scratch in (("pretrained", False), ("scratch", True)):
            settings = FineTune(epochs=12, learning_rate=1e-3, seed=seed, from_scratch=from_scratch, max_length=LENGTH)
            result = finetune_classifier(loaded, train, valid, out / f"{name}-{seed}", settings)
            scores[name].append(result.metrics["accuracy"])
            majority = result.baseline.value
            report(name, seed, scores[name][-1])
    return Comparison(
        tuple(task.labels), len(train), len(valid), tuple(scores["pretrained"]), tuple(scores["scratch"]), majority
    )


def mean_and_spread(values: tuple[float, ...]) -> str:
    """Write values as mean ± standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def export(model: Path, out: Path) -> None:
    """Write the Hugging Face folder."""
    write_folder(elision.load(model), out, overwrite=True)
