"""A model that writes, at work: texts in, texts out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from elision.data.example import Example
from elision.generate import Sampling, generate_ids
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
TEXTS_AT_A_TIME = 1024


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

    def write(self, sources: Iterable[str], precision: str = "auto", sampling: Sampling | None = None) -> Iterator[str]:
        """Yield a text for each source, in order, reading ahead by a block."""
        device = device_of(self.model)
        dtype = compute_dtype(precision, device)
        encoding = WritingEncoding.of(
            self.model.backbone.settings, self.tokenizer.vocabulary, self.task.max_length, self.task.max_target_length
        )
        for chunk in chunks(sources, TEXTS_AT_A_TIME):
            self.tokenizer = read_new_words(self.model.backbone, self.tokenizer, chunk)
            examples = read_examples(chunk, self.tokenizer, encoding, Prompt(self.task.prompt))
            with autocast(device, dtype):
                written = write_texts(self.model, self.tokenizer, examples, encoding, sampling)
            yield from written


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
    sampling: Sampling | None = None,
    hear: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Return what the model writes after each of the examples, in order; `hear` is told how many are done, and of how many.

    The model must be in evaluation mode.
    """
    outputs = []
    sampling = sampling or Sampling(num_tokens=encoding.max_target_length)
    for example in examples:
        start = [] if encoding.answers.start is None else [encoding.answers.start]
        ids = generate_ids(model, [*start, *example.inputs.tolist()], sampling, tokenizer.vocabulary)
        outputs.append(tokenizer.decode(list(ids)).strip())
        hear(len(outputs), len(examples))
    return outputs
