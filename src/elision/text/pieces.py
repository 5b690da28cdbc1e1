"""How vocabularies write their symbols: where a word begins, and how to show a symbol to a reader."""

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

WORD_START = "▁"


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a vocabulary marks words: a prefix on continuations ("##"), or a prefix on starts ("Ġ", "▁")."""

    kind: Literal["continuation", "bytes", "start", "none"]
    mark: str = ""


def scheme_of(description: dict[str, Any]) -> Scheme:
    """Read the scheme from the content of a tokenizer.json."""
    model = description["model"]
    if model["type"] == "WordPiece":
        return Scheme("continuation", model["continuing_subword_prefix"])
    parts = [part for name in ("pre_tokenizer", "decoder", "normalizer") for part in _flat(description.get(name))]
    for part in parts:
        if part["type"] == "ByteLevel":
            return Scheme("bytes", "Ġ")
        if part["type"] == "Metaspace":
            return Scheme("start", part["replacement"])
        if part["type"] == "Prepend":
            return Scheme("start", part["prepend"])
    if model["type"] == "BPE" and model.get("continuing_subword_prefix"):
        return Scheme("continuation", model["continuing_subword_prefix"])
    return Scheme("none")


def continues_word(strings: Sequence[str], scheme: Scheme) -> list[bool]:
    """Tell for each symbol whether it continues the word of the symbol before it.

    Punctuation on its own begins a word, as in WordPiece, also where no space leads it; so does white space.
    """
    if scheme.kind == "none":
        return [False] * len(strings)
    if scheme.kind == "continuation":
        return [string.startswith(scheme.mark) and len(string) > len(scheme.mark) for string in strings]
    texts = [_text_of_bytes(string) for string in strings] if scheme.kind == "bytes" else strings
    return [not string.startswith(scheme.mark) and _is_wordlike(text) for string, text in zip(strings, texts)]


def printable(strings: Sequence[str], scheme: Scheme, special: Sequence[bool]) -> list[str]:
    """Return what to show for each symbol."""
    if scheme.kind != "bytes":
        return [string.replace("\n", "⏎") for string in strings]
    return [string if keep else _show_bytes(string) for string, keep in zip(strings, special)]


def texts(strings: Sequence[str], scheme: Scheme) -> list[str]:
    """Return the text of each symbol without the mark of its scheme and the space that leads it; of part of a character none."""
    if scheme.kind == "bytes":
        return [(_text_of_bytes(string) or "").removeprefix(" ") for string in strings]
    return [string.removeprefix(scheme.mark) for string in strings]


def _flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    if part["type"] == "Sequence":
        inner = next(value for value in part.values() if isinstance(value, list))
        return [leaf for child in inner for leaf in _flat(child)]
    return [part]


def _is_wordlike(text: str | None) -> bool:
    # None: part of a character, which always belongs to what stands before it.
    return text is None or any(unicodedata.category(character)[0] in "LNM" for character in text)


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's printable stand-in for each byte: itself where it prints, else the next code point from 256."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTES = _byte_alphabet()


def _to_bytes(string: str) -> bytes | None:
    return bytes(_BYTES[c] for c in string) if all(c in _BYTES for c in string) else None


def _text_of_bytes(string: str) -> str | None:
    data = _to_bytes(string)
    if data is None:
        return string
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _show_bytes(string: str) -> str:
    data = _to_bytes(string)
    if data is None:
        return string
    text = data.decode("utf-8", "backslashreplace")
    text = "".join(f"<0x{part[:2].upper()}>{part[2:]}" if i else part for i, part in enumerate(text.split("\\x")))
    return text.replace(" ", WORD_START).replace("\n", "⏎").replace("\t", "⇥")
