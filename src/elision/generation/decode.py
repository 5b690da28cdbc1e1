"""Ids in, ids out: one prompt token by token, or many prompts together.

E prompts, R rows (samples of prompts), V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch

from elision.generation.constraints import Constraints
from elision.generation.decoding import Decoding, Symbols
from elision.generation.guessing import guessed
from elision.generation.packing import FEW_ROWS
from elision.generation.reader import Reader, check_writes
from elision.generation.sampling import Choice
from elision.generation.search import beam_search
from elision.generation.step import prepared
from elision.model.language_model import LanguageModel

# Told the number of a prompt and the new ids after it: does the text end there?
Stops = Callable[[int, list[int]], bool]


@dataclasses.dataclass(frozen=True)
class GeneratedIds:
    """New ids after a prompt (without the token that ended them), their log-likelihood, and why there are no more.

    log_likelihood: in nats, of all that was written, its end included, as the model scores it before any penalty or
    temperature. score: what a search compared by, None without one.
    """

    ids: tuple[int, ...]
    log_likelihood: float
    reason: Literal["end", "stop", "length"]
    score: float | None = None


def generate_ids(
    model: LanguageModel,
    prompt: Sequence[int],
    decoding: Decoding = Decoding(),
    symbols: Symbols | None = None,
    *,
    cache: bool = True,
) -> Iterator[int]:
    """Yield new ids after those of the prompt, until `num_tokens` or the end of the text (which is not yielded).

    cache: False reads the whole context again for each token; the result is the same. Stop texts are `stream_text`'s.

    Raises: InputError when the model does not write, or the prompt is empty and nothing starts a text.
    """
    symbols = symbols or Symbols(model.backbone.vocab_size)
    if decoding.num_beams > 1 or decoding.num_given < decoding.num_samples:
        ((best, *_),) = generate_batch_ids(model, [prompt], decoding, symbols, cache=cache)
        return iter(best.ids)
    decoding = dataclasses.replace(decoding, num_samples=1, num_texts=None)
    # What cannot be done must be said when this is called, not when the first token is asked for.
    check_writes(model)
    reader = Reader(model, [prompt], symbols.start, decoding.num_tokens, symbols.limit, cache)
    return _one_by_one(reader, decoding, symbols, Choice(decoding, [prompt]))


def _one_by_one(reader: Reader, decoding: Decoding, symbols: Symbols, choice: Choice) -> Iterator[int]:
    constraints = Constraints(decoding, symbols)
    if _can_guess(reader, decoding, constraints):
        for token, _ in guessed(reader, decoding.num_tokens, decoding.draft_tokens):
            if token in symbols.ends:
                return
            yield token
        return
    for number in range(decoding.num_tokens):
        with torch.inference_mode():
            scores_RV = reader.scores
            if constraints.any:
                scores_RV = constraints(scores_RV, reader.written, number, reader.read_from)
            taken = choice(scores_RV)
            token = int(taken)
        if token in symbols.ends:
            return
        yield token
        if number + 1 < decoding.num_tokens:
            reader.read(taken)


def _can_guess(reader: Reader, decoding: Decoding, constraints: Constraints) -> bool:
    """Whether tokens may be read on trial: nothing but the scores of the model decides what follows."""
    greedy = decoding.temperature == 0 and not constraints.any
    return greedy and decoding.draft_tokens > 0 and reader.room_to_guess > 0


def generate_batch_ids(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding = Decoding(),
    symbols: Symbols | None = None,
    *,
    stops: Stops | None = None,
    num_rows: int = 16,
    cache: bool = True,
    hear: Callable[[int], None] = lambda done: None,
) -> list[list[GeneratedIds]]:
    """Return what is written after each prompt, `decoding.num_given` texts each; alone each prompt would get the same.

    num_rows: samples or hypotheses that are written together at most; prompts of similar length share a batch. hear: told how
    many prompts were just done.

    Raises: InputError as `generate_ids` does.
    """
    check_writes(model)
    symbols = symbols or Symbols(model.backbone.vocab_size)
    each = max(decoding.num_beams, decoding.num_samples)
    together = max(1, num_rows // each)
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    results: list[list[GeneratedIds]] = [[] for _ in prompts]
    # Packing weights costs as much as a few steps.
    steps = -(-len(prompts) // together) * decoding.num_tokens
    weights = prepared(model, packed=each * min(together, len(prompts)) > FEW_ROWS and steps > 8)
    for begin in range(0, len(order), together):
        chosen = order[begin : begin + together]
        own = None if stops is None else (lambda at, ids, chosen=chosen: stops(chosen[at], ids))
        batch = [prompts[at] for at in chosen]
        reader = Reader(model, batch, symbols.start, decoding.num_tokens, symbols.limit, cache, weights)
        if decoding.num_beams > 1:
            written = _searched(reader, decoding, symbols, own)
        else:
            written = _drawn(reader, batch, decoding, symbols, own)
        for at, texts in zip(chosen, written, strict=True):
            results[at] = texts
        hear(len(chosen))
    return results


def _searched(reader: Reader, decoding: Decoding, symbols: Symbols, stops: Stops | None) -> list[list[GeneratedIds]]:
    results = []
    for example, texts in enumerate(beam_search(reader, decoding, symbols, stops)):
        results.append([])
        for text in texts:
            ended = text.ids[-1] in symbols.ends
            stopped = not ended and stops is not None and stops(example, list(text.ids))
            ids = text.ids[:-1] if ended else text.ids
            reason = "end" if ended else "stop" if stopped else "length"
            results[-1].append(GeneratedIds(ids, text.log_likelihood, reason, text.score))
    return results


@torch.inference_mode()
def _drawn(
    reader: Reader, prompts: Sequence[Sequence[int]], decoding: Decoding, symbols: Symbols, stops: Stops | None
) -> list[list[GeneratedIds]]:
    each, constraints, choice = decoding.num_samples, Constraints(decoding, symbols), Choice(decoding, prompts)
    exact = torch.promote_types(reader.scores.dtype, torch.float32)
    if _can_guess(reader, decoding, constraints):
        return [[_guessed_text(reader, decoding, symbols, stops)]]
    reader.repeat(each)
    num_rows = reader.num_rows
    ids: list[list[int]] = [[] for _ in range(num_rows)]
    reasons: list[Literal["end", "stop", "length"]] = ["length"] * num_rows
    totals = [0.0] * num_rows
    # Rows in the reader, by their number at the beginning, and whether each still goes on.
    live, going = list(range(num_rows)), [True] * num_rows
    for number in range(decoding.num_tokens):
        raw_RV = scores_RV = reader.scores
        norm_R = raw_RV.to(exact).logsumexp(-1)
        if constraints.any:
            scores_RV = constraints(raw_RV.clone(), reader.written, number, reader.read_from)
        taken = choice(scores_RV)
        chosen_R = raw_RV.gather(1, taken[:, None])[:, 0].to(exact) - norm_R
        for row, token, log_likelihood in zip(live, taken.tolist(), chosen_R.tolist(), strict=True):
            if not going[row]:
                continue
            totals[row] += log_likelihood
            if token in symbols.ends:
                going[row], reasons[row] = False, "end"
                continue
            ids[row].append(token)
            if stops is not None and stops(row // each, ids[row]):
                going[row], reasons[row] = False, "stop"
        # Prompts that are done make room, but moving the others has its price.
        rows = examples = None
        done = {row // each for row in live} - {row // each for row in live if going[row]}
        if done and 4 * len(done) * each >= len(live):
            stay = [at for at, row in enumerate(live) if row // each not in done]
            rows = torch.tensor(stay, dtype=torch.long, device=taken.device)
            examples, taken = rows[::each] // each, taken[rows]
            live = [live[at] for at in stay]
            choice.keep(stay)
        if not live or number + 1 == decoding.num_tokens:
            break
        reader.read(taken, rows, examples)
    texts = [GeneratedIds(tuple(ids[row]), totals[row], reasons[row]) for row in range(num_rows)]
    grouped = [texts[at : at + each] for at in range(0, num_rows, each)]
    if decoding.num_given < each:
        grouped = [sorted(group, key=lambda text: -text.log_likelihood)[: decoding.num_given] for group in grouped]
    return grouped


def _guessed_text(reader: Reader, decoding: Decoding, symbols: Symbols, stops: Stops | None) -> GeneratedIds:
    ids: list[int] = []
    exact = torch.promote_types(reader.scores.dtype, torch.float32)
    total, reason = 0.0, "length"
    for token, scores_V in guessed(reader, decoding.num_tokens, decoding.draft_tokens):
        scores_V = scores_V.to(exact)
        total += float(scores_V[token] - scores_V.logsumexp(0))
        if token in symbols.ends:
            reason = "end"
            break
        ids.append(token)
        if stops is not None and stops(0, ids):
            reason = "stop"
            break
    return GeneratedIds(tuple(ids), total, reason)
