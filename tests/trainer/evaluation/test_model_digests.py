import json

import pytest

from pipeline.schema import UserError
from trainer.evaluation.model_digests import (
    MAX_BYTES,
    FileDigest,
    ModelDigests,
    digest_bytes,
)

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
DIGESTS = ModelDigests(
    representation="mel", genres=8, files={"model.keras": digest_bytes(b"abc")}
)


def test_digests_are_those_of_the_standard():
    expected = FileDigest(sha256=SHA256_OF_ABC, size=3)
    assert digest_bytes(b"abc") == expected


def test_a_file_that_was_written_is_read():
    assert ModelDigests.from_json(DIGESTS.to_json().encode(), "x") == DIGESTS


def test_only_the_very_same_file_passes():
    DIGESTS.check("model.keras", digest_bytes(b"abc"), "m/model.keras")
    with pytest.raises(UserError, match=r"m/model.keras has 2 bytes, model.json says"):
        DIGESTS.check("model.keras", digest_bytes(b"ab"), "m/model.keras")
    with pytest.raises(UserError, match="another SHA-256"):
        DIGESTS.check("model.keras", digest_bytes(b"abd"), "m/model.keras")
    with pytest.raises(UserError, match=r"m/a is not named in the model.json"):
        DIGESTS.check("a", digest_bytes(b"abc"), "m/a")


def change(**changes) -> bytes:
    return json.dumps(json.loads(DIGESTS.to_json()) | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 100_000,
        b" " * (MAX_BYTES + 1),
        change(files=None),
        change(files=[]),
        change(files={"a": None}),
        change(files={"a": {"size": 1}}),
        change(files={"a": {"size": 1, "sha256": "0"}}),
        change(files={"a": {"size": 1.0, "sha256": SHA256_OF_ABC}}),
        change(files={"a": {"size": -1, "sha256": SHA256_OF_ABC}}),
        change(files={"../a": {"size": 1, "sha256": SHA256_OF_ABC}}),
        change(files={"..": {"size": 1, "sha256": SHA256_OF_ABC}}),
        change(files={"model.json": {"size": 1, "sha256": SHA256_OF_ABC}}),
        change(genres=True),
        change(genres="8"),
        change(representation=None),
        change(more=1),
        change(format=[]),
        change(format=2),
        b'{"format": ' + b"1" * 5000 + b"}",
    ],
)
def test_what_describes_no_model_is_one_short_sentence(content):
    with pytest.raises(UserError) as error:
        ModelDigests.from_json(content, "m/model.json")
    text = str(error.value)
    assert text.startswith("m/model.json ")
    assert len(text) < 500
    assert "\n" not in text
