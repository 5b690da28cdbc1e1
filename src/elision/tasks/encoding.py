"""How texts become what a backbone reads, in fine-tuning and after: framed by its family's symbols, cut to length."""

import dataclasses

import numpy as np

from elision.data.answers import Answers
from elision.data.example import Example
from elision.data.frame import FRAMES, Frame, FrameName
from elision.errors import InputError
from elision.model.backbones import Backbone
from elision.tasks.batches import MIN_ROW_LENGTH
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How a text or a pair becomes what a backbone reads: framed by its family's symbols and cut to length.

    What is too long loses tokens at its end; in a pair, the longer text first.

    A worked example: 10 11 12 and 20 with max_length 6 give [CLS] 10 11 [SEP] 20 [SEP] in the frame of BERT, or
    10 11 12 eos 20 eos in that of causal models.

    An encoder-decoder reads the same text on both sides, and the state of the last place that its decoder reads stands for
    it, which has seen everything (Lewis et al. 2020, section 3.1): <s> 10 </s> in the encoder and </s> <s> 10 in the
    decoder, the place of whose 10 is the summary. Whatever is said of a token is said at the place that writes it.
    """

    vocabulary: Vocabulary
    max_length: int
    frame: Frame
    num_types: int
    answers: Answers | None = None
    """how an encoder-decoder reads the text once more"""

    @staticmethod
    def of(
        backbone: Backbone, vocabulary: Vocabulary, max_length: int, frame_name: FrameName | None = None
    ) -> "Encoding":
        """Return the encoding that fits a backbone, or that with the frame of the given name.

        Raises: InputError when the tokenizer lacks a symbol for it.
        """
        frame = FRAMES[frame_name or ("causal" if backbone.visibility == "causal" else backbone.frame)]
        for role in sorted(frame.roles):
            vocabulary.require(role)
        limit = backbone.max_length
        if max_length < 5 or (limit is not None and max_length > limit):
            most = f"to {limit}, the model's number of positions" if limit is not None else "on"
            raise InputError(f"max_length is {max_length}: it must be from 5 {most}")
        answers = backbone.answers(vocabulary) if backbone.visibility == "encoder-decoder" else None
        return Encoding(vocabulary, max_length, frame, backbone.num_types, answers)

    def num_symbols(self, pair: bool) -> int:
        """Return how many special symbols an example has."""
        return self.frame.num_symbols(pair)

    def decoder_row_length(self, lengths: np.ndarray) -> int | None:
        """Return the places in a row of the decoder's side, for examples of so many tokens; None where there is none."""
        return None if self.answers is None else max(MIN_ROW_LENGTH, int(lengths.clip(max=self.max_length).max()))

    def __call__(self, first: np.ndarray, second: np.ndarray | None = None) -> Example:
        """Return the example for the ids of a text, or of a pair."""
        room = self.max_length - self.num_symbols(second is not None)
        num_first, num_second = keep(len(first), 0 if second is None else len(second), room)
        cut = None if second is None else second[:num_second]
        example = self.frame(self.vocabulary, first[:num_first], cut, self.num_types)
        if self.answers is None:
            return example
        written = self.answers(dataclasses.replace(example, answer=example.inputs, summary=len(example) - 1))
        # What it would write is no target here.
        return dataclasses.replace(written, targets=None)


def keep(size_a: int, size_b: int, room: int) -> tuple[int, int]:
    """Return how many tokens of A and of B stay when both share `room` places: the longer one loses first.

    >>> keep(5, 2, 5), keep(5, 2, 3), keep(9, 0, 4)
    ((3, 2), (2, 1), (4, 0))
    """
    excess = max(0, size_a + size_b - room)
    from_longer = min(excess, abs(size_a - size_b))
    rest = excess - from_longer
    drop_a = rest // 2 + (from_longer if size_a > size_b else 0)
    return size_a - drop_a, size_b - (excess - drop_a)
