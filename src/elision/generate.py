"""Generation with a causal language model: one token after another, each read once thanks to the cache.

B rows, T tokens, V vocabulary.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from elision.errors import InputError
from elision.model.cache import Cache
from elision.model.language_model import LanguageModel
from elision.text.tokenizer import Tokenizer
from elision.text.vocabulary import Vocabulary

UNDECIDED = "\ufffd"


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the scores."""

    num_tokens: int = 64
    """at most so many new tokens; fewer when the text ends before"""
    temperature: float = 0.0
    """0 = always the likeliest token; 1 = draw as the model says; below 1 more cautious, above 1 wilder"""
    top_k: int = 0
    """draw from the k likeliest tokens only; 0 = from all"""
    top_p: float = 1.0
    """draw from the fewest tokens that together have this probability (Holtzman et al. 2020); 1 = from all"""
    seed: int | None = None
    """of the draws: the same seed gives the same text"""

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise InputError(f"num_tokens is {self.num_tokens}: it must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}: give 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}: give 0 (all tokens) or a count")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: give a probability above 0, up to 1")

    def choose(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """Return the id of the next token."""
        if self.temperature == 0:
            return int(logits_V.argmax())
        scores_V = logits_V.float() / self.temperature
        if 0 < self.top_k < scores_V.shape[0]:
            least = scores_V.topk(self.top_k).values[-1]
            scores_V = scores_V.masked_fill(scores_V < least, float("-inf"))
        probabilities_V = torch.softmax(scores_V, -1)
        if self.top_p < 1:
            ordered, ids = probabilities_V.sort(descending=True, stable=True)
            # A token stays when those before it have not reached the share yet, so the first one always does.
            ordered[ordered.cumsum(0) - ordered >= self.top_p] = 0
            probabilities_V = torch.zeros_like(probabilities_V).scatter(0, ids, ordered)
        # On the CPU, so that a seed gives the same text on every device.
        return int(torch.multinomial(probabilities_V.cpu(), 1, generator=generator))


def generate_ids(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    vocabulary: Vocabulary | None = None,
    *,
    cache: bool = True,
) -> Iterator[int]:
    """Yield new ids after those of the prompt, until `num_tokens` or the end of the text (which is not yielded).

    vocabulary: of the tokenizer; says which token ends a text, starts an empty prompt, and that ids beyond it (rows
    that only fill the table up) are never chosen. cache: False reads the whole context again for each token; the result
    is the same.

    The context slides: of a prompt longer than the position table the last part is read; when the table is full, the
    later half of the context stays, its positions counted anew.

    Raises: InputError when the model is not causal, or the prompt is empty and no token starts a text.
    """
    backbone = model.backbone
    if backbone.settings.visibility != "causal" or model.token_objective is None:
        raise InputError(
            f"generation needs a causal language model, but this one is {backbone.settings.visibility} and was trained "
            f"with {', '.join(o.name for o in model.objectives)}: use `elision fill` for masked language models"
        )
    ids = list(prompt)
    end = None if vocabulary is None else vocabulary.eos
    if not ids:
        start = None if vocabulary is None else (vocabulary.bos if vocabulary.bos is not None else end)
        if start is None:
            raise InputError(
                "the prompt is empty, and the tokenizer has no token that starts a text: give a first word"
            )
        ids.append(start)
    outside = [token for token in ids if not 0 <= token < backbone.vocab_size]
    if outside:
        raise InputError(
            f"the prompt holds the id {outside[0]}: the vocabulary goes from 0 to {backbone.vocab_size - 1}"
        )
    limit = backbone.vocab_size if vocabulary is None else min(vocabulary.size, backbone.vocab_size)
    # The checks above must speak when this is called, not when the first token is asked for.
    return _generate(model, ids, sampling, end, limit, cache)


def _generate(
    model: LanguageModel, ids: list[int], sampling: Sampling, end: int | None, limit: int, use_cache: bool
) -> Iterator[int]:
    room = model.backbone.settings.max_length
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    start, cache = max(0, len(ids) - room), None
    for _ in range(sampling.num_tokens):
        if len(ids) - start > room:
            start, cache = len(ids) - max(1, room // 2), None
        if cache is None or not use_cache:
            cache = model.backbone.cache()
        logits_V = _next_logits(model, ids[start + cache.length :], cache)
        token = sampling.choose(logits_V[:limit], generator)
        if token == end:
            return
        ids.append(token)
        yield token


@torch.inference_mode()
def _next_logits(model: LanguageModel, new: list[int], cache: Cache) -> Tensor:
    """Read the new tokens into the cache; returns the scores [V] of what follows them."""
    inputs_BT = torch.tensor([new], device=model.backbone.embeddings.tokens.weight.device)
    hidden_BTD = model.backbone.continue_with(inputs_BT, cache)
    return model.vocabulary_logits(hidden_BTD[0, -1])


def stream_text(tokenizer: Tokenizer, prompt: Sequence[int], new: Iterable[int]) -> Iterator[str]:
    """Turn ids into pieces of text as they come; a character spread over several tokens is held back.

    The pieces join to what follows the prompt when prompt and new ids are decoded together.
    """
    # Decoding needs the tokens before for the spaces between words, but not all of them each time.
    held = list(prompt[-8:])
    shown = _decided(tokenizer.decode(held))
    for token in new:
        held.append(token)
        text = tokenizer.decode(held)
        decided = _decided(text)
        if len(decided) > len(shown):
            yield decided[len(shown) :]
            shown = decided
        if len(held) > 64 and decided == text:
            held = held[-8:]
            shown = _decided(tokenizer.decode(held))
    rest = tokenizer.decode(held)[len(shown) :]
    if rest:
        yield rest


def _decided(text: str) -> str:
    """Leave out a last character that may yet change: the sign for bytes that are no character so far."""
    return text[:-1] if text.endswith(UNDECIDED) else text
