"""One example on its way from the store to a batch: plain arrays, nothing torch."""

import dataclasses

import numpy as np

NO_TARGET = -100


@dataclasses.dataclass(eq=False, slots=True)
class Example:
    """One stretch of text that a model reads as a whole.

    inputs: int64 [n], the token ids. special: bool [n], True at symbols that frame the text ([CLS], [SEP]).
    type_ids: int64 [n] or None, which segment a token belongs to. doc_ids: int64 [n] or None, counted from 1, when one
    example holds several documents that must not see each other. positions: int64 [n] or None, where they do not count
    from 0 (the second side of a translation). languages: int64 [n] or None, numbers of languages. order: int64 [n] or
    None, the place of each token in a permutation (XLNet; see `PermutationMask`). spans: int64 [s, 3] or None, begin and
    end (exclusive) of stretches that were left out as a whole, and the end of the part that the tokens at their
    boundaries are to restore. targets:
    int64 [n], `NO_TARGET` where nothing is to be restored; None until a noise has set them. draws: float64 [n] or None, a
    number from 0 to 1 for each place, for an objective that draws something there (ELECTRA's generator). label: what is
    to be said of the whole example (next-sentence label, class, score). summary: the index of the token whose state
    stands for the whole.

    A text that is to be written, not one in which something is to be filled in (BART, T5, a translation), is the `answer`:
    int64 [m] with the symbols that frame it, or None. From it follow decoder_inputs, int64 [m], and targets [m], which are
    then aligned with those and not with inputs (see `answers.written`); a noise sets these itself where they are not
    simply the answer shifted (MASS), and then decoder_positions, int64 [m]. decoder_languages: int64 [m] or None. unseen:
    bool [n] or None, the inputs that whoever writes the answer may not look at. prefix: bool [n] or None, inputs that all
    of their document see, whoever else sees only what precedes it. With an answer, summary is an index into it.
    """

    inputs: np.ndarray
    special: np.ndarray
    type_ids: np.ndarray | None = None
    doc_ids: np.ndarray | None = None
    positions: np.ndarray | None = None
    languages: np.ndarray | None = None
    order: np.ndarray | None = None
    spans: np.ndarray | None = None
    answer: np.ndarray | None = None
    decoder_inputs: np.ndarray | None = None
    decoder_positions: np.ndarray | None = None
    decoder_languages: np.ndarray | None = None
    unseen: np.ndarray | None = None
    prefix: np.ndarray | None = None
    targets: np.ndarray | None = None
    draws: np.ndarray | None = None
    label: int | float | None = None
    summary: int = 0

    def __len__(self) -> int:
        return len(self.inputs)
