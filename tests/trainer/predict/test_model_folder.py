"""Damaged and hostile model folders: one sentence each, before Keras sees them."""

import io
import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.common.clip_config import CLIP_SAMPLES
from pipeline.decoding.excerpts import Part
from pipeline.schema import UserError
from tests.support.mutations import mutate_bytes, mutate_json
from tests.support.small_models import make_manifest, make_model
from trainer.evaluation.model_digests import ModelDigests, digest_bytes
from trainer.evaluation.report import REPORT_FILE
from trainer.predict import network
from trainer.predict.audio import AudioPredictor
from trainer.predict.model_archive import CONFIG, METADATA, WEIGHTS
from trainer.predict.model_folder import read_model_folder

REPORT = {"calibration": {"temperature": 1.5}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A small model's folder, without digests."""
    folder = tmp_path_factory.mktemp("models") / "mel"
    folder.mkdir()
    manifest = make_manifest()
    make_model("mel", manifest).save(folder / "model.keras")
    (folder / "manifest.json").write_text(manifest.to_json())
    (folder / REPORT_FILE).write_text(json.dumps(REPORT))
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy, to be damaged."""
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def write_digests(folder: Path, **changes) -> None:
    files = {
        path.name: digest_bytes(path.read_bytes())
        for path in folder.iterdir()
        if path.name != "model.json"
    }
    values = {"representation": "mel", "genres": 4, "files": files, **changes}
    (folder / "model.json").write_text(ModelDigests(**values).to_json())


def refuse(folder: Path, *messages: str) -> None:
    """What is refused names the folder and takes one line."""
    with pytest.raises(UserError) as error:
        network.load_network(str(folder))
    text = str(error.value)
    assert str(folder) in text
    assert "\n" not in text
    for message in messages:
        assert message in text


def read_members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path: Path, members, compression=zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def change_config(folder: Path, change) -> None:
    members = read_members(folder / "model.keras")
    config = json.loads(members[CONFIG])
    members[CONFIG] = json.dumps(change(config) or config).encode()
    write_members(folder / "model.keras", members)


def change_weights(folder: Path, change) -> None:
    members = read_members(folder / "model.keras")
    buffer = io.BytesIO(members[WEIGHTS])
    with h5py.File(buffer, "r+") as file:
        change(file)
    members[WEIGHTS] = buffer.getvalue()
    write_members(folder / "model.keras", members)


def find_dataset(file: h5py.File) -> h5py.Dataset:
    """The first array of a file."""

    def choose(_, item):
        return item if isinstance(item, h5py.Dataset) else None

    return file.visititems(choose)


def test_whole_folders_are_read_with_digests_and_without(folder):
    assert read_model_folder(str(folder)).temperature == 1.5
    write_digests(folder)
    assert read_model_folder(f"{folder}/").temperature == 1.5
    (folder / "notes.txt").write_text("anybody's")
    assert network.load_network(str(folder)).representation == "mel"


@pytest.mark.parametrize("name", ["model.keras", "manifest.json", "report.json"])
def test_any_byte_that_differs_from_the_digests_is_noticed(folder, name):
    write_digests(folder)
    content = bytearray((folder / name).read_bytes())
    for position in (0, len(content) // 2, len(content) - 1):
        content[position] ^= 1
        (folder / name).write_bytes(content)
        refuse(folder, name, "SHA-256")
        content[position] ^= 1
    (folder / name).write_bytes(content[:-1])
    refuse(folder, name, "cut off or replaced")
    (folder / name).unlink()
    refuse(folder, name)


def test_digests_of_another_model_are_refused(folder):
    write_digests(folder, genres=5)
    refuse(folder, "model.json", "5 genres")
    write_digests(folder, representation="windows")
    refuse(folder, "model.json", "'windows'")
    (folder / "model.json").write_text("{}")
    refuse(folder, "model.json", "does not describe a model")
    (folder / "model.json").write_bytes(b"[" * (1 << 20))
    refuse(folder, "model.json")


@pytest.mark.parametrize(
    "temperature",
    [
        "0",
        "-1",
        "NaN",
        "Infinity",
        "1e999",
        "1e-300",
        "null",
        "true",
        '"2"',
        "[]",
        "{}",
    ],
)
def test_temperatures_that_give_no_numbers_are_refused(folder, temperature):
    text = f'{{"calibration": {{"temperature": {temperature}}}}}'
    (folder / REPORT_FILE).write_text(text)
    refuse(folder, REPORT_FILE, "does not hold a model's report")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"7", b'{"calibration": 3}']
)
def test_reports_that_are_none_are_refused(folder, content):
    (folder / REPORT_FILE).write_bytes(content)
    refuse(folder, REPORT_FILE, "does not hold a model's report")


def test_only_regular_files_are_read(folder):
    for name in (REPORT_FILE, "model.keras", "model.json"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        refuse(folder, name, "is a FIFO")
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
        refuse(folder, name, "is a character device")
        (folder / name).unlink()
        (folder / name).write_text("{}")


def test_a_flipped_byte_is_noticed_without_digests(folder):
    content = bytearray((folder / "model.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.keras").write_bytes(content)
    refuse(folder, "model.keras", "cannot be loaded")
    (folder / "model.keras").write_bytes(content[:-100])
    refuse(folder, "model.keras", "cannot be loaded")


def test_what_inflates_is_refused(folder):
    path = folder / "model.keras"
    members = read_members(path)
    write_members(path, {**members, WEIGHTS: bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    refuse(folder, "would inflate to 52,")
    write_members(path, members)

    def inflate(file):
        file.create_dataset(
            "zeros", (64 << 20,), np.float32, chunks=True, compression="gzip"
        )

    change_weights(folder, inflate)
    refuse(folder, "its weights would inflate to 268,")


def test_strange_members_are_refused(folder):
    path = folder / "model.keras"
    members = read_members(path)
    for change in ({"../evil": b""}, {"assets/x": b""}):
        write_members(path, {**members, **change})
        refuse(folder, "in place of a model")
    write_members(path, {CONFIG: members[CONFIG], METADATA: b"{}"})
    refuse(folder, "in place of a model")


def hostile_layers():
    evil = {"module": "builtins", "class_name": "function", "config": "exec"}
    yield "builtins.function", evil
    yield "keras.layers.Lambda", {"module": "keras.layers", "class_name": "Lambda"}
    yield (
        "keras.layers.StringLookup",
        {"module": "keras.layers", "class_name": "StringLookup"},
    )
    yield "None.Dense", {"class_name": "Dense"}
    yield (
        "os.system",
        {"module": "os", "class_name": "system", "config": {"command": "true"}},
    )
    yield (
        "keras.layers.Dense",
        {"module": "keras.layers", "class_name": "Dense", "registered_name": "x>y"},
    )


@pytest.mark.parametrize(("name", "layer"), list(hostile_layers()))
def test_layers_that_run_code_or_read_files_are_refused(folder, name, layer):
    def change(config):
        config["config"]["layers"][1]["config"]["extra"] = [layer]

    change_config(folder, change)
    refuse(folder, f"it holds {name}, which no model of ours does")


def test_configs_that_describe_no_model_are_refused(folder):
    for value in (None, [], 3, {"class_name": None}, {"config": None}):
        change_config(folder, lambda config, value=value: [value])
        refuse(folder)

    def nest(config):
        value = config
        for _ in range(100):
            value = {"a": value}
        return value

    change_config(folder, nest)
    refuse(folder, "nested too deeply")


def test_layers_larger_than_the_file_are_not_built(folder):
    def widen(config):
        config["config"]["layers"][-1]["config"]["units"] = 10**9

    change_config(folder, widen)
    refuse(folder, "weights, the file")


def test_a_width_other_than_the_genres_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["genres"] = manifest["genres"][:3]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refuse(folder, "3 genres")


def test_weights_elsewhere_and_weights_that_are_none_are_refused(folder, whole):
    def spoil(file):
        find_dataset(file)[...] = np.nan

    def link(file):
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")

    def circle(file):
        file["circle"] = file["/"]

    def strings(file):
        file["text"] = "no number"

    for change, message in (
        (spoil, "no finite numbers"),
        (link, "in other files"),
        (circle, "in a circle"),
        (strings, "no numbers"),
    ):
        change_weights(folder, change)
        refuse(folder, message)
        shutil.copy(whole / "model.keras", folder / "model.keras")
    members = read_members(folder / "model.keras")
    write_members(folder / "model.keras", {**members, WEIGHTS: b"no HDF5"})
    refuse(folder, "its weights cannot be read")


#: What is damaged.
KINDS = ("config", "weights", "manifest", "report", "digests", "bytes")


def mutate_folder(folder: Path, rng: random.Random) -> None:
    """Damages one file of a folder, its inside or its bytes."""
    kind = rng.choice(KINDS)
    path = folder / "model.keras"
    if kind == "bytes":
        path = rng.choice(sorted(folder.iterdir()))
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    elif kind == "config":
        change_config(folder, lambda config: mutate_json(config, rng))
    elif kind == "weights":
        members = read_members(path)
        members[WEIGHTS] = mutate_bytes(members[WEIGHTS], rng)
        write_members(path, members)
    elif kind == "digests":
        write_digests(folder)
        raw = mutate_json(json.loads((folder / "model.json").read_text()), rng)
        (folder / "model.json").write_text(json.dumps(raw))
    else:
        path = folder / f"{kind}.json"
        path.write_text(json.dumps(mutate_json(json.loads(path.read_text()), rng)))


def try_folder(whole: Path, folder: Path, seed: int, *, load: bool) -> str:
    """Reads a damaged folder; returns what became of it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    mutate_folder(folder, random.Random(seed))
    try:
        content = read_model_folder(str(folder))
        if not load:
            return "read"
        model = network.Network(
            model=network.load_model(content),
            representation=content.archive.name,
            manifest=content.manifest,
            temperature=content.temperature,
        )
        samples = np.zeros(CLIP_SAMPLES, np.float32)
        clip = Part(samples=samples, length=CLIP_SAMPLES, start=0.0, seconds=30.0)
        probabilities = AudioPredictor(model).predict_clips([clip])
    except UserError as error:
        return "refused" if len(str(error)) < 2000 else "a long sentence"
    assert probabilities.shape == (len(content.manifest.genres),)
    assert np.isclose(probabilities.sum(), 1)
    assert np.all(probabilities >= 0)
    return "predicted"


def test_damaged_folders_are_refused_or_right(whole, tmp_path):
    outcomes = {
        try_folder(whole, tmp_path / "model", seed, load=False) for seed in range(60)
    }
    assert outcomes == {"read", "refused"}


@pytest.mark.slow
def test_500_damaged_folders_end_without_a_traceback(whole, tmp_path):
    outcomes = [
        try_folder(whole, tmp_path / "model", seed, load=True) for seed in range(500)
    ]
    assert outcomes.count("refused") > 100
    assert outcomes.count("predicted") > 50
