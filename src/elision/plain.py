"""Dataclasses as plain JSON values and back: parts that have alternatives carry their class name as "type"."""

import dataclasses
import types
import typing
from typing import Any

from elision.errors import InputError, nearest


def to_plain(value: Any) -> Any:
    """Turn dataclasses into dicts (with their class name as "type") and tuples into lists, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """Build a value of annotated type `kind` from plain values; `where` names the field in errors."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _from_union(typing.get_args(kind), value, where)
    if origin is tuple:
        item, *rest = typing.get_args(kind)
        if not isinstance(value, list):
            raise InputError(f"{where} is {value!r}: expected a list")
        kinds = [item] * len(value) if rest == [...] else [item, *rest]
        if len(kinds) != len(value):
            raise InputError(f"{where} has {len(value)} entries: expected {len(kinds)}")
        return tuple(from_plain(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise InputError(f"{where} is {value!r}: expected one of {', '.join(map(repr, typing.get_args(kind)))}")
        return value
    if dataclasses.is_dataclass(kind):
        return _from_fields(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise InputError(f"{where} is {value!r}: expected {kind.__name__}")
    return value


def _from_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    classes = {kind.__name__: kind for kind in kinds if dataclasses.is_dataclass(kind)}
    if classes:
        given = value.get("type") if isinstance(value, dict) else None
        if given not in classes:
            raise InputError(
                f"{where}.type is {given!r}: expected one of {', '.join(classes)}.{nearest(str(given), classes)}"
            )
        return _from_fields(classes[given], value, where)
    for kind in kinds:
        try:
            return from_plain(kind, value, where)
        except InputError:
            continue
    raise InputError(f"{where} is {value!r}: expected {' or '.join(getattr(k, '__name__', str(k)) for k in kinds)}")


def _from_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {value!r}: expected an object with the fields of {kind.__name__}")
    given = {name: item for name, item in value.items() if name != "type"}
    if value.get("type", kind.__name__) != kind.__name__:
        raise InputError(f"{where}.type is {value['type']!r}: expected {kind.__name__!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in given:
        if name not in fields:
            raise InputError(f"{where}.{name} is not a field of {kind.__name__}.{nearest(name, fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise InputError(f"{where}.{name} is missing: {kind.__name__} needs it")
    return kind(**{name: from_plain(hints[name], item, f"{where}.{name}") for name, item in given.items()})
