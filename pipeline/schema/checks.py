"""Checks every value of a manifest before it is believed. Standard library only."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Set
from typing import Any, TypeVar

from pipeline.schema.basics import SPLITS, UserError, shard_file, shorten
from pipeline.schema.records import (
    CLIP_FIELDS,
    LABEL_FIELD,
    LABELS_NAME,
    SINGLE_LABEL,
    TASKS,
    Field,
    Normalisation,
    RepresentationSchema,
    Segment,
    ShardFile,
    Split,
)

T = TypeVar("T")

#: A manifest that is larger is none: one of 100,000 shards has half of it.
MOST_BYTES = 128 << 20
_MOST_SHARDS, _MOST_REPRESENTATIONS = 99_999, 100
#: Of a dataset; letters of the name of each.
MOST_GENRES, MOST_GENRE_LETTERS = 10_000, 1_000
_MOST_VALUES, _MOST_COUNT = 1 << 30, 1 << 53
#: NumPy names by encoding.
_DTYPES = {
    "int64_list": ("int64",),
    "float_list": ("float32",),
    "bytes_list": ("string",),
    "raw_bytes": ("uint8", "int64", "float32"),
}
#: Names that a representation's value cannot have.
_OWN_NAMES = ("", LABEL_FIELD.name, LABELS_NAME, *(field.name for field in CLIP_FIELDS))
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,99}", re.ASCII)


class _WrongError(Exception):
    """A value that cannot be; the message says where and what it should be."""


def parse(text: str | bytes, source: str) -> Any:
    """Parses JSON as it stands in files of ours: no NaN, no depth, no gigabytes.

    Raises:
      UserError: it is something else.
    """
    again = "preprocess the dataset again."
    if len(text) > MOST_BYTES:
        raise UserError(f"{source} has over {MOST_BYTES >> 20} MiB; {again}")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise UserError(f"{source} is not valid JSON (nested); {again}") from error
    except ValueError as error:
        reason = shorten(str(error), 120)[1:-1]
        raise UserError(f"{source} is not valid JSON ({reason}); {again}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read_values(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values of a manifest's fields, of parsed JSON that has all of its keys.

    Raises:
      UserError: a value is of a wrong type or size, or two of them disagree.
    """
    try:
        values = _read_values(raw)
        _check_sums(values)
    except _WrongError as error:
        raise UserError(
            f"{source} is damaged: {error}; copy the dataset again, or preprocess the "
            "dataset again."
        ) from error
    return values


def check_whole(values: Mapping[str, Any], source: str) -> None:
    """Makes sure that a dataset's manifest says all that one job writes.

    That of a model may say less.

    Raises:
      UserError: it does not.
    """
    try:
        splits = set(SPLITS)
        _require(set(values["clips"]) == splits, "clips", "by split", values["clips"])
        names = values["representations"].keys()
        for name in names:
            counts = values["records"].get(name, {})
            _require(set(counts) == splits, f"records.{name}", "by split", counts)
    except _WrongError as error:
        raise UserError(
            f"{source} is damaged: {error}; preprocess the dataset again."
        ) from error


def _read_values(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "genres": _list(raw, "genres", _genre, most=MOST_GENRES),
        "representations": _mapping(raw, "representations", _representation),
        "num_shards": _count(raw["num_shards"], "num_shards", 1, _MOST_SHARDS),
        "clips": _mapping(raw, "clips", _counts),
        "records": _mapping(raw, "records", _counts),
        "record_bytes": _mapping(raw, "record_bytes", _count),
        "normalisation": _mapping(raw, "normalisation", _normalisation),
        "settings": _mapping(raw, "settings", _scalar),
        "split_rule": _text(raw["split_rule"], "split_rule"),
        "split": _split(raw["split"], "split"),
        "synthetic": _truth(raw["synthetic"], "synthetic"),
        "music_model": _mapping(raw, "music_model", _text),
        "artists_in_several_splits": _list(raw, "artists_in_several_splits", _text),
        "audio_in_several_splits": _list(raw, "audio_in_several_splits", _text),
        "inputs": _mapping(raw, "inputs", _count),
        "rejects": _mapping(raw, "rejects", _count),
        "versions": _mapping(raw, "versions", _text),
        "fingerprint": _fingerprint(raw["fingerprint"]),
        "files": _mapping(raw, "files", _file),
        "integrity": _mapping(raw, "integrity", _count),
        "description": _text(raw["description"], "description"),
        "task": _task(raw["task"]),
        "genre_paths": _mapping(raw, "genre_paths", _path),
        "clip_totals": _counts(raw["clip_totals"] or {}, "clip_totals"),
        "schema_version": raw["schema_version"],
    }


# Values: each takes what was parsed and where it stood.


def _require(condition: bool, where: str, expectation: str, value: object) -> None:
    if not condition:
        raise _WrongError(f"{where} must be {expectation}, not {shorten(value)}")


def _text(value: Any, where: str) -> str:
    _require(isinstance(value, str), where, "text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _WrongError(f"{where} must be text, not {shorten(value)}") from error
    return str(value)


def _genre(value: Any, where: str) -> str:
    name = _text(value, where)
    _require(0 < len(name) <= MOST_GENRE_LETTERS, where, "a name", value)
    return name


def _task(value: Any) -> str:
    _require(value in TASKS, "task", " or ".join(TASKS), value)
    return str(value)


def _path(value: Any, where: str) -> tuple[str, ...]:
    path = _list({where: value}, where, _genre, most=MOST_GENRES)
    _require(0 < len(set(path)) == len(path), where, "of genres, each once", value)
    return path


def _fingerprint(value: Any) -> str:
    name = _text(value, "fingerprint")
    _require(bool(_NAME.fullmatch(name)), "fingerprint", "a digest", value)
    return name


def _count(value: Any, where: str, least: int = 0, most: int = _MOST_COUNT) -> int:
    fits = type(value) is int and least <= value <= most
    _require(fits, where, f"a whole number from {least} to {most}", value)
    return int(value)


def _number(value: Any, where: str) -> float:
    fits = type(value) in (int, float) and abs(value) < 1e300
    _require(fits, where, "a finite number", value)
    return float(value) if isinstance(value, float) else value


def _scalar(value: Any, where: str) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, where)
    _require(isinstance(value, str | bool), where, "a number, text or truth", value)
    return value


def _object(value: Any, where: str, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    _require(isinstance(value, dict), where, "an object", value)
    if keys:
        fits = set(value) == set(keys)
        _require(fits, where, f"an object of {', '.join(keys)}", value)
    return dict(value)


def _mapping(
    raw: Mapping[str, Any], key: str, check: Callable[[Any, str], T]
) -> dict[str, T]:
    entries = _object(raw[key], key)
    return {_text(n, key): check(v, f"{key}.{shorten(n)}") for n, v in entries.items()}


def _list(
    raw: Mapping[str, Any],
    key: str,
    check: Callable[[Any, str], T],
    most: int = _MOST_VALUES,
) -> tuple[T, ...]:
    values = raw[key]
    fits = isinstance(values, list) and len(values) <= most
    _require(fits, key, f"a list of at most {most}", values)
    return tuple(check(value, f"{key}[{i}]") for i, value in enumerate(values))


def _counts(value: Any, where: str) -> dict[str, int]:
    return _mapping({where: value}, where, _count)


def _normalisation(value: Any, where: str) -> Normalisation:
    content = _object(value, where, ("mean", "variance"))
    variance = _list(content, "variance", _number)
    _require(min(variance, default=0) >= 0, where, "of variances from 0 on", variance)
    return Normalisation(mean=_list(content, "mean", _number), variance=variance)


def _file(value: Any, where: str) -> ShardFile:
    content = _object(value, where, ("records", "size", "crc32c"))
    crc = _text(content["crc32c"], where)
    _require(bool(re.fullmatch("[0-9a-f]{8}", crc)), where, "of a CRC32C", crc)
    return ShardFile(
        records=_count(content["records"], where),
        size=_count(content["size"], where),
        crc32c=crc,
    )


def _split(value: Any, where: str) -> Split | None:
    if value is None:
        return None
    content = _object(value, where, ("rule", "percent"))
    rule = content["rule"]
    percent = _list(content, "percent", _number, most=len(SPLITS))
    fits = rule in ("fma", "hash") and len(percent) == (rule == "hash") * len(SPLITS)
    fits = fits and min(percent, default=0) >= 0
    _require(fits, where, "a rule and its shares", value)
    return Split(rule=rule, percent=percent)


def _truth(value: Any, where: str) -> bool:
    _require(isinstance(value, bool), where, "true or false", value)
    return bool(value)


def _representation(value: Any, where: str) -> RepresentationSchema:
    content = _object(value, where, ("name", "value", "records_per_clip", "segments"))
    name = _text(content["name"], where)
    _require(bool(_NAME.fullmatch(name)), where, "named as a folder may be", name)
    field = _object(content["value"], where, ("name", "dtype", "shape", "encoding"))
    shape = tuple(
        _count(size, where, 1, _MOST_VALUES)
        for size in _list(field, "shape", _count, most=8)
    )
    _require(math.prod(shape) <= _MOST_VALUES, where, "of fewer values", shape)
    encoding, dtype = field["encoding"], field["dtype"]
    fits = isinstance(encoding, str) and dtype in _DTYPES.get(encoding, ())
    _require(fits, where, "of a known dtype and encoding", (dtype, encoding))
    field_name = _text(field["name"], where)
    _require(
        field_name not in _OWN_NAMES,
        where,
        "of a value with a name of its own",
        field_name,
    )
    segments = _list(content, "segments", _segment)
    lengths = sum(segment.length for segment in segments)
    fits = not segments or lengths == math.prod(shape)
    _require(fits, where, f"of segments of {math.prod(shape)} values", lengths)
    return RepresentationSchema(
        name=name,
        value=Field(name=field_name, dtype=dtype, shape=shape, encoding=encoding),
        records_per_clip=_count(content["records_per_clip"], where, 1, _MOST_VALUES),
        segments=segments,
    )


def _segment(value: Any, where: str) -> Segment:
    content = _object(value, where, ("name", "length"))
    return Segment(
        name=_text(content["name"], where),
        length=_count(content["length"], where, 1, _MOST_VALUES),
    )


# What two values say of each other


def _check_sums(values: Mapping[str, Any]) -> None:
    genres, schemas = set(values["genres"]), values["representations"]
    fits = 0 < len(genres) == len(values["genres"])
    _require(fits, "genres", "names, each once", values["genres"])
    fits = 0 < len(schemas) <= _MOST_REPRESENTATIONS
    _require(fits, "representations", "there", sorted(schemas))
    for name, schema in schemas.items():
        _require(name == schema.name, "representations", f"{name!r}", schema.name)
    for name, path in values["genre_paths"].items():
        where = f"genre_paths.{shorten(name)}"
        _require(name in genres and path[-1] == name, where, "of a genre", path)
    clips = _add_clips(values, genres)
    inputs = values["inputs"]
    if inputs.keys() >= {"clips", "rejects", "total"}:
        total = sum(clips.values())
        fits = inputs["clips"] == total == inputs["total"] - inputs["rejects"]
        _require(fits, "inputs", f"{total} clips, rejects, and their sum", inputs)
        rejects = sum(values["rejects"].values())
        _require(
            rejects == inputs["rejects"], "rejects", "as many as inputs say", rejects
        )
    stated = values["clip_totals"]
    fits = stated == clips or (values["task"] == SINGLE_LABEL and not stated)
    _require(fits, "clip_totals", f"{clips}", stated)
    for key in ("records", "record_bytes", "normalisation"):
        names = values[key].keys()
        _require(names <= schemas.keys(), key, "by representation", sorted(names))
    for name, counts in values["records"].items():
        _require(counts.keys() <= clips.keys(), f"records.{name}", "by split", counts)
    for name, constants in values["normalisation"].items():
        lengths = (len(constants.mean), len(constants.variance))
        segments = len(schemas[name].segments)
        fits = lengths == (segments, segments)
        _require(fits, f"normalisation.{name}", f"of {segments} segments", lengths)
    if values["files"]:
        _check_files(values)


def _add_clips(values: Mapping[str, Any], genres: Set[str]) -> dict[str, int]:
    """Clips by split, of which each has a genre, or several."""
    single = values["task"] == SINGLE_LABEL
    totals: dict[str, int] = {}
    stated = values["clip_totals"]
    for split, counts in values["clips"].items():
        _require(split in SPLITS, "clips", "by split", split)
        _require(counts.keys() <= genres, f"clips.{split}", "by genre", counts)
        labels = sum(counts.values())
        totals[split] = labels if single else stated.get(split, 0)
        fits = max(counts.values(), default=0) <= totals[split] <= labels
        _require(fits, f"clips.{split}", f"of {totals[split]} clips", counts)
    return totals


def _check_files(values: Mapping[str, Any]) -> None:
    """All shards are listed, nothing else, with the records that there are."""
    files, number = values["files"], values["num_shards"]
    count = len(values["representations"]) * len(SPLITS) * number
    _require(len(files) == count, "files", f"{count}", len(files))
    for name in values["representations"]:
        size = 0
        for split in SPLITS:
            records = 0
            for shard in range(number):
                path = shard_file(name, split, shard, number)
                _require(path in files, "files", f"with {path}", "without it")
                records += files[path].records
                size += files[path].size
            stated = values["records"].get(name, {}).get(split, 0)
            fits = records == stated
            _require(fits, f"files of {name}", f"{stated} records", records)
        stated = values["record_bytes"].get(name, 0)
        _require(size == stated, f"files of {name}", f"{stated} bytes", size)
