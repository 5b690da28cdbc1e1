"""Translation memories (TMX 1.4): pairs of segments from a stream of XML, in bounded memory."""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from elision.errors import InputError

_BLOCK = 1 << 16
# What stands in these is mark-up of the program that the text came from, no text.
_CODES = {"bpt", "ept", "ph", "it", "ut"}


def translation_units(
    stream: io.BufferedReader, path: Path, languages: tuple[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield (where, first side, second side) for every unit that has either language; "" for a side that it lacks.

    "en" also takes "en-US", and a unit's first variant where it has several. Nothing outside the file is ever read.

    Raises: InputError for what is not well-formed, declares entities, or has no unit in both languages.
    """
    reader = _Reader(path, languages)
    found = False
    while block := stream.read(_BLOCK):
        reader.feed(block)
        for pair in reader.units:
            found |= bool(pair[1] and pair[2])
            yield pair
        reader.units.clear()
    reader.feed(b"", final=True)
    if not found:
        there = ", ".join(sorted(reader.languages)) or "none"
        raise InputError(
            f"{path} has no translation unit in both {languages[0]} and {languages[1]}. Its languages: {there}."
        )


@dataclasses.dataclass(eq=False)
class _Reader:
    """Gathers the segments of one unit after the other as the parser meets them."""

    path: Path
    wanted: tuple[str, str]

    def __post_init__(self) -> None:
        self.units: list[tuple[str, str, str]] = []
        self.languages: set[str] = set()
        self._sides: dict[int, str] = {}
        self._side: int | None = None
        self._text: list[str] | None = None
        self._codes = 0
        self._line = 0
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        # An entity can expand to gigabytes, or name a file: a translation memory needs none of its own.
        self._parser.EntityDeclHandler = self._refuse_entity
        self._parser.SkippedEntityHandler = self._refuse_entity

    def feed(self, block: bytes, final: bool = False) -> None:
        """Parse the next part of the file."""
        try:
            self._parser.Parse(block, final)
        except expat.ExpatError as error:
            raise InputError(f"{self.path} is not well-formed XML: {error}.") from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "tu":
            self._sides, self._line = {}, self._parser.CurrentLineNumber
        elif name == "tuv":
            language = attributes.get("xml:lang", attributes.get("lang", ""))
            self.languages.add(language)
            self._side = next((side for side in (0, 1) if _is(language, self.wanted[side])), None)
        elif name == "seg" and self._side is not None:
            self._text = []
        elif name in _CODES:
            self._codes += 1

    def _end(self, name: str) -> None:
        if name == "seg" and self._text is not None:
            self._sides.setdefault(self._side, "".join(self._text))
            self._text = None
        elif name == "tuv":
            self._side = None
        elif name == "tu" and self._sides:
            self.units.append((f"{self.path}:{self._line}", self._sides.get(0, ""), self._sides.get(1, "")))
        elif name in _CODES:
            self._codes -= 1

    def _characters(self, text: str) -> None:
        if self._text is not None and not self._codes:
            self._text.append(text)

    def _refuse_entity(self, name: str, *rest: object) -> None:
        raise InputError(
            f"{self.path}:{self._parser.CurrentLineNumber} declares or uses the entity {name!r}: entities of one's own are "
            f"not read. Write the characters themselves."
        )


def _is(language: str, wanted: str) -> bool:
    language, wanted = language.lower().replace("_", "-"), wanted.lower().replace("_", "-")
    return language == wanted or language.startswith(f"{wanted}-")
