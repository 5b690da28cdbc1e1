"""A model that writes, at work: texts in, texts out."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from elision.data.example import Example
from elision.generation.decode import generate_batch_ids
from elision.generation.decoding import Decoding, Symbols, reads_first
from elision.generation.stream import first_of
from elision.model.language_model import LanguageModel
from elision.tasks.batches import chunks, device_of
from elision.tasks.fine_tuned import load_fine_tuned
from elision.tasks.prompt import Prompt
from elision.tasks.task import WritingTask
from elision.tasks.writing import WritingEncoding
from elision.text.tokenizer import Tokenizer
from elision.text.words import read_new_words
from elision.train.precision import autocast, compute_dtype

# Sources that are read before the first is written: those of similar length are written together.
TEXTS_AT_A_TIME = 256
TEXTS_TOGETHER = 32


class Writer:
    """A fine-tuned model with its tokenizer and task. Open one with `Writer.load`."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, task: WritingTask):
        self.model, self.tokenizer, self.task = model, tokenizer, task

    @staticmethod
    def load(path: str | Path, device: torch.device = torch.device("cpu")) -> "Writer":
        """Load the best checkpoint of a fine-tuned run, or one of its checkpoints.

        Raises: InputError when `path` is no fine-tuned model that writes.
        """
        loaded = load_fine_tuned(path, WritingTask.learns, device)
        return Writer(loaded.model, loaded.tokenizer, loaded.task)

    def write(
        self,
        sources: Iterable[str],
        precision: str = "auto",
        decoding: Decoding | None = None,
        hear: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[str]:
        """Yield a text for each source, in order, reading ahead by a block; nothing is written of an empty source.

        decoding: None = as in the fine-tuning. hear: told how many of a block are done.
        """
        device = device_of(self.model)
        dtype = compute_dtype(precision, device)
        task = self.task
        encoding = WritingEncoding.of(
            self.model.backbone.settings,
            self.tokenizer.vocabulary,
            task.max_length,
            task.max_target_length,
            task.languages,
        )
        for chunk in chunks(sources, TEXTS_AT_A_TIME):
            self.tokenizer = read_new_words(self.model.backbone, self.tokenizer, chunk)
            full = [source for source in chunk if source.strip()]
            examples = read_examples(full, self.tokenizer, encoding, Prompt(task.prompt))
            with autocast(device, dtype):
                texts = write_texts(self.model, self.tokenizer, examples, encoding, decoding or task.decoding, hear)
            written = iter(texts)
            yield from (next(written) if source.strip() else "" for source in chunk)


def read_examples(
    sources: Sequence[str], tokenizer: Tokenizer, encoding: WritingEncoding, prompt: Prompt
) -> list[Example]:
    """Return what a model reads of each source before it writes."""
    after = np.array(tokenizer.encode(prompt.after), np.int64)
    ids = tokenizer.encode_batch([prompt.before + source for source in sources])
    return [encoding.read(each, after) for each in ids]


def write_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    encoding: WritingEncoding,
    decoding: Decoding,
    hear: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Return what the model writes of each of the examples, in order; `hear` is told how many are done, and of how many.

    The model must be in evaluation mode.
    """
    if not examples:
        return []
    symbols = Symbols.of(decoding, model, tokenizer)
    # What an answer was trained to begin with may be a symbol that follows its text (a language).
    symbols = dataclasses.replace(symbols, start=encoding.first)
    prompts = [example.inputs.tolist() for example in examples]
    if encoding.answers.joined and not reads_first(model):
        prompts = [[*([] if encoding.first is None else [encoding.first]), *ids] for ids in prompts]
        symbols = dataclasses.replace(symbols, start=None)
    done = 0

    def heard(count: int) -> None:
        nonlocal done
        done += count
        hear(done, len(prompts))

    stops = None
    if decoding.stop:

        def stops(at: int, ids: list[int]) -> bool:
            return first_of(tokenizer.decode(ids), decoding.stop) is not None

    rows = TEXTS_TOGETHER * max(decoding.num_beams, 1)
    written = generate_batch_ids(model, prompts, decoding, symbols, stops=stops, num_rows=rows, hear=heard)
    texts = (tokenizer.decode(best.ids) for best, *_ in written)
    return [text[: first_of(text, decoding.stop)].strip() for text in texts]
