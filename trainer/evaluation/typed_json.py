"""JSON of unknown origin as dataclasses: types are checked, numbers are finite."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

#: Levels of objects and lists in a value of type `Any`.
MAX_DEPTH = 16
MAX_INTEGER = 2**63


def parse_json(content: bytes | str) -> Any:
    """Reads JSON that holds no NaN, no infinity and no endless nesting.

    Raises:
      ValueError: it is not that.
    """
    text = content.decode() if isinstance(content, bytes) else content
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.40} is too large a number")
    return number


def to_dataclass(kind: type[Any], value: Any, place: str = "") -> Any:
    """Makes a dataclass of what `dataclasses.asdict` and JSON made of one.

    Args:
      kind: the dataclass; its fields may be of bool, int, float, str, `Any`, unions
        with None, tuples, sequences, mappings by str, and dataclasses.
      value: what `parse_json` returned. A key may be missing where the field has a
        default.
      place: named in errors.

    Raises:
      ValueError: a key is missing or unknown, or a value of another type.
    """
    entries = _expect(value, dict, "an object", place)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    missing = [
        name
        for name, field in fields.items()
        if name not in entries
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    strange = [name for name in entries if name not in fields]
    if missing or strange:
        problem = "lacks" if missing else "has the unknown"
        names = ", ".join(missing or strange)
        raise ValueError(f"{place or 'the object'} {problem} {names:.200}")
    return kind(
        **{
            name: _convert(hints[name], item, f"{place}.{name}" if place else name)
            for name, item in entries.items()
        }
    )


def _convert(hint: Any, value: Any, place: str) -> Any:
    """A value as its type hint has it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [kind for kind in arguments if kind is not type(None)]
        return _convert(hint, value, place)
    if origin is tuple and arguments[-1] is not Ellipsis:
        items = _expect(value, list, f"a list of {len(arguments)}", place)
        if len(items) != len(arguments):
            raise ValueError(f"{place} must be a list of {len(arguments)} values")
        pairs = zip(arguments, items, strict=True)
        return tuple(_convert(kind, item, place) for kind, item in pairs)
    if origin in (tuple, Sequence, collections.abc.Sequence):
        items = _expect(value, list, "a list", place)
        return tuple(
            _convert(arguments[0], item, f"{place}[{number}]")
            for number, item in enumerate(items)
        )
    if origin in (Mapping, collections.abc.Mapping):
        entries = _expect(value, dict, "an object", place)
        return {
            key: _convert(arguments[1], item, f"{place}.{key:.40}")
            for key, item in entries.items()
        }
    if dataclasses.is_dataclass(hint):
        return to_dataclass(typing.cast(type[Any], hint), value, place)
    return _convert_scalar(hint, value, place)


def _convert_scalar(hint: Any, value: Any, place: str) -> Any:
    if hint is Any:
        _check_any(value, place, MAX_DEPTH)
        return value
    if hint is float:
        _expect(value, (int, float), "a number", place)
        if isinstance(value, bool) or abs(value) > MAX_INTEGER:
            raise ValueError(f"{place} must be a number. Received: {value!r:.40}")
        return float(value)
    if hint is int:
        _expect(value, int, "an integer", place)
        if isinstance(value, bool) or abs(value) >= MAX_INTEGER:
            raise ValueError(f"{place} must be an integer. Received: {value!r:.40}")
        return value
    if hint is bool:
        return _expect(value, bool, "true or false", place)
    if hint is str:
        return _expect(value, str, "a text", place)
    raise TypeError(f"Expected a type that JSON has. Received: {hint}")


def _expect(value: Any, kind: Any, name: str, place: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(
            f"{place or 'it'} must be {name}. Received: {str(value)[:40]!r}"
        )
    return value


def _check_any(value: Any, place: str, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"{place} is nested too deeply")
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise ValueError(f"{place} holds too large a number")
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list)):
        for child in children:
            _check_any(child, place, depth - 1)
