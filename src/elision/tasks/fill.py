"""Fill the blanks of a text with a masked language model, or with one that writes what was left out."""

import dataclasses
import re
from typing import TYPE_CHECKING

import torch

from elision.errors import InputError
from elision.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from elision.loaded import Loaded

BLANK = re.compile(r"\{mask\}|<mask>|\[MASK\]|_{3,}")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One token for a blank, with its probability among all tokens of the vocabulary.

    From a model that writes: a text of any length (id None), with its share of the probability of all texts that a search
    has found.
    """

    token: str
    id: int | None
    probability: float


@dataclasses.dataclass(frozen=True)
class Filled:
    """A text with its blanks filled.

    `text` has the likeliest token in each blank; `blanks` holds the candidates of each, best first.
    """

    text: str
    blanks: tuple[tuple[Candidate, ...], ...]


def fill(model: "Loaded", text: str, top_k: int = 5) -> Filled:
    """Return the `top_k` likeliest tokens for each blank of `text`: {mask}, <mask>, [MASK] or ___.

    Several blanks are filled independently of each other, as in pretraining, but by a model that writes (T5, BART) one after
    the other, and with texts of any length. Special symbols are not offered.

    Raises: InputError when the text has no blank or is too long, or the model restores nothing.
    """
    objective = model.model.token_objective
    if objective is not None and objective.needs == "sequence":
        return _written(model, text, top_k)
    # An output layer that takes any noise restores what its own recipe leaves out.
    if objective is None or (objective.needs or model.recipe.noise.restores) != "masked":
        trained = ", ".join(objective.name for objective in model.model.objectives)
        raise InputError(
            f"{model.path} cannot fill blanks: it was trained with {trained}, which restores no masked tokens. "
            f"Use `elision generate` for causal language models"
        )
    _check_top_k(top_k)
    tokenizer, vocabulary = model.tokenizer, model.tokenizer.vocabulary
    mask, symbol = vocabulary.require("mask"), tokenizer.roles["mask"]
    text = BLANK.sub(lambda _: symbol, text)
    encoding = tokenizer.raw.encode(text)
    ids = torch.tensor(encoding.ids)
    places = (ids == mask).nonzero()[:, 0]
    if not len(places):
        raise _no_blank(text)
    type_ids = encoding.type_ids if model.recipe.backbone.num_types else None
    limit = min(vocabulary.size, model.model.backbone.vocab_size)
    scores_NV = model.logits(ids, type_ids=type_ids)[0].cpu()[places].float()
    probabilities_NV = torch.softmax(scores_NV, -1)[:, :limit]
    probabilities_NV = probabilities_NV.masked_fill(torch.from_numpy(vocabulary.special[:limit].copy()), -1.0)
    best = probabilities_NV.topk(min(top_k, limit), -1)
    blanks = tuple(
        tuple(
            Candidate(token, int(i), float(p))
            for token, i, p in zip(tokenizer.tokens(row_ids), row_ids, row_probabilities)
            if p >= 0
        )
        for row_ids, row_probabilities in zip(best.indices.tolist(), best.values.tolist())
    )
    around = text.split(symbol)
    if len(around) != len(blanks) + 1:
        # A tokenizer with rules of its own for its symbols: show the text as the tokenizer writes it.
        ids[places] = torch.tensor([candidates[0].id for candidates in blanks])
        return Filled(tokenizer.decode(ids.tolist()), blanks)
    filled = around[0]
    for candidates, after in zip(blanks, around[1:]):
        filled = _append(filled, tokenizer, candidates[0].id) + after
    return Filled(filled, blanks)


def _written(model: "Loaded", text: str, top_k: int) -> Filled:
    from elision.tasks.fill_by_writing import fill_by_writing

    _check_top_k(top_k)
    parts = BLANK.split(text)
    if len(parts) == 1:
        raise _no_blank(text)
    filled, blanks = fill_by_writing(model, parts, top_k)
    return Filled(filled, tuple(tuple(Candidate(word, None, share) for word, share in choices) for choices in blanks))


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise InputError(f"top_k is {top_k}: it must be at least 1")


def _no_blank(text: str) -> InputError:
    return InputError(f"{text!r} has no blank: write [MASK], <mask>, {{mask}} or ___ where a word is missing")


def _append(text: str, tokenizer: Tokenizer, token: int) -> str:
    """Write a token behind a text: as a word, or joined to the word before when it is a piece of one."""
    if not tokenizer.vocabulary.continues_word[token]:
        return text + tokenizer.decode([token]).strip()
    return text.rstrip(" ") + tokenizer.decode([token]).removeprefix("##")
