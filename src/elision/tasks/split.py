"""A part of labelled rows held out, for those who have no held-out table."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

from elision.data.order import shuffled
from elision.errors import InputError

Row = TypeVar("Row")


def hold_out(
    rows: Sequence[Row], share: float, group: Callable[[Row], Hashable] | None = None
) -> tuple[list[Row], list[Row]]:
    """Return (the rest, the held-out rows), both in their order; which are held out depends on how many there are alone.

    Rows of one `group` (questions about one context) stay together, and then `share` is that of the groups.

    Raises: InputError when one of the two would be empty.
    """
    if not 0 < share < 1:
        raise InputError(f"hold_out is {share}: give a share above 0 and below 1, or a table with --valid")
    groups = range(len(rows)) if group is None else [group(row) for row in rows]
    number = {each: n for n, each in enumerate(dict.fromkeys(groups))}
    if len(number) < 2:
        raise InputError("there is too little to hold a part of it out: give a held-out table with --valid")
    places = shuffled(np.arange(len(number)), len(number), 0, "held out")
    held = places < min(max(1, round(share * len(number))), len(number) - 1)
    parts: tuple[list[Row], list[Row]] = ([], [])
    for row, each in zip(rows, groups):
        parts[bool(held[number[each]])].append(row)
    return parts
