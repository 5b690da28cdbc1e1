"""Texts in, texts out: prompts and sources as a model reads them, and what it writes as text."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from elision.data.frame import FRAMES
from elision.errors import InputError
from elision.generation.decode import GeneratedIds, generate_batch_ids, generate_ids
from elision.generation.decoding import Decoding, Symbols, reads_first
from elision.generation.reader import check_writes
from elision.generation.stream import first_of, stream_text
from elision.model.encoder_decoder import EncoderDecoderModel
from elision.model.language_model import LanguageModel
from elision.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Generated:
    """A text that a model has written, and how likely it is.

    text: without the prompt, and without what stopped it. ids: without the token that ended the text. log_likelihood: in
    nats, of all ids and the end, as the model scores them. reason: "end" of the text, "stop" text, or "length" used up. score:
    what a beam search compared by, else None.
    """

    text: str
    ids: tuple[int, ...]
    log_likelihood: float
    reason: Literal["end", "stop", "length"]
    score: float | None = None


def generate_stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    decoding: Decoding,
    *,
    framed: bool = True,
    cache: bool = True,
) -> Iterator[str]:
    """Return pieces of text as they are written after a prompt, or from a source. Raises: InputError at the call."""
    check_writes(model)
    ids = read_ids(model, tokenizer, prompt, framed)
    symbols = Symbols.of(decoding, model, tokenizer)
    if decoding.num_beams > 1 or decoding.num_given < decoding.num_samples:
        return iter([generate_texts(model, tokenizer, [prompt], decoding, framed=framed, cache=cache)[0][0].text])
    new = generate_ids(model, ids, decoding, symbols, cache=cache)
    return stream_text(tokenizer, _before(model, ids), new, decoding.stop)


def generate_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    decoding: Decoding,
    *,
    framed: bool = True,
    num_rows: int = 16,
    cache: bool = True,
    hear: Callable[[int], None] = lambda done: None,
) -> list[list[Generated]]:
    """Return the texts written after each prompt, or from each source; see `generate_batch_ids`."""
    check_writes(model)
    ids = [read_ids(model, tokenizer, prompt, framed) for prompt in prompts]
    symbols = Symbols.of(decoding, model, tokenizer)

    def text_of(at: int, new: Sequence[int]) -> str:
        return "".join(stream_text(tokenizer, _before(model, ids[at]), new))

    def stops(at: int, new: list[int]) -> bool:
        return first_of(text_of(at, new), decoding.stop) is not None

    def given(at: int, written: GeneratedIds) -> Generated:
        text = text_of(at, written.ids)
        end = first_of(text, decoding.stop)
        return Generated(text[:end], written.ids, written.log_likelihood, written.reason, written.score)

    written = generate_batch_ids(
        model, ids, decoding, symbols, stops=stops if decoding.stop else None, num_rows=num_rows, cache=cache, hear=hear
    )
    return [[given(at, each) for each in texts] for at, texts in enumerate(written)]


def read_ids(model: LanguageModel, tokenizer: Tokenizer, text: str, framed: bool = True) -> list[int]:
    """Return the ids that are read of a prompt or a source; `framed`: with the symbols that an encoder was trained with.

    Raises: InputError when the prompt is empty and the tokenizer has no token that starts a text.
    """
    ids, words = tokenizer.encode(text), tokenizer.vocabulary
    if isinstance(model.backbone, EncoderDecoderModel):
        frame = FRAMES[model.backbone.settings.frame]
        return frame(words, np.array(ids, np.int64)).inputs.tolist() if framed else ids
    if not ids and not reads_first(model):
        start = words.bos if words.bos is not None else words.eos
        if start is None:
            raise InputError(
                "the prompt is empty, and the tokenizer has no token that starts a text: give a first word"
            )
        return [start]
    begun = tokenizer.encode(text, add_special_tokens=True)
    # LLaMA's texts begin with a symbol; what other tokenizers put around a text would end it before it is continued.
    return begun if framed and ids and begun[-len(ids) :] == ids else ids


def _before(model: LanguageModel, ids: list[int]) -> list[int]:
    """Return the ids that what is written goes on from: none where it is a text of its own."""
    return [] if isinstance(model.backbone, EncoderDecoderModel) or reads_first(model) else ids
