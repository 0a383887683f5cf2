import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from trainer.evaluation.typed_json import parse_json, to_dataclass


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    share: float | None = None


@dataclasses.dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    interval: tuple[float, float]
    counts: Mapping[str, int]
    flags: Sequence[bool] = ()
    extra: Any = None


VALUE = {"parts": [{"name": "a"}], "interval": [0, 1.5], "counts": {"x": 1}}


def test_values_become_what_the_fields_are():
    whole = to_dataclass(Whole, {**VALUE, "flags": [True], "extra": {"a": [1]}})
    assert whole == Whole((Part("a"),), (0.0, 1.5), {"x": 1}, (True,), {"a": [1]})
    assert isinstance(whole.interval[0], float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": None}, "parts must be a list"),
        ({"parts": [3]}, r"parts\[0\] must be an object"),
        ({"parts": [{}]}, r"parts\[0\] lacks name"),
        ({"parts": [{"name": "a", "share": "x"}]}, "share must be a number"),
        ({"parts": [{"name": "a", "share": True}]}, "share must be a number"),
        ({"parts": [{"name": 3}]}, "name must be a text"),
        ({"interval": [1]}, "interval must be a list of 2"),
        ({"counts": {"x": 1.0}}, "counts.x must be an integer"),
        ({"counts": {"x": 2**63}}, "counts.x must be an integer"),
        ({"flags": [1]}, "true or false"),
        ({"extra": 2**70}, "too large a number"),
        ({"colour": 1}, "has the unknown colour"),
    ],
)
def test_other_types_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        to_dataclass(Whole, {**VALUE, **change})


def test_deep_values_are_refused():
    deep: Any = 1
    for _ in range(50):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        to_dataclass(Whole, {**VALUE, "extra": deep})


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "1e999", "[" * 100_000, "{", b"\xff", "9" * 5_000]
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
