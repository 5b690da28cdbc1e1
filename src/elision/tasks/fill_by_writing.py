"""Fill the blanks of a text with a model that writes: T5 writes what stood in each, BART the whole text anew."""

import collections
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elision.data.noise import Denoising, SpanCorruption
from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.generation.texts import Generated
from elision.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from elision.loaded import Loaded

# Tokens that a blank may take, beside those that must be written around it.
TOKENS_PER_BLANK = 16
# A narrower search misses what is likeliest as a whole.
NUM_BEAMS = 4

# Texts for a blank with their shares, best first.
Choices = list[tuple[str, float]]


def fill_by_writing(model: "Loaded", parts: Sequence[str], top_k: int) -> tuple[str, list[Choices]]:
    """Return the text with its blanks filled, and `top_k` texts for each blank at most, each with its share.

    parts: the text, cut at its blanks. A share is that of the probability of all texts that a beam search has found. Where
    a model that writes everything anew has changed what was given, there are no choices, only the text.

    Raises: InputError when the model does not restore parts of texts, or there are more blanks than sentinels.
    """
    tokenizer, noise = model.tokenizer, model.recipe.noise
    vocabulary = tokenizer.vocabulary
    num_blanks = len(parts) - 1
    by_sentinels = isinstance(noise, SpanCorruption) and len(vocabulary.sentinels) > 0
    if model.task is not None or not (
        by_sentinels or (isinstance(noise, Denoising) and not _ends_with_language(noise))
    ):
        raise InputError(
            f"{model.path} cannot fill blanks: it was trained with {type(noise).__name__}, which leaves no spans out that the "
            f"model could write. Use `elision generate` to see what it writes from a text"
        )
    if by_sentinels:
        if num_blanks > len(vocabulary.sentinels):
            raise InputError(
                f"the text has {num_blanks} blanks, but the tokenizer only {len(vocabulary.sentinels)} sentinels to tell them "
                f"apart: fill them in several texts"
            )
        symbols, num_tokens = tokenizer.tokens(vocabulary.sentinels[:num_blanks]), (TOKENS_PER_BLANK + 1) * num_blanks
    else:
        symbols = [tokenizer.roles["mask"]] * num_blanks
        num_tokens = len(tokenizer.encode("".join(parts))) + TOKENS_PER_BLANK * num_blanks + 2
    source = parts[0] + "".join(symbol + part for symbol, part in zip(symbols, parts[1:], strict=True))
    num_beams = max(NUM_BEAMS, top_k)
    room = model.recipe.backbone.decoder.max_length if hasattr(model.recipe.backbone, "decoder") else None
    decoding = Decoding(
        num_tokens=num_tokens if room is None else min(num_tokens, room), num_beams=num_beams, num_texts=num_beams
    )
    (written,) = model.generate_batch([source], decoding)
    if by_sentinels:
        found = [(_spans(each.ids, tokenizer, num_blanks), each) for each in written]
    else:
        found = [(_between(each.text, parts), each) for each in written]
    blanks = [_choices(found, number, top_k) for number in range(num_blanks)]
    if not all(blanks):
        return written[0].text.strip(), []
    return _joined(parts, [choices[0][0] for choices in blanks]), blanks


def _ends_with_language(noise: Denoising) -> bool:
    """Tell whether a text ends with the symbol of its language, which nobody says here (mBART)."""
    return noise.sentence_end == "separator"


def _spans(ids: Sequence[int], tokenizer: Tokenizer, num_blanks: int) -> list[str] | None:
    """Return what stands behind the sentinel of each blank; None where one is missing."""
    sentinels = tokenizer.vocabulary.sentinels[:num_blanks].tolist()
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in ids:
        if token in tokenizer.vocabulary.sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    if any(sentinel not in spans for sentinel in sentinels):
        return None
    return [tokenizer.decode(spans[sentinel]).strip() for sentinel in sentinels]


def _between(text: str, parts: Sequence[str]) -> list[str] | None:
    """Return what stands between the given parts of a text; None where these are not all there, in order."""
    given = [r"\s*".join(map(re.escape, part.split())) for part in parts]
    match = re.fullmatch(r"\s*" + r"\s*(.*?)\s*".join(given) + r"\s*", text, re.DOTALL)
    return None if match is None else list(match.groups())


def _choices(found: Sequence[tuple[list[str] | None, Generated]], number: int, top_k: int) -> Choices:
    """Return the texts for one blank, weighed by the probability of all that was written with them."""
    best = max(each.log_likelihood for _, each in found)
    weights: collections.Counter[str] = collections.Counter()
    for spans, each in found:
        if spans is not None and spans[number]:
            weights[spans[number]] += math.exp(each.log_likelihood - best)
    total = weights.total()
    return [(text, weight / total) for text, weight in weights.most_common(top_k)]


def _joined(parts: Sequence[str], texts: Sequence[str]) -> str:
    return parts[0] + "".join(text + part for text, part in zip(texts, parts[1:], strict=True))
