"""Makes TensorFlow write the same bytes for the same SavedModel.

Names of functions end in a number that counts what the process has traced before, and
so do those of what they capture; functions come in no order, and `fingerprint.pb` holds
a random number. Functions are numbered anew here and sorted; that file, which nothing
needs, is deleted.

Imports TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from pipeline.common import storage
from pipeline.common.files import join

SAVED_MODEL_FILE, FINGERPRINT_FILE = "saved_model.pb", "fingerprint.pb"
_NAME = "_user_specified_name"
_NUMBERED = re.compile(r"(__inference_.*_)(\d+)")


def make_reproducible(folder: str, *, scratch: str) -> None:
    """Rewrites a SavedModel so that its bytes depend on nothing but its content.

    May be repeated.

    Args:
      folder: of the SavedModel.
      scratch: folder on the same file system for unfinished files.
    """
    path = join(folder, SAVED_MODEL_FILE)
    data = renumber_functions(storage.read_bytes(path))
    storage.write_atomically(path, data, scratch=scratch)
    storage.delete(join(folder, FINGERPRINT_FILE))


def renumber_functions(data: bytes) -> bytes:
    """Numbers functions from 0 in the order of their names, and sorts them.

    Args:
      data: serialised SavedModel.
    """
    model = saved_model_pb2.SavedModel.FromString(data)
    for graph in model.meta_graphs:
        functions = graph.graph_def.library.function
        names = _renumber(function.signature.name for function in functions)
        _replace_strings(graph, names)
        _renumber_captures(functions)
        ordered = sorted(functions, key=lambda function: function.signature.name)
        del functions[:]
        functions.extend(ordered)
    return bytes(model.SerializeToString(deterministic=True))


def _renumber(names: Iterable[str]) -> dict[str, str]:
    matches = [match for match in map(_NUMBERED.fullmatch, names) if match]
    # Those of one name in the order in which they were traced.
    ordered = sorted(matches, key=lambda match: (match[1], int(match[2])))
    return {match[0]: f"{match[1]}{number}" for number, match in enumerate(ordered)}


def _renumber_captures(functions: Iterable[Any]) -> None:
    """Numbers arguments without a name of their own from 0, in the order they had."""
    captures = [
        attributes.attr[_NAME]
        for function in functions
        for attributes in function.arg_attr.values()
        # Looking for it by its name would make it.
        if _NAME in attributes.attr and attributes.attr[_NAME].s.isdigit()
    ]
    numbers = sorted({int(capture.s) for capture in captures})
    for capture in captures:
        capture.s = str(numbers.index(int(capture.s))).encode()


def _replace_strings(message: Any, names: Mapping[str, str]) -> None:
    """Replaces all strings in a protobuf message, map keys included."""
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            _replace_in_map(field, value, names)
        elif field.type == field.TYPE_MESSAGE:
            for item in value if _is_repeated(value) else [value]:
                _replace_strings(item, names)
        elif field.type == field.TYPE_STRING:
            if _is_repeated(value):
                value[:] = [names.get(text, text) for text in value]
            else:
                setattr(message, field.name, names.get(value, value))


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "extend")


def _replace_in_map(field: Any, value: Any, names: Mapping[str, str]) -> None:
    value_field = field.message_type.fields_by_name["value"]
    is_message = value_field.type == value_field.TYPE_MESSAGE
    for key in list(value):
        if is_message:
            _replace_strings(value[key], names)
        elif value_field.type == value_field.TYPE_STRING:
            value[key] = names.get(value[key], value[key])
        new = names.get(key, key)
        if new != key:
            if is_message:
                value[new].CopyFrom(value[key])
            else:
                value[new] = value[key]
            del value[key]
