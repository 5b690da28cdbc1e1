"""Ids into text as they come, and the texts at which writing stops."""

from collections.abc import Iterable, Iterator, Sequence

from elision.text.tokenizer import Tokenizer

UNDECIDED = "\ufffd"


def stream_text(
    tokenizer: Tokenizer, prompt: Sequence[int], new: Iterable[int], stop: Sequence[str] = ()
) -> Iterator[str]:
    """Turn ids into pieces of text as they come; a character spread over several tokens is held back.

    The pieces join to what follows the prompt when prompt and new ids are decoded together; the first of the texts in `stop`
    ends them, and is not among them. What may be the beginning of one is held back, too.
    """
    # Decoding needs the tokens before for the spaces between words, but not all of them each time.
    held = list(prompt[-8:])
    shown = _decided(tokenizer.decode(held))
    begin = len(shown)
    for token in new:
        held.append(token)
        text = tokenizer.decode(held)
        at = first_of(text, stop, begin)
        if at is not None:
            if at > len(shown):
                yield text[len(shown) : at]
            return
        decided = _decided(text)
        open_at = _may_begin(decided, stop, begin)
        if open_at > len(shown):
            yield decided[len(shown) : open_at]
            shown = decided[:open_at]
        if len(held) > 64 and shown == text:
            held = held[-8:]
            shown = _decided(tokenizer.decode(held))
            begin = len(shown)
    rest = tokenizer.decode(held)[len(shown) :]
    if rest:
        yield rest


def first_of(text: str, stop: Sequence[str], begin: int = 0) -> int | None:
    """Return where the first of the texts in `stop` begins, from `begin` on; None where there is none."""
    found = [at for at in (text.find(each, begin) for each in stop) if at >= 0]
    return min(found, default=None)


def _may_begin(text: str, stop: Sequence[str], begin: int) -> int:
    """Return how much of a text is left when an end that may yet grow to one of `stop` is cut off."""
    cut = len(text)
    for each in stop:
        for size in range(min(len(each) - 1, len(text) - begin), 0, -1):
            if text.endswith(each[:size]):
                cut = min(cut, len(text) - size)
                break
    return cut


def _decided(text: str) -> str:
    """Leave out a last character that may yet change: the sign for bytes that are no character so far."""
    return text[:-1] if text.endswith(UNDECIDED) else text
