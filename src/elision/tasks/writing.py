"""How a text, and what is to be written of it, become what a model reads: beside each other, or one after the other.

An encoder-decoder reads the source in the encoder and writes in the decoder; a decoder reads the source first and writes
on. Only what is written has targets, its end among them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from elision.data.answers import Answers
from elision.data.example import NO_TARGET, Example
from elision.data.frame import FRAMES, Frame
from elision.errors import InputError
from elision.model.backbones import Backbone
from elision.tasks.labelled import flat_ids
from elision.tasks.prompt import Prompt
from elision.text.language_symbols import language_symbols
from elision.text.tokenizer import Tokenizer
from elision.text.vocabulary import Vocabulary

# Tokens of a source that must find room, or reading it would tell nothing.
LEAST_SOURCE = 4


@dataclasses.dataclass(frozen=True)
class WritingEncoding:
    """Sources cut to length at their end, what stands around them whole; targets with their end.

    A worked example, with </s> 2: the source 10 11 and the target 20 21 are, for an encoder-decoder with the frame A </s>
    that starts with 0, the inputs 10 11 2, the decoder inputs 0 20 21 and the targets 20 21 2; for a decoder that begins texts
    with 1 and whose prompt ends with 9, the inputs 1 10 11 9 20 21 and the targets - - - 20 21 2. A target that is cut has no
    end to be learned.
    """

    vocabulary: Vocabulary
    frame: Frame
    answers: Answers
    max_length: int
    """tokens that are read, special symbols included; of a decoder those that it writes, too"""
    max_target_length: int
    """tokens that are written, special symbols included"""
    languages: tuple[int, int] | None = None
    """symbols of the languages of sources and targets, behind each: X </s> ne_NP, and decoders that begin with the last of
    their text begin with its language (mBART)"""

    @staticmethod
    def of(
        backbone: Backbone,
        vocabulary: Vocabulary,
        max_length: int,
        max_target_length: int,
        languages: tuple[str, str] | None = None,
    ) -> "WritingEncoding":
        """Return the encoding that fits a backbone.

        Raises: InputError when the tokenizer, the lengths or the languages do not fit it.
        """
        answers = backbone.answers(vocabulary)
        # mBART was fine-tuned with X </s> ne_NP, whatever frames BART.
        frame = FRAMES["causal" if answers.joined or languages is not None else backbone.frame]
        for role in sorted(frame.roles):
            vocabulary.require(role)
        writes = getattr(backbone, "decoder", backbone).max_length
        for name, length, limit in (
            ("max_length", max_length, backbone.max_length),
            ("max_target_length", max_target_length, writes),
        ):
            if limit is not None and length > limit:
                raise InputError(f"{name} is {length}: the model has {limit} positions")
        if max_target_length <= frame.num_symbols(False):
            raise InputError(f"max_target_length is {max_target_length}: there is no room for a token to be written")
        symbols = None
        if languages is not None:
            if answers.joined:
                raise InputError(
                    f"languages {languages[0]}, {languages[1]}: only encoder-decoders have symbols for them"
                )
            known = language_symbols(vocabulary.symbols, languages)
            symbols = known[languages[0]], known[languages[1]]
        return WritingEncoding(vocabulary, frame, answers, max_length, max_target_length, symbols)

    @property
    def num_symbols(self) -> int:
        """How many symbols stand around a source, or around a target."""
        return self.frame.num_symbols(False) + (self.languages is not None)

    @property
    def first(self) -> int | None:
        """The id that a decoder reads first; None = nothing."""
        if self.answers.start is not None or self.answers.joined:
            return self.answers.start
        return self.vocabulary.require(self.frame.after[-1]) if self.languages is None else self.languages[1]

    def room(self, num_after: int) -> int:
        """Return how many tokens of a source find room (with what precedes it) before `num_after` that follow it.

        Raises: InputError when those are too few.
        """
        if self.answers.joined:
            # The last token of the target is never read.
            room = self.max_length - num_after - (self.answers.start is not None) - (self.max_target_length - 1)
        else:
            room = self.max_length - num_after - self.num_symbols
        if room < LEAST_SOURCE:
            written = f", {self.max_target_length} of which are kept for what is written" if self.answers.joined else ""
            raise InputError(
                f"max_length is {self.max_length}{written}: with the prompt there is no room for a source. Raise "
                f"max_length, or lower max_target_length"
            )
        return room

    def read(self, source: np.ndarray, after: np.ndarray) -> Example:
        """Return what the model reads of a source before it writes, `after` following it: an example without an answer."""
        ids = np.concatenate([source[: self.room(len(after))], after]).astype(np.int64)
        if self.answers.joined:
            return Example(ids, np.zeros(len(ids), bool))
        return self._ended(self.frame(self.vocabulary, ids), 0)

    def _ended(self, framed: Example, side: int) -> Example:
        """Return what the frame made of a side, with its language behind it."""
        if self.languages is None:
            return framed
        return Example(np.append(framed.inputs, self.languages[side]), np.append(framed.special, True))

    def __call__(self, source: np.ndarray, after: np.ndarray, target: np.ndarray) -> Example:
        """Return the example with its target, as the model reads it."""
        framed = self._ended(self.frame(self.vocabulary, target[: self.target_room]), 1)
        example = dataclasses.replace(self.read(source, after), answer=framed.inputs, summary=len(framed) - 1)
        example = self.answers(example)
        num_after = len(self.frame.after) + (self.languages is not None)
        if len(target) > self.target_room and num_after:
            # Where a target was cut, its text does not end.
            targets = example.targets.copy()
            targets[-num_after:] = NO_TARGET
            example = dataclasses.replace(example, targets=targets)
        return example

    @property
    def target_room(self) -> int:
        """How many tokens of a target find room beside the symbols that frame it."""
        return self.max_target_length - self.num_symbols


class PairPlan:
    """Pairs of texts as a plan that a Loader deals out: tokenised once, framed when asked for."""

    contiguous = False

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        tokenizer: Tokenizer,
        encoding: WritingEncoding,
        prompt: Prompt,
    ):
        self.encoding = encoding
        self._source, self._source_at = flat_ids(tokenizer, [prompt.before + source for source, _ in pairs])
        self._target, self._target_at = flat_ids(tokenizer, [target for _, target in pairs])
        self._after = np.array(tokenizer.encode(prompt.after), np.int64)

    def __len__(self) -> int:
        return len(self._source_at) - 1

    def example(self, index: int) -> Example:
        """Build example `index`."""
        source = self._source[self._source_at[index] : self._source_at[index + 1]]
        target = self._target[self._target_at[index] : self._target_at[index + 1]]
        return self.encoding(source, self._after, target)

    def lengths(self) -> np.ndarray:
        """Return how many tokens each example has as it is read (of a decoder, with what is written)."""
        sizes = np.minimum(np.diff(self._source_at), self.encoding.room(len(self._after))) + len(self._after)
        if not self.encoding.answers.joined:
            return sizes + self.encoding.num_symbols
        return sizes + (self.encoding.answers.start is not None) + self.target_lengths() - 1

    def target_lengths(self) -> np.ndarray:
        """Return how many tokens of each example are written, symbols included."""
        sizes = np.minimum(np.diff(self._target_at), self.encoding.target_room)
        return sizes + self.encoding.num_symbols

    @property
    def num_cut(self) -> tuple[int, int]:
        """How many sources and how many targets lose tokens at their end."""
        room = self.encoding.room(len(self._after))
        sources, targets = np.diff(self._source_at), np.diff(self._target_at)
        return int((sources > room).sum()), int((targets > self.encoding.target_room).sum())
