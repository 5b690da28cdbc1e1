"""What comes next on either side is left out: the noise of language models in both directions."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary
from elision.text.words import UNKNOWN


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """No noise: in the first half of an example the target of a token is the one after it, in the second the one before.

    The segmenter hands over one token more at the far end of each half. `order` tells in which order a half is read: up
    in the first, down in the second. A sentence ends for its forward reader with </S> and for its backward reader with
    <S>: where the symbol of the next sentence stands, the target is that of the end of this one.

    A worked example: <S> 10 11 <S> beside </S> 12 13 </S> becomes inputs <S> 10 11 beside 12 13 </S>, targets
    10 11 </S> beside <S> 12 13, order 0 1 2 beside 2 1 0.
    """

    needs_roles: ClassVar[frozenset[str]] = frozenset({"bos", "eos", "unk"})
    restores: ClassVar[str] = "neighbouring"
    lookahead: ClassVar[int] = 2
    two_streams: ClassVar[bool] = True

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError unless the vocabulary is one of words."""
        for role in sorted(self.needs_roles):
            vocabulary.require(role)
        if vocabulary.unk != UNKNOWN:
            raise InputError(
                f"the unknown word has id {vocabulary.unk}, expected {UNKNOWN}: ELMo's symbols are <S>, </S>, <UNK> and "
                f"then words by falling frequency. Prepare the store with `--recipe elmo-tiny`"
            )

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with each half one token shorter, and targets."""
        half = len(example) // 2
        read = np.r_[0 : half - 1, half + 1 : 2 * half]
        forward, backward = example.inputs[1:half], example.inputs[half : 2 * half - 1]
        targets = np.concatenate(
            [
                np.where(forward == vocabulary.bos, vocabulary.eos, forward),
                np.where(backward == vocabulary.eos, vocabulary.bos, backward),
            ]
        ).astype(np.int64)
        return dataclasses.replace(
            example,
            inputs=example.inputs[read],
            special=example.special[read],
            doc_ids=np.repeat([1, 2], half - 1),
            order=np.concatenate([np.arange(half - 1), np.arange(half - 1)[::-1]]),
            targets=targets,
        )
