"""Checks that the settings of several optimisers share."""

from elision.errors import InputError


def check_rate(settings: object) -> None:
    """Raise InputError unless the learning rate is above 0."""
    if settings.learning_rate <= 0:
        raise InputError(f"learning_rate is {settings.learning_rate}: it must be above 0")


def check_fraction(settings: object, name: str) -> None:
    """Raise InputError unless the field lies from 0 to below 1."""
    value = getattr(settings, name)
    if not 0 <= value < 1:
        raise InputError(f"{name} is {value}: give a number from 0 to below 1")
