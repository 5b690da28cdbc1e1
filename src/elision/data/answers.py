"""Answers: how a model that writes a text of its own reads an example that has one.

A noise or a segmenter says what is to be written (`Example.answer`); what a model reads while it writes follows from that
and from the model alone, so it is decided here, once.
"""

import dataclasses

import numpy as np

from elision.data.example import NO_TARGET, Example


@dataclasses.dataclass(frozen=True)
class Answers:
    """What writes the answer of an example: a decoder beside an encoder, or a decoder that has read the inputs itself.

    start: the id of the symbol that a decoder reads first; None = the last token of the answer, which so moves to the front
    (BART's </s>, mBART's language). joined: inputs and answer are one text. decoder_row_length: places in a row of the
    decoder's side of a packed batch.
    """

    start: int | None = None
    joined: bool = False
    decoder_row_length: int | None = None

    def __call__(self, example: Example) -> Example:
        """Return the example as the model reads it; one without an answer stays as it is."""
        if example.answer is None:
            return example
        return joined(example, self.start) if self.joined else written(example, self.start)


def written(example: Example, start: int | None) -> Example:
    """Return the example with decoder inputs, each of which has the token that is to follow it as its target.

    A worked example: the answer 10 11 2 started with its last token has decoder inputs 2 10 11 and targets 10 11 2. A noise
    that has set the decoder inputs itself is left in peace.
    """
    if example.decoder_inputs is not None:
        return example
    answer = example.answer.astype(np.int64)
    first = answer[-1] if start is None else start
    return dataclasses.replace(example, decoder_inputs=np.append(first, answer[:-1]).astype(np.int64), targets=answer)


def joined(example: Example, start: int | None) -> Example:
    """Return inputs and answer as one text with targets at the answer alone, for a decoder without an encoder.

    Raffel et al. 2020, section 3.2.1 (prefix LM), as in seqio: the start symbol, then the inputs, then the answer; `prefix` is
    True for the first two, one place more than the inputs. Without a start symbol the last of the inputs has the first
    target.

    A worked example: inputs 20 21 and answer 10 11 2 with start 0 are 0 20 21 10 11, targets - - 10 11 2.
    """
    assert example.decoder_inputs is None, "a noise that sets the decoder's inputs itself has no joined form"
    answer = example.answer.astype(np.int64)
    before = example.inputs if start is None else np.append(start, example.inputs)
    inputs = np.concatenate([before, answer[:-1]]).astype(np.int64)
    place = len(before) - 1
    targets = np.full(len(inputs), NO_TARGET, np.int64)
    targets[place:] = answer
    special = np.zeros(len(inputs), bool)
    special[len(before) - len(example.inputs) : len(before)] = example.special
    languages = None
    if example.languages is not None:
        after = example.languages[-1:] if example.decoder_languages is None else example.decoder_languages[:1]
        languages = np.concatenate(
            [np.resize(example.languages[:1], len(before) - len(example.inputs)), example.languages,
             np.resize(after, len(answer) - 1)]
        )  # fmt: skip
    return Example(
        inputs,
        special,
        languages=languages,
        prefix=np.arange(len(inputs)) < len(before),
        targets=targets,
        label=example.label,
        summary=place + example.summary,
    )
