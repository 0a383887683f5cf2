"""Manifests that are damaged or hostile, one for each seed."""

from __future__ import annotations

import json
import random
from typing import Any

#: What may stand anywhere.
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    "2",
    1e9,
    10**15,
    10**30,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../etc",
    "\x1b[31m\n",
    "\ud800",
    "x" * 100_000,
    [],
    [[]],
    [None],
    {},
    {"x": {}},
    [1] * 50,
)


def damage(text: str, seed: int) -> bytes:
    """Replaces, removes or adds values, or bytes."""
    draw = random.Random(seed)
    kind = draw.choice(("value", "value", "value", "remove", "add", "key", "bytes"))
    if kind == "bytes":
        return _damage_bytes(text.encode(), draw)
    content = json.loads(text)
    for _ in range(draw.randint(1, 2)):
        parent = content
        while True:
            keys = list(parent) if isinstance(parent, dict) else range(len(parent))
            key = draw.choice(list(keys))
            child = parent[key]
            if not (isinstance(child, dict | list) and child) or draw.random() < 0.3:
                break
            parent = child
        value = draw.choice(VALUES)
        if kind == "remove":
            del parent[key]
        elif kind == "add" and isinstance(parent, dict):
            parent["colour"] = value
        elif kind == "key" and isinstance(parent, dict):
            parent[str(value)] = parent.pop(key)
        else:
            parent[key] = value
        if not content:
            break
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _damage_bytes(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return draw.choice(
        (
            data[:place],
            data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :],
            data[:place] + b"\xff\xfe" + data[place:],
            b"[" * 100_000,
            b'{"a":' * 100_000,
            data[:place] + b"9" * 6000 + data[place:],
            b"",
            b"null",
            data + data,
            data.decode().encode("utf-16"),
        )
    )
