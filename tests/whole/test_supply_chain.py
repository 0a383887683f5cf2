"""What is let in: packages by their hashes, data as data, text as text."""

import ast
import csv
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import preprocess
from pipeline.common.quiet import keep_back_stderr
from pipeline.inspect import reading
from pipeline.launch.environment import set_up
from pipeline.launch.environment.installed import Environment
from tests.support.audio_files import encode_with_ffmpeg, make_music
from tests.support.corpora import write_tone

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-extras.lock", "requirements-dev.lock")
OTHER_LOCKS = ("requirements-bootstrap.lock", "docker/trainer.lock")
PRODUCT = ("pipeline", "trainer", "benchmarks")
#: Formats that run what they hold when they are read.
UNSAFE_MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"),
    *("marshal", "yaml", "jsonpickle"),
}


def read_lock(name: str) -> dict[str, list[str]]:
    """Hashes by `package==version`."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    pins = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split("--hash=")
            pins[requirement.split(";")[0].strip()] = [h.strip() for h in hashes]
    return pins


@functools.cache
def walk_sources() -> list[tuple[Path, ast.AST]]:
    return [
        (path, node)
        for folder in PRODUCT
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
    ]


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    """Calls of a function, however it is reached."""
    found = []
    for path, node in walk_sources():
        if isinstance(node, ast.Call):
            last = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if last == name:
                found.append((path, node))
    return found


def keywords(call: ast.Call) -> dict[str, str]:
    return {word.arg or "**": ast.unparse(word.value) for word in call.keywords}


# Packages


@pytest.mark.parametrize("name", LOCKS + OTHER_LOCKS)
def test_every_package_is_pinned_with_hashes(name):
    pins = read_lock(name)
    assert "bootstrap" in name or len(pins) > 50
    for pin, hashes in pins.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z0-9,._ -]+\])?==[^\s=]+", pin), pin
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), pin


def without_extras(pins: dict[str, list[str]]) -> dict[str, list[str]]:
    return {re.sub(r"\[.*\]", "", pin): hashes for pin, hashes in pins.items()}


def test_each_lock_holds_the_one_before():
    product, extras, development = (without_extras(read_lock(name)) for name in LOCKS)
    assert product.items() < extras.items() < development.items()


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_installation_insists_on_hashes_and_resolves_nothing(
    tool, tmp_path, monkeypatch
):
    commands = []

    def run(_, command, step, variables):
        commands.append(list(command))
        if tool == "pip" and step == "fetching uv":
            raise set_up.StepError("no such wheel")

    monkeypatch.setattr(set_up.Maker, "_run", run)
    environment = Environment(tmp_path / ".venv", ROOT)
    environment.mark.mkdir(parents=True)
    set_up.Maker(environment, ROOT / LOCKS[0], 0)._install(cached=True)
    locks = [Path(command[command.index("-r") + 1]).name for command in commands]
    assert locks == ["requirements-bootstrap.lock", "build-tools.lock", LOCKS[0]]
    for command in commands:
        assert {"install", "--require-hashes", "--no-deps"} < set(command)
    # What is built is built with what is locked.
    assert "--no-build-isolation" in commands[-1]
    tools = (environment.mark / "build-tools.lock").read_text()
    assert re.findall(r"^(\w+)==", tools, re.MULTILINE) == ["setuptools", "wheel"]
    assert "pip install" not in (ROOT / "launch.sh").read_text()


def test_what_is_installed_is_what_is_locked():
    pins = dict(pin.split("==") for pin in read_lock(LOCKS[-1]))
    names = {re.sub(r"\[.*", "", name).lower(): v for name, v in pins.items()}
    different = []
    for found in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        if name in names and found.version != names[name]:
            different.append(f"{name} {found.version}, locked {names[name]}")
    assert different == []


# Data that would run


def test_nothing_that_runs_when_it_is_read_is_imported():
    for path, node in walk_sources():
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in UNSAFE_MODULES, f"{path}: {name}"


def test_numpy_never_unpickles():
    for path, call in calls("load"):
        if ast.unparse(call.func) in ("np.load", "numpy.load"):
            assert keywords(call).get("allow_pickle") == "False", path
    for path, node in walk_sources():
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", path


def test_keras_loads_in_safe_mode():
    assert calls("load_model")
    for path, call in calls("load_model"):
        assert keywords(call).get("safe_mode", "True") == "True", path
    assert calls("enable_unsafe_deserialization") == []


def test_a_model_that_carries_code_does_not_load(tmp_path):
    with keep_back_stderr():
        import keras

    layers = [keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe"):
        keras.models.load_model(tmp_path / "model.keras", compile=False)


@pytest.mark.parametrize("name", ["eval", "exec", "system", "popen"])
def test_no_text_is_run(name):
    found = [
        f"{path}: {ast.unparse(call)}"
        for path, call in calls(name)
        # `re.compile(...)` and methods of that name run nothing.
        if isinstance(call.func, ast.Name) or ast.unparse(call.func).startswith("os.")
    ]
    assert found == []


def test_no_command_goes_through_a_shell():
    for name in ("run", "Popen", "call", "check_call", "check_output"):
        for path, call in calls(name):
            assert keywords(call).get("shell", "False") == "False", path


# Text


HOSTILE = (
    "$(touch hacked)",
    "; touch hacked;",
    "-i",
    "--output",
    "a'b\"c",
    "new\nline",
    "Ünïcödé ♫ 音楽",
    "{format} %s",
    "two  spaces",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A job on files and metadata with names that want to be something else."""
    folder = tmp_path_factory.mktemp("hostile")
    audio = folder / "corpus" / "audio"
    rows = []
    for number, name in enumerate(HOSTILE):
        file = f"{name}.wav".replace("/", "_")
        write_tone(audio / file, 300 + 30 * number)
        rows.append({"path": file, "track_id": f"../../{name}", "artist_id": name})
    # This one is decoded by another program.
    name = "-y $(touch hacked) 'x"
    aac = encode_with_ffmpeg(make_music(6.0), extension="m4a")
    (audio / f"{name}.m4a").write_bytes(aac)
    rows.append({"path": f"{name}.m4a", "track_id": name, "artist_id": "../.."})
    # Outside of the glob, where only the metadata leads.
    write_tone(folder / "corpus" / "outside.wav", 900)
    write_tone(folder / "absolute.wav", 930)
    for path in ("../outside.wav", str(folder / "absolute.wav"), "/etc/passwd"):
        rows.append({"path": path, "track_id": path, "artist_id": "x"})
    for number, row in enumerate(rows):
        row["genre"] = ["../../genre", "$(touch hacked)"][number % 2]
        row["split"] = ["training", "training", "test"][number % 3]
    with (folder / "tracks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    arguments = ["--audio", f"{audio}/*", "--metadata", f"{folder}/tracks.csv"]
    arguments += ["--output", f"{folder}/dataset", "--num_shards", "2"]
    arguments += ["--wav_output", f"{folder}/wavs", "--representations", "mel"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert preprocess.main(arguments) == 0
    return folder


def test_hostile_names_make_no_files_of_theirs(hostile):
    assert {path.name for path in hostile.iterdir()} == {
        *("corpus", "dataset", "wavs", "tracks.csv", "absolute.wav"),
    }
    assert list(hostile.rglob("hacked")) == []
    assert not (hostile.parent / "genre").exists()
    inside = {path.parent.name for path in (hostile / "dataset").rglob("*.tfrecord")}
    assert inside == {"mel"}
    # WAVs are named for the files, which exist, not for ids.
    names = {path.name for path in (hostile / "wavs").rglob("*.wav")}
    assert names == {f"{name}.wav" for name in (*HOSTILE, "-y $(touch hacked) 'x")}


def test_hostile_text_arrives_as_it_is(hostile):
    folder = str(hostile / "dataset")
    manifest = reading.read_manifest(folder)
    assert set(manifest.genres) == {"../../genre", "$(touch hacked)"}
    found = {}
    for split in ("training", "validation", "test"):
        for file in manifest.shard_files("mel", split):
            schema = manifest.representations["mel"]
            for example in reading.read_examples(f"{folder}/{file}", schema):
                found[example["track_id"]] = example["artist_id"]
    expected = {f"../../{name}".strip(): name.strip() for name in HOSTILE}
    assert found == expected | {"-y $(touch hacked) 'x": "../.."}


def test_metadata_leads_to_no_file_outside_the_glob(hostile):
    rejects = list(reading.read_rejects(str(hostile / "dataset")))
    missing = {r["track_id"] for r in rejects if r["reason"] == "missing"}
    absolute = str(hostile / "absolute.wav")
    assert missing == {"../outside.wav", absolute, "/etc/passwd"}
    assert len(rejects) == len(missing)
    # A reject is a line, whatever its text.
    [path] = (hostile / "dataset").glob("rejects-*.jsonl")
    lines = path.read_text().splitlines()
    assert len(lines) == len(rejects)
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_a_name_that_is_no_text_is_refused_before_any_work(tmp_path, capsys):
    write_tone(tmp_path / "a.wav", 400)
    (tmp_path / "tracks.csv").write_text("path,genre,split\na.wav,x,training\n")
    os.rename(tmp_path / "a.wav", os.fsencode(tmp_path) + b"/a\xff.wav")
    arguments = ["--audio", f"{tmp_path}/*.wav", "--output", f"{tmp_path}/dataset"]
    assert preprocess.main([*arguments, "--metadata", f"{tmp_path}/tracks.csv"]) == 2
    error = capsys.readouterr().err
    assert "whose name is not UTF-8 text" in error
    assert r"a\udcff.wav" in error
    assert not (tmp_path / "dataset").exists()


SECRET = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw"


def test_credentials_are_never_shown(tmp_path):
    """Not even where they are the reason for an error."""
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"type": "service_account", "private_key": SECRET}))
    environment = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "NO_GCE_CHECK": "true",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    (tmp_path / "tracks.csv").write_text("path,genre,split\na.wav,x,training\n")
    command = [sys.executable, "-m", "pipeline.preprocess", "--audio", "gs://b/*.wav"]
    command += ["--output", "gs://b/c", "--metadata", f"{tmp_path}/tracks.csv"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 2, done.stderr.decode()[-2_000:]
    assert SECRET.encode() not in done.stdout + done.stderr
