"""The config.json of a Hugging Face folder, read field by field with errors that name the field."""

import json
from pathlib import Path
from typing import Any

from elision.errors import InputError


class Config:
    """The values of config.json; `notes` gathers what the reader of an import should know."""

    def __init__(self, path: Path):
        """Read the file. Raises: InputError when it is no JSON object."""
        self.path, self.notes = path, []
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{path} must hold a JSON object")
        self.values: dict[str, Any] = values
        if values.get("quantization_config"):
            raise InputError(
                f"{path}: quantization_config is set; quantised weights cannot be read. Dequantise them first"
            )
        if values.get("pruned_heads"):
            raise InputError(f"{path}: pruned_heads is {values['pruned_heads']!r}; pruned models are not supported")

    def note(self, text: str) -> None:
        """Remember something that the user should be told."""
        self.notes.append(text)

    def require(self, field: str, value: Any) -> None:
        """Raise InputError unless the field has this value or is absent."""
        given = self.values.get(field)
        if given is not None and given != value:
            raise InputError(f"{self.path}: {field} is {given!r}; only {value!r} is supported")

    def count(self, field: str, default: int | None = None, also: str = "") -> int:
        """Return a whole number from 1 on; `also` is another name of the field."""
        value = self._get(field, default, also)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{self.path}: {field} is {value!r}; expected a whole number from 1 on")
        return value

    def number(self, field: str, default: float) -> float:
        """Return a number from 0 on."""
        value = self._get(field, default, "")
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise InputError(f"{self.path}: {field} is {value!r}; expected a number from 0 on")
        return float(value)

    def choice(self, field: str, known: dict[str, str], default: str) -> str:
        """Return what one of the known names stands for."""
        value = self._get(field, default, "")
        if value not in known:
            raise InputError(f"{self.path}: {field} is {value!r}; supported are {', '.join(known)}")
        return known[value]

    def _get(self, field: str, default: Any, also: str) -> Any:
        value = self.values.get(field)
        if value is None and also:
            value = self.values.get(also)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"{self.path}: {field} is missing, and nothing else says what it is")
        return value
