"""What happens to an example, counted, in plain words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from elision.objectives import Objective
from elision.objectives.token_prediction import TokenPrediction
from elision.show.parts import summary
from elision.show.token import Fate

if TYPE_CHECKING:
    from elision.show.explain import Explanation


def sentences_of(shown: "Explanation", objectives: Sequence[Objective]) -> tuple[str, ...]:
    """Return the sentences, the last of which says who sees whom."""
    others = [
        summary(type(each))
        for each in objectives
        if type(each).before is not Objective.before or not isinstance(each, TokenPrediction)
    ]
    if shown.leaves_out == "sequence":
        said = [_what_is_written(shown), _what_is_left_out(shown), *others]
    else:
        said = [_what_is_asked(shown), _what_is_sampled(shown), *others]
    said += [_what_is_predicted(shown), _what_is_seen(shown)]
    return tuple(filter(None, said))


def _what_is_asked(shown: "Explanation") -> str:
    total, asked = len(shown.tokens), shown.num_targets
    if not asked:
        return f"None of the {total} tokens is to be restored."
    some = f"Each of the {total:,} tokens" if asked == total else f"{asked:,} of {total:,} tokens ({asked / total:.0%})"
    if shown.leaves_out == "neighbouring":
        return (
            f"{some} must predict a neighbour: in the first half, which is read forward, the next one; in the second, "
            f"which is read backward, the one before. The two halves are windows of streams of their own."
        )
    if shown.leaves_out == "permuted":
        return (
            f"{some} are to be restored, one by one in a random order: each from the tokens that are given and from those "
            f"before it in the order, knowing where it stands but not what stands there. Nothing is masked."
        )
    if shown.restores == "next":
        return f"{some} must predict the next one. Nothing but the future is left out."
    if shown.restores == "other":
        return f"{some} must produce another one."
    fate = [
        (shown.count(Fate.MASKED), "hidden by a mask"),
        (shown.count(Fate.REPLACED), "replaced by a random token"),
        (shown.count(Fate.KEPT), "left in place, but asked for all the same"),
    ]
    pieces = [f"{number} {what}" for number, what in fate if number]
    verb = "is" if asked == 1 else "are"
    return f"{some} {verb} to be restored: {', '.join(pieces)}."


def _what_is_sampled(shown: "Explanation") -> str:
    sampled = [token for token in shown.tokens if token.sampled is not None]
    if not sampled:
        return ""
    right = sum(token.sampled == token.target for token in sampled)
    return (
        f"A generator fills the {len(sampled)} places before the model reads them: {right} with the very token that "
        f"stood there, {len(sampled) - right} with another one."
    )


def _what_is_written(shown: "Explanation") -> str:
    asked = shown.num_targets
    if shown.sides[0].name:
        num_read = shown.sides[0].end
        return (
            f"The encoder reads {_tokens(num_read)} and the decoder writes {asked:,}, one after another: each from what is read "
            f"and from the right tokens before it, which stand in the row above what it writes."
        )
    num_read = sum(bool(token.prefix) for token in shown.tokens)
    return (
        f"{_tokens(num_read)} {'is' if num_read == 1 else 'are'} read first; then {asked:,} are written, one after another, in "
        f"the same row: only those are asked for."
    )


def _what_is_left_out(shown: "Explanation") -> str:
    """Return how much of the text is gone and what stands for it; nothing where the answer is another text."""
    read = shown.read
    hidden = [token for token in read if token.fate in (Fate.MASKED, Fate.REPLACED)]
    dropped = sum(len(token.dropped) for token in read)
    masks = [token for token in hidden if token.fate is Fate.MASKED and token.original]
    inserted = sum(not token.original for token in hidden)
    random = sum(len(token.original) for token in hidden if token.fate is Fate.REPLACED)
    counts = [
        (sum(len(token.original) for token in masks), f"behind {_count(len(masks), 'mask')}"),
        (random, "replaced by random tokens" if random > 1 else "replaced by a random one"),
        (dropped, "without a trace"),
    ]
    gone = sum(number for number, _ in counts)
    said = []
    if gone:
        parts = [f"{number} {how}" for number, how in counts if number]
        said.append(f"{_tokens(gone)} of the text {'is' if gone == 1 else 'are'} left out: {', '.join(parts)}.")
    if inserted:
        said.append(f"{_tokens(inserted)} {'stands' if inserted == 1 else 'stand'} for nothing.")
    if any(token.moved for token in read):
        said.append("What is read stands in another order than in the text.")
    left_out = sum(token.left_out for token in shown.tokens)
    if left_out and left_out < shown.num_targets:
        said.append(f"Of what is written, {left_out} of {shown.num_targets} tokens (bold) cannot be read anywhere.")
    return " ".join(said)


def _what_is_predicted(shown: "Explanation") -> str:
    asked = [token for token in shown.tokens if token.predicted is not None]
    if not asked:
        return ""
    right = sum(token.predicted == token.target for token in asked)
    return f"The model's first guess is right at {right} of {_count(len(asked), 'place')} ({right / len(asked):.0%})."


def _what_is_seen(shown: "Explanation") -> str:
    documents = np.array([token.document for token in shown.tokens])
    whole = documents[:, None] == documents[None, :]
    alone = "" if shown.num_documents == 1 else f" The {shown.num_documents} documents do not see each other."
    if shown.sides[0].name:
        return _what_either_side_sees(shown, whole) + alone
    if (shown.visible == whole).all():
        return f"Each place sees its whole document, what precedes and what follows.{alone}"
    if (shown.visible == np.tril(whole)).all():
        return f"Each place sees itself and what precedes it, never what follows.{alone}"
    prefix = np.array([bool(token.prefix) for token in shown.tokens])
    if prefix.any() and (shown.visible == (whole & (prefix | np.tri(len(whole), dtype=bool)))).all():
        return f"Each place sees all that is read first, and of what is written only what precedes it.{alone}"
    seen = shown.visible.sum(1)
    return (
        f"A place sees between {seen.min()} and {seen.max()} of the {len(seen)} places, {seen.mean():.1f} on average."
    )


def _what_either_side_sees(shown: "Explanation", whole: np.ndarray) -> str:
    size = shown.sides[0].end
    said = []
    if (shown.visible[:size, :size] == whole[:size, :size]).all():
        said.append("What is read sees its whole document.")
    hidden = np.array([token.unseen for token in shown.tokens[:size]])
    before = shown.visible[size:, size:] == np.tril(whole[size:, size:])
    if before.all() and (shown.visible[size:, :size] == whole[size:, :size] & ~hidden).all():
        but = f" but the {_count(int(hidden.sum()), 'hidden place')}" if hidden.any() else ""
        said.append(f"What is written sees all that is read{but}, and of what is written itself and what precedes it.")
    if len(said) == 2:
        return " ".join(said)
    seen = shown.visible.sum(1)
    return f"A place sees between {seen.min()} and {seen.max()} places, {seen.mean():.1f} on average."


def _tokens(number: int) -> str:
    return _count(number, "token")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
