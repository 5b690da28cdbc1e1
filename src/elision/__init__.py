"""elision: pretrain every classic family of language models from raw text, each with its own objective."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elision.loaded import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `elision.load` when it is asked for, so that `import elision` stays instant."""
    if name == "load":
        from elision.loaded import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
