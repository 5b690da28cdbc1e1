"""The places of examples that have something to be written: what an encoder reads, what a decoder writes, or both in a row."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from elision.data.batch import Batch
from elision.data.example import NO_TARGET, Example
from elision.show.token import Fate, Token
from elision.show.trace import NOWHERE, Trace
from elision.text.tokenizer import Tokenizer


def read_tokens(
    batch: Batch,
    offset: int,
    number: int,
    before: Example,
    after: Example,
    tokenizer: Tokenizer,
    trace: Trace | None,
) -> list[Token]:
    """Return the places of one example on the encoder's side, which begin at `offset` of its row."""
    row = slice(offset, offset + len(after))
    places = None if trace is None else trace.inputs
    tokens = _noised(after.inputs, after.special, before, tokenizer, places, _asked(trace, len(before)))
    unseen = [False] * len(after) if after.unseen is None else after.unseen.tolist()
    languages = _row(batch.languages, row)
    return [
        dataclasses.replace(
            token,
            position=int(batch.positions[0, offset + place]),
            document=int(batch.doc_ids[0, offset + place]),
            example=number,
            language=languages[place],
            side="reads",
            unseen=unseen[place],
        )
        for place, token in enumerate(tokens)
    ]


def written_tokens(
    batch: Batch, offset: int, number: int, after: Example, tokenizer: Tokenizer, trace: Trace | None
) -> list[Token]:
    """Return the places of one example on the decoder's side, which begin at `offset` of its row."""
    size = len(after.decoder_inputs)
    row = slice(offset, offset + size)
    pieces = tokenizer.tokens(after.decoder_inputs)
    languages = _row(batch.decoder_languages, row)
    left_out = _left_out(trace, size, len(after))
    return [
        Token(
            piece=pieces[place],
            original=(pieces[place],),
            dropped=(),
            target=_target(after, place, tokenizer),
            fate=Fate.UNTOUCHED,
            special=bool(tokenizer.vocabulary.special[after.decoder_inputs[place]]),
            position=int(batch.decoder_positions[0, offset + place]),
            document=int(batch.decoder_doc_ids[0, offset + place]),
            example=number,
            segment=None,
            language=languages[place],
            side="writes",
            left_out=left_out[place],
        )
        for place in range(size)
    ]


def joined_tokens(
    batch: Batch,
    offset: int,
    number: int,
    before: Example,
    after: Example,
    tokenizer: Tokenizer,
    trace: Trace | None,
) -> list[Token]:
    """Return the places of one example whose inputs and answer are one text."""
    num_read = int(after.prefix.sum())
    places = None if trace is None else trace.inputs[:num_read]
    inputs, special = after.inputs, tokenizer.vocabulary.special[after.inputs]
    tokens = _noised(inputs[:num_read], special[:num_read], before, tokenizer, places, _asked(trace, len(before)))
    for piece, is_special in zip(tokenizer.tokens(inputs[num_read:]), special[num_read:].tolist()):
        tokens.append(_plain(piece, is_special))
    languages = _row(batch.languages, slice(offset, offset + len(after)))
    left_out = _left_out(trace, len(after), num_read)
    return [
        dataclasses.replace(
            token,
            target=_target(after, place, tokenizer),
            position=int(batch.positions[0, offset + place]),
            document=int(batch.doc_ids[0, offset + place]),
            example=number,
            language=languages[place],
            prefix=place < num_read,
            left_out=left_out[place],
        )
        for place, token in enumerate(tokens)
    ]


def _noised(
    inputs: np.ndarray,
    special: np.ndarray,
    before: Example,
    tokenizer: Tokenizer,
    places: np.ndarray | None,
    asked: frozenset[int],
) -> list[Token]:
    """Return what is read, each with what stood there; places: where it comes from, None where that is not known.

    asked: places of the text that are also to be said, in a noise that does not ask for all of them.
    """
    pieces = tokenizer.tokens(inputs)
    if places is None:
        return [_plain(piece, is_special) for piece, is_special in zip(pieces, special.tolist())]
    text = tokenizer.tokens(before.inputs)
    furthest = np.maximum.accumulate(np.append(NOWHERE, places))[:-1]
    # What only begins and ends texts stands for nothing that was left out.
    frame = {getattr(tokenizer.vocabulary, role) for role in ("pad", "cls", "sep", "bos", "eos")}
    new = (places == NOWHERE) & ~np.isin(inputs, list(frame - {None}))
    stood, dropped = _origins(places, new, len(before))
    tokens = []
    for place, piece in enumerate(pieces):
        found = int(places[place])
        original = tuple(text[slice(*stood[place])])
        fate = Fate.UNTOUCHED
        if found != NOWHERE:
            fate = Fate.KEPT if found in asked and not special[place] else Fate.UNTOUCHED
        elif inputs[place] in frame:
            original = (piece,)
        elif tokenizer.vocabulary.special[inputs[place]]:
            fate = Fate.MASKED
        elif original or places[:place].max(initial=NOWHERE) != NOWHERE:
            # Words that a noise puts before the text say what is to be done with it.
            fate = Fate.REPLACED
        tokens.append(
            dataclasses.replace(
                _plain(piece, bool(special[place]) and fate is not Fate.MASKED),
                original=original,
                dropped=tuple(text[slice(*dropped[place])]),
                fate=fate,
                came_from=None if found == NOWHERE else found,
                moved=NOWHERE != found < furthest[place],
            )
        )
    return tokens


def _origins(places: np.ndarray, new: np.ndarray, length: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return, for each place, which places of the text it stands for, and which vanished just before it.

    What is `new` (bool) stands for the gap in the text that begins where the token before it stood, or ends where the one
    after it does; of several in a row each stands for one token, and the last for all that is left.
    """
    nothing = (0, 0)
    stood = [(int(place), int(place) + 1) if place != NOWHERE else nothing for place in places]
    dropped = [nothing] * len(places)
    gone = np.ones(length, bool)
    gone[places[places != NOWHERE]] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], gone, [False]]).astype(np.int8))).tolist()
    gaps = dict(zip(edges[::2], edges[1::2]))
    begin_of = {end: begin for begin, end in gaps.items()}
    place = 0
    while place < len(places):
        if not new[place]:
            place += 1
            continue
        stop = place
        while stop < len(places) and new[stop]:
            stop += 1
        begin = int(places[place - 1]) + 1 if place else 0
        if begin not in gaps and stop < len(places):
            begin = begin_of.get(int(places[stop]), NOWHERE)
        if begin in gaps:
            end = gaps.pop(begin)
            for each in range(place, stop):
                first = min(begin + each - place, end)
                stood[each] = (first, end if each == stop - 1 else min(first + 1, end))
        place = stop
    before = {int(found): place for place, found in enumerate(places) if found != NOWHERE}
    for begin, end in gaps.items():
        at = before.get(end, before.get(begin - 1, NOWHERE - 1) + 1)
        if 0 <= at < len(places):
            dropped[at] = (begin, end)
    return stood, dropped


def _asked(trace: Trace | None, length: int) -> frozenset[int]:
    """Return the places of the text that are to be said, unless all of them are."""
    if trace is None:
        return frozenset()
    asked = frozenset(trace.targets.tolist()) - {NOWHERE}
    return frozenset() if len(asked) >= length else asked


def _left_out(trace: Trace | None, size: int, num_read: int) -> list[bool]:
    if trace is None:
        return [False] * size
    there = set(trace.inputs[:num_read].tolist())
    return [found != NOWHERE and found not in there for found in trace.targets.tolist()]


def _target(after: Example, place: int, tokenizer: Tokenizer) -> str | None:
    target = int(after.targets[place])
    return None if target == NO_TARGET else tokenizer.tokens([target])[0]


def _plain(piece: str, special: bool) -> Token:
    """Return a place where nothing happened; where it lies is not yet said."""
    return Token(piece, (piece,), (), None, Fate.UNTOUCHED, special, 0, 1, 0, None)


def _row(table: Tensor | None, row: slice) -> Sequence[int | None]:
    return [None] * (row.stop - row.start) if table is None else table[0, row].tolist()
