"""Damage to JSON and to bytes, the same for the same seed."""

import random

#: Values of other types and ranges than any file of ours has.
VALUES = (
    *(None, True, -1, 0, 10**30, 1e308, "", "x", "../..", "\ud800", [], {}, [[]]),
    *([None], {"class_name": 1}, 0.5, [1, 2, 3], "float64", {"": ""}),
)


def mutate_json(value, rng: random.Random):
    """The value with one of its parts replaced, removed or doubled."""
    places = []

    def collect(container):
        keys = container if isinstance(container, dict) else range(len(container))
        for key in list(keys):
            places.append((container, key))
            if isinstance(container[key], (dict, list)):
                collect(container[key])

    collect(value)
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    container, key = rng.choice(places)
    match rng.randrange(4):
        case 0 | 1:
            container[key] = rng.choice(VALUES)
        case 2:
            del container[key]
        case _ if isinstance(container, dict):
            container[f"{key}x"] = container[key]
        case _:
            container.append(container[key])
    return value


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    match rng.randrange(3):
        case 0:
            for _ in range(rng.choice((1, 3, 30))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data)) :]
        case _:
            start = rng.randrange(len(data))
            data[start : start + rng.randrange(1, 200)] = rng.randbytes(50)
    return bytes(data)
