"""Beam search: the likeliest text as a whole, as far as a few hypotheses at a time can tell.

As in `transformers`, so that results can be compared: twice as many candidates as beams are looked at, so that enough go on
when some end; a hypothesis that ends among the best K candidates is kept with its score.

E examples, K beams, C candidates, V vocabulary, R = E * K rows.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from elision.generation.constraints import Constraints
from elision.generation.decoding import Decoding, Symbols
from elision.generation.reader import Reader

# The score of what is not there: finite, so that sums stay numbers.
NOTHING = -1e9


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A text that a search has ended: its new ids, their log-likelihood, and the score that it was compared by."""

    ids: tuple[int, ...]
    log_likelihood: float
    score: float


@torch.inference_mode()
def beam_search(
    reader: Reader,
    decoding: Decoding,
    symbols: Symbols,
    stops: Callable[[int, list[int]], bool] | None = None,
    hear: Callable[[int], None] = lambda done: None,
) -> list[list[Hypothesis]]:
    """Return the best hypotheses of each example, best first; `reader` has read the prompts, one row each.

    stops: told an example and new ids, whether the text ends there. hear: told how many examples have ended.
    """
    num_beams, num_tokens, constraints = decoding.num_beams, decoding.num_tokens, Constraints(decoding, symbols)
    num_examples, vocab_size = reader.scores.shape
    device = reader.scores.device
    num_candidates = min(max(2, 1 + len(symbols.ends)) * num_beams, num_beams * vocab_size)
    reader.repeat(num_beams)
    exact = torch.promote_types(reader.scores.dtype, torch.float32)

    # All beams begin alike: only candidates of the first count.
    running_EK = torch.full((num_examples, num_beams), NOTHING, dtype=exact, device=device)
    running_EK[:, 0] = 0.0
    raw_EK = torch.zeros_like(running_EK)
    best_EK = torch.full_like(running_EK, NOTHING)
    ended_EK = torch.zeros_like(running_EK, dtype=torch.bool)
    improvable_E = torch.ones(num_examples, dtype=torch.bool, device=device)
    found: list[list[Hypothesis | None]] = [[None] * num_beams for _ in range(num_examples)]
    results: list[list[Hypothesis]] = [[] for _ in range(num_examples)]
    # The examples that are still searched for, by their number at the beginning.
    live = list(range(num_examples))
    ends = torch.tensor(symbols.ends, dtype=torch.long, device=device)

    for length in range(1, num_tokens + 1):
        raw_RV = torch.log_softmax(reader.scores.to(exact), -1)
        score_RV = raw_RV
        if constraints.any:
            score_RV = constraints(raw_RV.clone(), reader.written, reader.num_new, reader.read_from)
        total_EKV = score_RV.view(len(live), num_beams, -1) + running_EK[:, :, None]
        candidate_EC, index_EC = total_EKV.flatten(1).topk(num_candidates)
        beam_EC, token_EC = index_EC // vocab_size, index_EC % vocab_size
        raw_EC = raw_EK.gather(1, beam_EC) + raw_RV.view(len(live), -1).gather(1, index_EC)
        hit_EC = torch.isin(token_EC, ends) if len(ends) else torch.zeros_like(token_EC, dtype=torch.bool)
        if length == num_tokens:
            hit_EC = torch.ones_like(hit_EC)
        elif stops is not None:
            hit_EC = hit_EC | _stopped(stops, live, reader, beam_EC, token_EC, num_beams)

        # What ends now is kept if it is better than what has ended before.
        ends_now_EC = hit_EC.clone()
        ends_now_EC[:, num_beams:] = False
        final_EC = candidate_EC / decoding.normaliser(length)
        closed_E = ~improvable_E
        if decoding.early_stopping == "full":
            closed_E = closed_E | ended_EK.all(1)
        final_EC = final_EC + NOTHING * (closed_E[:, None].to(exact) + (~ends_now_EC).to(exact))
        best_EK, chosen_EK = torch.cat([best_EK, final_EC], 1).topk(num_beams)
        ended_EK = torch.cat([ended_EK, ends_now_EC], 1).gather(1, chosen_EK)
        if bool((chosen_EK >= num_beams).any()):
            _keep(found, live, chosen_EK, best_EK, ends_now_EC, raw_EC, beam_EC, token_EC, reader)

        # What goes on.
        running_EK, at_EK = (candidate_EC + NOTHING * hit_EC.to(exact)).topk(num_beams)
        raw_EK, beam_EK, token_EK = (each.gather(1, at_EK) for each in (raw_EC, beam_EC, token_EC))
        hoped = num_tokens if decoding.early_stopping == "certain" and decoding.length_penalty > 0 else length
        possible_E1 = running_EK[:, :1] / decoding.normaliser(hoped)
        worst_EK = torch.where(ended_EK, best_EK.amin(1, keepdim=True), NOTHING)
        improvable_E &= (possible_E1 > worst_EK).any(1)

        done_E = ~improvable_E | hit_EC.all(1)
        if decoding.early_stopping == "full":
            done_E |= ended_EK.all(1)
        done = done_E.tolist()
        if any(done):
            for example, ended in zip(live, done, strict=True):
                if ended:
                    given = decoding.num_texts or 1
                    results[example] = [text for text in found[example][:given] if text is not None]
            live = [example for example, ended in zip(live, done, strict=True) if not ended]
            hear(num_examples - len(live))
            if not live:
                break
        stay = (~done_E).nonzero()[:, 0]
        rows_R = (stay[:, None] * num_beams + beam_EK[stay]).flatten()
        token_R = token_EK[stay].flatten()
        if any(done):
            running_EK, raw_EK, best_EK, ended_EK = (each[stay] for each in (running_EK, raw_EK, best_EK, ended_EK))
            improvable_E = improvable_E[stay]
        reader.read(token_R, rows_R, stay if any(done) else None)
    return results


def _new_ids(reader: Reader, row: int) -> list[int]:
    return reader.written.ids[row, reader.written.ids.shape[1] - reader.num_new :].tolist()


def _keep(
    found: list[list[Hypothesis | None]],
    live: list[int],
    chosen_EK: Tensor,
    best_EK: Tensor,
    ends_now_EC: Tensor,
    raw_EC: Tensor,
    beam_EC: Tensor,
    token_EC: Tensor,
    reader: Reader,
) -> None:
    """Write down the hypotheses that have ended, in the order of their scores."""
    num_beams = chosen_EK.shape[1]
    for at, (example, chosen) in enumerate(zip(live, chosen_EK.tolist(), strict=True)):
        before, after = found[example], []
        for rank, index in enumerate(chosen):
            candidate = index - num_beams
            if candidate < 0:
                after.append(before[index])
            elif not ends_now_EC[at, candidate]:
                after.append(None)
            else:
                ids = _new_ids(reader, at * num_beams + int(beam_EC[at, candidate]))
                text = (*ids, int(token_EC[at, candidate]))
                after.append(Hypothesis(text, float(raw_EC[at, candidate]), float(best_EK[at, rank])))
        found[example] = after


def _stopped(
    stops: Callable[[int, list[int]], bool],
    live: list[int],
    reader: Reader,
    beam_EC: Tensor,
    token_EC: Tensor,
    num_beams: int,
) -> Tensor:
    hits = [
        [
            stops(example, [*_new_ids(reader, at * num_beams + beam), token])
            for beam, token in zip(beams, tokens, strict=True)
        ]
        for at, (example, beams, tokens) in enumerate(zip(live, beam_EC.tolist(), token_EC.tolist(), strict=True))
    ]
    return torch.tensor(hits, dtype=torch.bool, device=token_EC.device)
