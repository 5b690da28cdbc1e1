"""What happens to a text before it is tokenised, and the count of everything that was changed or left out."""

import dataclasses
import re
import unicodedata
from typing import Any, Literal

from elision.errors import InputError
from elision.text.formats import Document

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Zero-width joiners stay: Indic scripts and Persian are spelled with them.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
# ASCII that the two rules above concern: a table of bytes finds none in a text ten times faster than an expression.
_ASCII_CONCERNED = bytes(code for code in range(128) if (code < 32 and code not in (9, 10)) or code == 127)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUM_EXAMPLES = 20

DROPPED = {
    "empty_documents": "empty",
    "incomplete_pairs": "pairs without one of their sides",
    "invalid_documents": "invalid UTF-8",
    "duplicate_documents": "exact duplicates",
    "near_duplicate_documents": "near duplicates",
    "tokenless_documents": "no tokens",
}
CHANGED = {
    "invalid_bytes": "invalid bytes replaced",
    "control_characters": "control characters removed",
    "long_lines": "over-long lines removed",
    "nfc_documents": "documents brought to NFC",
}


@dataclasses.dataclass
class Report:
    """How much cleaning did: one counter per rule, and where invalid text stood."""

    counts: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys([*DROPPED, *CHANGED], 0))
    invalid_at: list[str] = dataclasses.field(default_factory=list)
    """`file:line` of the first invalid places."""

    def add(self, rule: str, amount: int = 1) -> None:
        """Count `amount` more cases of one rule."""
        self.counts[rule] += amount

    def to_json(self) -> dict[str, Any]:
        """Return the form that is kept in the manifest."""
        return {**self.counts, "invalid_at": list(self.invalid_at)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Report":
        """Return the report that `to_json` wrote."""
        counts = {rule: n for rule, n in value.items() if rule != "invalid_at"}
        return Report(Report().counts | counts, list(value["invalid_at"]))


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """The rules a text goes through, each of which can be switched off."""

    nfc: bool = True
    """Bring text to the composed Unicode form NFC, so that one letter has one spelling."""
    control_characters: bool = True
    """Remove control characters and byte-order marks, and make every line end a plain newline."""
    invalid_utf8: Literal["replace", "skip", "error"] = "replace"
    """What to do with bytes that are not UTF-8: put U+FFFD in their place, skip the document, or stop."""
    max_line_characters: int = 100_000
    """Remove lines longer than this (data in disguise, such as base64); 0 keeps all."""
    duplicates: bool = True
    """Keep only the first of documents that are equal."""
    near_duplicates: float | None = None
    """Also drop a document this similar to an earlier one (Jaccard of five-word runs, 0.8 is usual); needs
    elision[dedup] and about 1 kB of memory a document."""

    def clean(self, text: str, where: str, report: Report) -> str | None:
        """Return the cleaned text, or None when nothing of it stays; counts in `report` what was done.

        Raises: InputError for invalid UTF-8 under `invalid_utf8="error"`, naming file and line.
        """
        if not text.isascii():
            text = self._repair(text, where, report)
            if text is None:
                return None
        if self.control_characters and not _is_plain_ascii(text):
            text = _LINE_ENDS.sub("\n", text)
            text, count = _CONTROL.subn("", text)
            if count:
                report.add("control_characters", count)
        if self.nfc and not text.isascii() and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            report.add("nfc_documents")
        if self.max_line_characters and len(text) > self.max_line_characters:
            lines = text.split("\n")
            kept = [line for line in lines if len(line) <= self.max_line_characters]
            if len(kept) < len(lines):
                report.add("long_lines", len(lines) - len(kept))
                text = "\n".join(kept)
        text = text.strip()
        if not text:
            report.add("empty_documents")
            return None
        return text

    def clean_document(self, document: Document, report: Report) -> tuple[str, ...]:
        """Return the cleaned text of a document, or of both sides of a pair; nothing when it is dropped."""
        if document.translation is None:
            text = self.clean(document.text, document.where, report)
            return () if text is None else (text,)
        sides = (document, document.translation)
        texts: list[str] = []
        if all(side.text.strip() for side in sides):
            texts = [text for side in sides if (text := self.clean(side.text, side.where, report)) is not None]
        if len(texts) < len(sides):
            report.add("incomplete_pairs")
            return ()
        return tuple(texts)

    def _repair(self, text: str, where: str, report: Report) -> str | None:
        # Readers hand over undecodable bytes as lone surrogates, which valid text never holds.
        first = _SURROGATE.search(text)
        if first is None:
            return text
        file, _, line = where.rpartition(":")
        place = f"{file}:{int(line) + text.count(chr(10), 0, first.start())}" if line.isdigit() else where
        if self.invalid_utf8 == "error":
            raise InputError(
                f"{place} is not valid UTF-8. Convert the file (iconv -f OLD -t UTF-8), or allow it with "
                "--cleaning.invalid-utf8 replace or skip."
            )
        if len(report.invalid_at) < _NUM_EXAMPLES:
            report.invalid_at.append(place)
        if self.invalid_utf8 == "skip":
            report.add("invalid_documents")
            return None
        text, count = _SURROGATE.subn("\ufffd", text)
        report.add("invalid_bytes", count)
        return text


def _is_plain_ascii(text: str) -> bool:
    return text.isascii() and len(text.encode().translate(None, _ASCII_CONCERNED)) == len(text)
