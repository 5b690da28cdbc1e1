"""How good a pretrained model is on held-out text, beside what counting achieves at the very same places.

N places with a target, E examples.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from elision.data.batch import Batch
from elision.data.store import Store
from elision.errors import InputError
from elision.loaded import Loaded
from elision.tasks.baselines import UNKNOWN, NgramModel
from elision.tasks.restoring import Restored
from elision.train.precision import autocast, compute_dtype
from elision.train.pretrain import loader_of

EXAMPLES_PER_BATCH = 32

# The term of what is written without the symbols in it.
WRITTEN = "written"


@dataclasses.dataclass(frozen=True)
class Measured:
    """One line of an evaluation: what was measured, of which model, over how many places or examples.

    loss in nats for each; accuracy from 0 to 1; bits_per_byte only where tokens are predicted.
    """

    term: str
    model: str
    num: int
    loss: float | None
    accuracy: float | None
    bits_per_byte: float | None = None

    @property
    def perplexity(self) -> float | None:
        """exp(loss), where tokens are predicted."""
        return None if self.bits_per_byte is None or self.loss is None else math.exp(min(self.loss, 700.0))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of a model on one split of a store."""

    name: str
    split: str
    num_examples: int
    restores: str
    """which tokens are predicted: "next" or "masked" ones"""
    lines: list[Measured]
    num_baseline_tokens: int | None
    """on how many training tokens the baselines were counted"""


def evaluate_model(
    loaded: Loaded,
    store: Store,
    split: str = "validation",
    *,
    num_examples: int = 512,
    baselines: bool = True,
    max_baseline_tokens: int = 20_000_000,
    precision: str = "auto",
    advance: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Measure every objective of a model on the first examples of a fixed shuffled order, always with the same noise.

    Baselines are counted on the training split and asked for the same targets, given the true tokens to their left as
    far as they lie in the example. `advance` hears of every example done.

    Raises: InputError when the store was made with another tokenizer, or the model predicts no tokens.
    """
    check_tokenizer(loaded, store)
    recipe, vocabulary = loaded.recipe, store.tokenizer.vocabulary
    part = store.split(split)
    for kind in recipe.kinds:
        kind.check(vocabulary)
    loader = loader_of(recipe, part, vocabulary, EXAMPLES_PER_BATCH)
    num_examples = min(num_examples, len(loader.plan))
    places = _Places()
    carry = None
    writes = recipe.noise.restores == "sequence"
    with torch.no_grad():
        for batch in loader.in_order(num_examples):
            carry = _measure(
                loaded, batch, carry, recipe.noise.restores, places, compute_dtype(precision, loaded.device)
            )
            advance(batch.num_examples)
    bits_per_nat = part.num_tokens / part.num_bytes / math.log(2)
    # What is written holds symbols that are no text, so it has lines of its own below.
    token_term = loaded.model.token_objective.token_term if loaded.model.token_objective and not writes else None
    lines, counted = [], None
    for name, (total, count) in places.terms.items():
        right, out_of = places.right.get(name, (0, 0))
        accuracy = right / out_of if out_of else None
        bits = total / count * bits_per_nat if name == token_term else None
        lines.append(Measured(name, "model", count, total / count, accuracy, bits))
        if name in places.labels:
            labels = np.concatenate(places.labels[name])
            share = np.bincount(labels) / len(labels)
            entropy = float(-(share[share > 0] * np.log(share[share > 0])).sum())
            lines.append(Measured(name, "majority", count, entropy, float(share.max())))
        if name == token_term and baselines:
            separator = vocabulary.eos if recipe.noise.restores == "next" else None
            grams = NgramModel.fit(store.split("train"), vocabulary, max_baseline_tokens, separator)
            counted = grams.num_tokens
            lines += _baselines(grams, name, places, bits_per_nat)
    if writes and places.restored.num:
        done = places.restored
        loss = done.nats / done.num
        lines.append(Measured(WRITTEN, "model", done.num, loss, done.right / done.num, loss * bits_per_nat))
        if baselines:
            grams = NgramModel.fit(store.split("train"), vocabulary, max_baseline_tokens)
            counted = grams.num_tokens
            lines += _baselines(grams, WRITTEN, places, bits_per_nat)
            lines.append(Measured(WRITTEN, "copying", done.num, None, done.copied_right / done.num))
    return Evaluation(recipe.name, split, num_examples, recipe.noise.restores, lines, counted)


def check_tokenizer(loaded: Loaded, store: Store) -> None:
    """Raise InputError, naming both, when model and store have different tokenizers."""
    mine, other = loaded.tokenizer.fingerprint, store.tokenizer_fingerprint
    if mine != other:
        raise InputError(
            f"the store {store.path} was made with another tokenizer ({other[:12]}, {store.tokenizer.vocabulary.size} "
            f"symbols) than the model {loaded.path} ({mine[:12]}, {loaded.tokenizer.vocabulary.size} symbols): prepare "
            f"the text again with --tokenizer {loaded.path}"
        )


class _Places:
    """What is gathered over the batches: sums of terms, hits, and the targets with their true contexts."""

    def __init__(self) -> None:
        self.terms: dict[str, tuple[float, int]] = {}
        self.right: dict[str, tuple[int, int]] = {}
        self.labels: dict[str, list[np.ndarray]] = {}
        self.targets: list[np.ndarray] = []
        self.contexts: list[np.ndarray] = []
        self.restored = Restored()

    def add(self, held: dict, name: str, value: float, count: int) -> None:
        """Add a value and a count to those of `name`."""
        before = held.get(name, (0, 0))
        held[name] = (before[0] + value, before[1] + count)


def _measure(
    loaded: Loaded,
    batch: Batch,
    carry: dict[str, Tensor] | None,
    restores: str,
    places: _Places,
    dtype: torch.dtype,
) -> dict[str, Tensor] | None:
    model = loaded.model
    with autocast(loaded.device, dtype):
        done = model.run(batch.to(loaded.device), carry)
        for name, term in done.terms.items():
            places.add(places.terms, name, float(term.sum), term.count)
        for name, judged in model.judge(done).items():
            places.add(places.right, name, int(judged.right), judged.count)
            if judged.labels is not None:
                places.labels.setdefault(name, []).append(judged.labels.cpu().numpy())
    if not batch.turn:
        # The baselines are asked for what the first kind of batches asks for.
        special = loaded.tokenizer.vocabulary.special
        targets, contexts = true_contexts(batch, restores, special)
        if restores == "sequence":
            with autocast(loaded.device, dtype):
                places.restored.add(model, done, special)
            text = ~special[targets]
            targets, contexts = targets[text], contexts[text]
        places.targets.append(targets)
        places.contexts.append(contexts)
    return done.output.carry


def true_contexts(batch: Batch, restores: str, special: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets int [N] of a batch and the two true tokens to the left of each, int [N, 2].

    What lies outside the document, or is a symbol that frames an example, is `UNKNOWN`; the end of text that a causal
    model reads as a token is kept.

    A worked example: masked inputs 2 10 4 12 3 with target 11 at the third place (2 and 3 special) give target 11 with
    context UNKNOWN 10; next-token inputs 10 11 with targets 11 12 give 11 after UNKNOWN 10, and 12 after 10 11. Of what is
    written, the tokens written before are the context.
    """
    inputs, targets, documents = batch.written_inputs.numpy(), batch.targets.numpy(), batch.written_doc_ids.numpy()
    in_place = restores in ("masked", "permuted")
    original = np.where(targets >= 0, targets, inputs) if in_place else inputs
    if in_place or restores == "sequence":
        original = np.where(special[original], UNKNOWN, original)
    # The nearest token to the left of a place that is restored is one before it; of a next token, the place itself.
    shift = 1 if in_place else 0
    at = batch.target_at.numpy()
    if restores == "neighbouring":
        # Of two streams only the first is read forward, as the baselines read.
        at = at[documents.reshape(-1)[at] == 1]
    columns = []
    for back in (shift + 1, shift):
        seen = np.full_like(original, UNKNOWN)
        width = original.shape[1] - back
        same = documents[:, back:] == documents[:, :width]
        seen[:, back:] = np.where(same, original[:, :width], UNKNOWN)
        columns.append(seen.reshape(-1)[at])
    farther, nearer = columns
    return targets.reshape(-1)[at], np.stack([np.where(nearer < 0, UNKNOWN, farther), nearer], 1)


def _baselines(grams: NgramModel, term: str, places: _Places, bits_per_nat: float) -> list[Measured]:
    targets, contexts = np.concatenate(places.targets), np.concatenate(places.contexts)
    lines = []
    for order, model in ((1, "unigram"), (3, "trigram")):
        loss = -float(grams.log_probability(contexts, targets, order).mean())
        accuracy = float((grams.best(contexts, order) == targets).mean())
        lines.append(Measured(term, model, len(targets), loss, accuracy, loss * bits_per_nat))
    return lines
