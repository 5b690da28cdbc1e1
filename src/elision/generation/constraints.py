"""What changes the scores of the next token before one is chosen, whoever chooses.

R rows, L tokens of a row so far, V vocabulary, N tokens of an n-gram.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.generation.decoding import Decoding, Symbols


@dataclasses.dataclass(eq=False, slots=True)
class Written:
    """The tokens of each row so far, what it began with included: ids [R, L], after padding [R] places of none."""

    ids: Tensor
    padding: Tensor

    def rows(self, at: Tensor) -> "Written":
        """Return the given rows."""
        return Written(self.ids.index_select(0, at), self.padding.index_select(0, at))


@dataclasses.dataclass(frozen=True)
class Constraints:
    """Penalties and bans; scores are changed in place."""

    decoding: Decoding
    symbols: Symbols

    @property
    def any(self) -> bool:
        """Whether there is anything that it would ever change."""
        asked, symbols = self.decoding, self.symbols
        return bool(
            asked.repetition_penalty != 1
            or asked.no_repeat_ngram
            or asked.no_repeat_source_ngram
            or symbols.bad
            or (asked.min_tokens and symbols.ends)
            or symbols.first is not None
            or symbols.last is not None
        )

    def __call__(self, scores_RV: Tensor, written: Written, num_new: int, read: Written | None) -> Tensor:
        """Return the scores of token number `num_new` (from 0) after `written`.

        read: what each row was written from, for n-grams that must not be copied from there.
        """
        asked, symbols = self.decoding, self.symbols
        if asked.repetition_penalty != 1:
            self._penalise(scores_RV, written)
        if asked.no_repeat_ngram:
            ban_ngrams(scores_RV, written, written, asked.no_repeat_ngram)
        if asked.no_repeat_source_ngram and read is not None:
            ban_ngrams(scores_RV, written, read, asked.no_repeat_source_ngram)
        for sequence in symbols.bad:
            if len(sequence) == 1:
                if sequence[0] not in symbols.ends:
                    scores_RV[:, sequence[0]] = float("-inf")
            elif len(sequence) - 1 <= written.ids.shape[1]:
                before = torch.tensor(sequence[:-1], device=scores_RV.device)
                follows = (written.ids[:, 1 - len(sequence) :] == before).all(1)
                follows &= written.ids.shape[1] - written.padding >= len(sequence) - 1
                scores_RV[:, sequence[-1]].masked_fill_(follows, float("-inf"))
        if num_new < asked.min_tokens and symbols.ends:
            scores_RV[:, list(symbols.ends)] = float("-inf")
        if num_new == 0 and symbols.first is not None:
            return _only(scores_RV, symbols.first)
        if num_new == asked.num_tokens - 1 and symbols.last is not None:
            return _only(scores_RV, symbols.last)
        return scores_RV

    def _penalise(self, scores_RV: Tensor, written: Written) -> None:
        places = torch.arange(written.ids.shape[1], device=scores_RV.device)
        # Padding repeats the first token of its row, which is penalised once however often it stands there.
        ids_RL = written.ids.gather(1, torch.maximum(places[None], written.padding[:, None]))
        # Tokens that cannot be written (a start symbol may be one) go to a column of their own.
        ids_RL = ids_RL.clamp(max=scores_RV.shape[1])
        padded_RV = F.pad(scores_RV, (0, 1))
        before_RL = padded_RV.gather(1, ids_RL)
        penalty, after_RL = self.decoding.repetition_penalty, before_RL / self.decoding.repetition_penalty
        if self.decoding.penalty_rule == "sign":
            after_RL = torch.where(before_RL < 0, before_RL * penalty, after_RL)
        if self.symbols.exempt:
            exempt_RL = torch.isin(ids_RL, torch.tensor(self.symbols.exempt, device=scores_RV.device))
            after_RL = torch.where(exempt_RL, before_RL, after_RL)
        scores_RV.copy_(padded_RV.scatter_(1, ids_RL, after_RL)[:, :-1])


def ban_ngrams(scores_RV: Tensor, written: Written, among: Written, size: int) -> None:
    """Ban, in place, every token that would complete an n-gram of `size` tokens that stands in `among`."""
    length = written.ids.shape[1]
    if length < size - 1 or among.ids.shape[1] < size:
        return
    windows_RKN = among.ids.unfold(1, size, 1)
    last_RN = written.ids[:, length - size + 1 :]
    same_RK = (windows_RKN[..., :-1] == last_RN[:, None]).all(-1)
    same_RK &= torch.arange(windows_RKN.shape[1], device=scores_RV.device)[None] >= among.padding[:, None]
    same_RK &= (length - written.padding >= size - 1)[:, None]
    last_RK = windows_RKN[..., -1]
    same_RK &= last_RK < scores_RV.shape[1]
    rows, windows = same_RK.nonzero(as_tuple=True)
    scores_RV[rows, last_RK[rows, windows]] = float("-inf")


def _only(scores_RV: Tensor, token: int) -> Tensor:
    alone_RV = torch.full_like(scores_RV, float("-inf"))
    alone_RV[:, token] = 0.0
    return alone_RV
