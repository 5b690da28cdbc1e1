"""Checks that the settings of several noises share."""

from elision.errors import InputError


def check_share(settings: object, name: str) -> None:
    """Raise InputError unless the field is a share, 0 to 1."""
    value = getattr(settings, name)
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: it is a share, give a number from 0 to 1")


def check_fates(settings: object) -> None:
    """Raise InputError unless `mask_share` and `random_share` are shares of one whole."""
    check_share(settings, "mask_share")
    check_share(settings, "random_share")
    if settings.mask_share + settings.random_share > 1 + 1e-9:
        raise InputError(
            f"mask_share {settings.mask_share} + random_share {settings.random_share} exceed 1: lower one of them"
        )


def check_budget(settings: object) -> None:
    """Raise InputError unless `max_targets` is None or at least 1."""
    if settings.max_targets is not None and settings.max_targets < 1:
        raise InputError(f"max_targets is {settings.max_targets}: it must be at least 1, or None for no cap")
