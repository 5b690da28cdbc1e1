"""A model that writes, at work: texts in, texts out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from elision.data.batch import collate
from elision.data.example import Example
from elision.generate import Sampling
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
    outputs = [""] * len(examples)
    order = np.argsort([len(example) for example in examples], kind="stable")
    for start in range(0, len(order), TEXTS_TOGETHER):
        chosen = order[start : start + TEXTS_TOGETHER].tolist()
        for at, ids in zip(chosen, _greedy(model, [examples[at] for at in chosen], encoding)):
            outputs[at] = tokenizer.decode(ids).strip()
        hear(start + len(chosen), len(examples))
    return outputs


@torch.inference_mode()
def _greedy(model: LanguageModel, examples: list[Example], encoding: WritingEncoding) -> list[list[int]]:
    backbone, device, vocabulary = model.backbone, device_of(model), encoding.vocabulary
    start = encoding.answers.start
    ends = [vocabulary.require(role) for role in encoding.frame.after]
    if encoding.answers.joined:
        ids = [[*([] if start is None else [start]), *example.inputs.tolist()] for example in examples]
        width = max(map(len, ids))
        padding = torch.tensor([width - len(each) for each in ids], device=device)
        cache = backbone.cache(padding)
        new = torch.tensor([[0] * (width - len(each)) + each for each in ids], device=device)
    else:
        cache = backbone.read(collate(examples, pad_id=0, packing=False).to(device))
        new = torch.full((len(examples), 1), ends[-1] if start is None else start, device=device)
    written = [[] for _ in examples]
    done = [False] * len(examples)
    for _ in range(encoding.max_target_length):
        hidden = backbone.continue_with(new, cache)
        best = model.vocabulary_logits(hidden[:, -1])[:, : vocabulary.size].argmax(-1)
        for row, token in enumerate(best.tolist()):
            done[row] |= token in ends
            if not done[row]:
                written[row].append(token)
        if all(done):
            break
        new = best[:, None]
    return written
