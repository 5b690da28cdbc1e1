"""Checks that the settings of several noises share."""

from elision.errors import InputError


def check_share(settings: object, name: str) -> None:
    """Raise InputError unless the field is a share, 0 to 1."""
    value = getattr(settings, name)
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: it is a share, give a number from 0 to 1")
