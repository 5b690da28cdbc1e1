"""A model in the middle of texts: it reads each token once, and scores what may come next.

E examples, R rows (several to an example: samples or hypotheses), L tokens of a row, S places of a source, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from elision.data.batch import collate
from elision.data.example import Example
from elision.errors import InputError
from elision.generation.constraints import Written
from elision.generation.decoding import reads_first
from elision.generation.step import Prepared, prepared
from elision.model.cache import Cache
from elision.model.encoder_decoder import EncoderDecoderModel
from elision.model.language_model import LanguageModel


def check_writes(model: LanguageModel) -> None:
    """Raise InputError unless the model can write a text."""
    backbone = model.backbone
    if backbone.settings.visibility == "bidirectional" or model.token_objective is None:
        raise InputError(
            f"generation needs a causal language model or an encoder-decoder, but this one is "
            f"{backbone.settings.visibility} and was trained with {', '.join(o.name for o in model.objectives)}: use "
            f"`elision fill` for masked language models"
        )
    if not hasattr(backbone, "continue_with"):
        raise InputError(
            f"{type(backbone.settings).__name__} keeps no cache of what it has read, so it cannot write on"
        )


class Reader:
    """Reads prompts, then what follows them; `scores` [R, V] is of what comes next, and may be written over.

    An encoder-decoder reads its prompts in the encoder and `start` in the decoder; a decoder that was trained to write
    answers reads start and prompt as its prefix. Prompts of different lengths are padded on the left, which changes
    nothing. When the position table of a causal model is full, the later half of the context stays, its positions counted
    anew; other models refuse beforehand (`num_tokens` more must find room).

    cache: False reads everything again for each token; the scores are the same. weights: made of the model beforehand, where
    several readers share them.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        start: int | None,
        num_tokens: int,
        limit: int | None = None,
        cache: bool = True,
        weights: Prepared | None = None,
    ):
        check_writes(model)
        self._backbone, self._use_cache = model.backbone, cache
        self._device = next(model.parameters()).device
        self._limit = self._backbone.vocab_size if limit is None else min(limit, self._backbone.vocab_size)
        self._weights = weights or prepared(model)
        self._source: list[Example] | None = None
        self.read_from: Written | None = None
        prompts = [list(prompt) for prompt in prompts]
        self._check_ids([*prompts, [] if start is None else [start]])
        if isinstance(self._backbone, EncoderDecoderModel):
            assert start is not None, "a decoder reads a symbol first"
            self._check_sides(prompts, num_tokens)
            self._source = [Example(np.array(ids, np.int64), np.zeros(len(ids), bool)) for ids in prompts]
            self.read_from = _padded(prompts, self._device)
            contexts = [[start] for _ in prompts]
        else:
            contexts = [ids if start is None else [start, *ids] for ids in prompts]
            if not reads_first(model):
                self.read_from = _padded(prompts, self._device) if all(prompts) else None
            if not all(contexts):
                raise InputError("the prompt is empty, and nothing starts a text: give a first token")
        self._room = None if self._source is not None else self._backbone.settings.max_length
        if self._backbone.settings.visibility == "prefix":
            self._check_room(contexts, num_tokens)
        self.written = _padded(contexts, self._device)
        self.num_new = 0
        # From where on each row is in the cache: later than its padding once its context has slid.
        self._begin = self.written.padding.clone()
        self._slide()
        self.scores = self._read_all()

    @property
    def num_rows(self) -> int:
        """Rows that are being written."""
        return self.written.ids.shape[0]

    @torch.inference_mode()
    def repeat(self, times: int) -> None:
        """Go on with so many rows for each, one after the other."""
        if times > 1:
            self._select(torch.arange(self.num_rows, device=self._device).repeat_interleave(times))
            self.scores = self.scores.repeat_interleave(times, 0)

    @torch.inference_mode()
    def read(self, tokens_R: Tensor, rows: Tensor | None = None, examples: Tensor | None = None) -> None:
        """Take in a token for each row; `rows` [R] first says which rows go on, in which order.

        examples: where rows of whole examples were left out, the numbers of those that stay; rows then belong to them.
        """
        if rows is not None:
            self._select(rows, examples)
        self.written = Written(torch.cat([self.written.ids, tokens_R[:, None]], 1), self.written.padding)
        self.num_new += 1
        slid = self._slide()
        if slid or not self._use_cache:
            self.scores = self._read_all()
        else:
            self.scores = self._scores(self._next_states(tokens_R))

    def _next_states(self, tokens_R: Tensor) -> Tensor:
        if self._weights.step is not None:
            return self._weights.step(tokens_R, self._cache)
        return self._backbone.continue_with(tokens_R[:, None], self._cache)[:, -1]

    @property
    def room_to_guess(self) -> int:
        """How many tokens may be read on trial now: none but for a single row in a cache that can forget them."""
        cache = self._cache
        if not self._use_cache or self.num_rows > 1 or not isinstance(cache, Cache):
            return 0
        if any(layer.window is not None for layer in cache.layers):
            return 0
        length = self.written.ids.shape[1] - int(self._begin[0])
        room = self._backbone.settings.decoder.max_length if self._source is not None else self._room
        return 1 << 30 if room is None else max(0, room - length)

    @torch.inference_mode()
    def read_guess(self, tokens: Sequence[int]) -> Tensor:
        """Read tokens on trial; returns scores [G, V] of what follows each. `keep` must say how many of them stay."""
        hidden_1GD = self._backbone.continue_with(torch.tensor([tokens], device=self._device), self._cache)
        return self._scores(hidden_1GD[0])

    @torch.inference_mode()
    def keep(self, tokens: Sequence[int], num_read: int, scores_1V: Tensor) -> None:
        """Take in the tokens that stay of `num_read` that were read on trial, and the scores of what follows them."""
        if num_read > len(tokens):
            self._cache.forget(num_read - len(tokens))
        ids = torch.cat([self.written.ids, torch.tensor([tokens], device=self._device)], 1)
        self.written, self.scores = Written(ids, self.written.padding), scores_1V
        self.num_new += len(tokens)

    def _select(self, rows: Tensor, examples: Tensor | None = None) -> None:
        if examples is not None and self._source is not None:
            self._source = [self._source[at] for at in examples.tolist()]
            self._cache.keep_sources(examples)
        self._cache.reorder(rows)
        self.written, self._begin = self.written.rows(rows), self._begin.index_select(0, rows)
        if self.read_from is not None:
            self.read_from = self.read_from.rows(rows)

    def _slide(self) -> bool:
        """Let contexts that have outgrown the position table begin later; returns whether any does."""
        length = self.written.ids.shape[1]
        if self._room is None or length <= self._room:
            return False
        full = length - self._begin > self._room
        if not bool(full.any()):
            return False
        kept = self._room if self.num_new == 0 else max(1, self._room // 2)
        self._begin = torch.where(full, length - kept, self._begin)
        return True

    @torch.inference_mode()
    def _read_all(self) -> Tensor:
        first = int(self._begin.min())
        ids, padding = self.written.ids[:, first:], self._begin - first
        if self._source is not None:
            self._cache = self._read_source()
        else:
            self._cache = self._backbone.cache(padding if bool(padding.any()) else None)
        return self._scores(self._backbone.continue_with(ids, self._cache)[:, -1])

    def _read_source(self) -> Cache:
        return self._backbone.read(collate(self._source, pad_id=0, packing=False).to(self._device))

    def _scores(self, hidden_RD: Tensor) -> Tensor:
        return self._weights.score(hidden_RD)[:, : self._limit]

    def _check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        size = self._backbone.vocab_size
        for ids in rows:
            outside = [token for token in ids if not 0 <= token < size]
            if outside:
                raise InputError(f"the prompt holds the id {outside[0]}: the vocabulary goes from 0 to {size - 1}")

    def _check_sides(self, prompts: list[list[int]], num_tokens: int) -> None:
        settings = self._backbone.settings
        if not all(prompts):
            raise InputError(
                "a text to be read is empty: an encoder-decoder writes of what it reads, so give it some text"
            )
        settings.check_length(max(map(len, prompts)))
        room = settings.decoder.max_length
        if room is not None and num_tokens > room:
            raise InputError(f"num_tokens is {num_tokens}, but the decoder has {room} positions: lower it")

    def _check_room(self, contexts: list[list[int]], num_tokens: int) -> None:
        longest = max(map(len, contexts))
        # The last token that is written is not read.
        if self._room is not None and longest + num_tokens - 1 > self._room:
            raise InputError(
                f"a prompt of {longest} tokens and num_tokens {num_tokens} need more than the model's {self._room} positions, "
                f"and a prefix that slid would no longer be what was to be read: shorten the prompt or lower num_tokens"
            )


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> Written:
    """Lay rows side by side, padded on the left with id 0."""
    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    ids = [[0] * left + list(row) for left, row in zip(padding, rows, strict=True)]
    return Written(torch.tensor(ids, dtype=torch.long, device=device), torch.tensor(padding, device=device))
