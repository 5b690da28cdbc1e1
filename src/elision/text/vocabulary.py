"""What models and noise need to know of a tokenizer: its size, its special symbols, where words begin."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from elision.errors import InputError

ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")

# What to train for these symbols, in the options of `elision prepare`.
_FRAME = (
    "--tokenizer wordpiece, --tokenizer unigram --layout albert (or xlnet, xlm-r), or --tokenizer bpe --layout roberta"
)
_BEGIN = "--tokenizer bpe, or --tokenizer unigram --layout xlnet (or xlm-r)"
_END = "--tokenizer bpe, or --tokenizer unigram --layout t5 (or xlnet, xlm-r)"
_ANY = "--tokenizer wordpiece, --tokenizer unigram, or --tokenizer bpe --layout roberta"
KINDS_WITH = {"pad": _ANY, "unk": _ANY, "cls": _FRAME, "sep": _FRAME, "mask": _FRAME, "bos": _BEGIN, "eos": _END}


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The symbols of a tokenizer, without the tokenizer.

    `special` and `continues_word` are boolean arrays of length `size`: which ids are special symbols, and which ids
    continue the word that the id before them belongs to ("##ing" in WordPiece, "ing" without its leading space in
    byte-level BPE and Unigram). `counts`, int64 [size], is how often each id stands in the training text; None where
    nobody has counted (a noise asks for it with `needs_counts`). `full_stop` and `spaceless`, bool [size] or None: which ids
    are full stops by themselves, and which are written in a script that puts no spaces between words. `sentinels`, int64
    [s], are the symbols that stand for left-out spans (<extra_id_0>, <extra_id_1> ...), in the order of their use.
    `symbols` gives the id of each special symbol by how it is written.
    """

    size: int
    special: np.ndarray
    continues_word: np.ndarray
    pad: int | None = None
    unk: int | None = None
    cls: int | None = None
    sep: int | None = None
    mask: int | None = None
    bos: int | None = None
    eos: int | None = None
    counts: np.ndarray | None = None
    full_stop: np.ndarray | None = None
    spaceless: np.ndarray | None = None
    symbols: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sentinels: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))

    def require(self, role: str) -> int:
        """Return the id of a special symbol that a component cannot do without."""
        value = getattr(self, role)
        if value is None:
            have = ", ".join(name for name in ROLES if getattr(self, name) is not None) or "none"
            raise InputError(
                f"The tokenizer has no {role!r} token (it has: {have}), which this recipe needs. "
                f"Train one that has it with `elision prepare --recipe NAME`, or with {KINDS_WITH[role]}. If it has "
                f"one by another name, say so in its tokenizer_config.json ({role}_token)."
            )
        return value
