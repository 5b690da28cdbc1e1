"""What the training of every kind of tokenizer needs: texts, an alphabet, room for both, and errors that say what to do."""

import collections
import json
from collections.abc import Iterable

import tokenizers
from tokenizers import normalizers

from elision.errors import InputError

# Coverage alone drops a rare script of a small mixed corpus: what it leaves out of ten million characters are the last
# two hundred, which may be every letter of a quoted language. A letter that comes again has something to be learned.
DEFAULT_COVERAGE = 0.99998
_SEEN_TIMES = 2
_SEEN_SHARE = 5e-7


def listed(texts: Iterable[str]) -> list[str]:
    """Return the texts. Raises: InputError when there is none in them."""
    texts = list(texts)
    if not any(text and not text.isspace() for text in texts):
        raise InputError("There is no text to train a tokenizer on: every document is empty.")
    return texts


def check_size(vocab_size: int, num_special: int, num_bytes: int) -> None:
    """Raise InputError when `vocab_size` cannot hold the special symbols, the bytes and one more."""
    needed = num_special + max(num_bytes, 1)
    if vocab_size < needed:
        alphabet = f" and {num_bytes} bytes" if num_bytes else " and an alphabet"
        raise InputError(
            f"vocab_size = {vocab_size} cannot hold the {num_special} special tokens{alphabet}: "
            f"it must be at least {needed}. Raise --vocab-size."
        )


def frequent_characters(texts: list[str], coverage: float, normalizer: normalizers.Normalizer, room: int) -> list[str]:
    """Return the characters that make up `coverage` of the normalised text, and up to `room` that are seen often; sorted."""
    if not 0 < coverage <= 1:
        raise InputError(f"character_coverage = {coverage} must be above 0 and at most 1 (0.99998 suits most text).")
    written: collections.Counter[str] = collections.Counter()
    for text in texts:
        written.update(text)
    # Normalising each distinct character once is thousands of times cheaper than normalising the text.
    counts: collections.Counter[str] = collections.Counter()
    for character, n in written.items():
        for part in normalizer.normalize_str(character):
            counts[part] += n
    ordered = sorted(((n, c) for c, n in counts.items() if not c.isspace()), key=lambda pair: (-pair[0], pair[1]))
    total = sum(n for n, _ in ordered)
    enough, often = coverage * total, max(_SEEN_TIMES, _SEEN_SHARE * total)
    kept, covered = [], 0
    for n, character in ordered:
        if covered >= enough and (n < often or len(kept) >= room or coverage < DEFAULT_COVERAGE):
            break
        kept.append(character)
        covered += n
    return sorted(kept)


def train(
    raw: tokenizers.Tokenizer, trainer: object, texts: list[str], vocab_size: int, num_special: int, num_later: int = 0
) -> None:
    """Train the model; of the `vocab_size` symbols and `num_special` special ones, `num_later` come after the training."""
    try:
        raw.train_from_iterator(texts, trainer, length=len(texts))
    except Exception as error:
        # The trainers report a vocabulary that is too small as a plain Exception with a text of their own.
        raise InputError(
            f"A vocabulary of {vocab_size} symbols could not be trained on this text ({error}). "
            "Raise --vocab-size, or lower the character coverage."
        ) from error
    size = raw.get_vocab_size(with_added_tokens=True) + num_later
    if size > vocab_size:
        raise InputError(
            f"vocab_size = {vocab_size} cannot hold the {num_special} special tokens and the "
            f"{size - num_special} symbols of the alphabet of this text: raise --vocab-size to at least {size}, "
            "or lower the character coverage."
        )


def with_special_only(raw: tokenizers.Tokenizer, special: list[str]) -> tokenizers.Tokenizer:
    """Leave only `special` marked as special symbols; the others stay ordinary entries of the vocabulary."""
    description = json.loads(raw.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] in special]
    return tokenizers.Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
