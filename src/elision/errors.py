"""The one exception that means "what you gave us cannot work", as opposed to a defect of ours."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from a user. The message names the field, the value, the constraint and the fix.

    The command line prints it without a traceback and exits with status 2; every other exception is a defect
    and keeps its traceback.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest of `known`, or an empty string when none is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
