"""Sounds and files that several test modules share, made once."""

import contextlib
import functools
import importlib
import io
import math
import os
import signal as signals
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from pipeline.common import progress
from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.decoding.waveform import load_waveform
from pipeline.job.normalisation.process import start_analyst
from tests.support.audio_files import encode, make_music, make_sine
from tests.support.flink.jars import missing_programs

# The same examples everywhere and always.
hypothesis.settings.register_profile(
    "project", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("project")

#: Signals that end something, or that this project handles; pytest-timeout has SIGALRM.
HANDLED = (
    *(signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGPIPE),
    *(signals.SIGPROF, signals.SIGCHLD),
)
#: Modules of ten seconds and more.
LONG = frozenset(
    (
        *("test_end_to_end", "test_export", "test_fault_tolerance", "test_files"),
        *("test_fuzz", "test_gcs", "test_graph_audio", "test_kill", "test_label"),
        *("test_label_kill", "test_make_shards", "test_preprocess", "test_task"),
        *("test_preprocess_zips", "test_process", "test_set_up", "test_isolation"),
        *("test_several_genres", "test_several_models", "test_devices", "test_app"),
    )
)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Prepares what the workers share, before they start.

    The user's cache, which may hold a music model's weights, is out of sight. numba's
    is filled by one process: two that fill it at once can leave halves that do not
    fit, and every call of such a function ends in a segmentation fault (numba issue
    10128).
    """
    if not hasattr(config, "workerinput"):
        cache = tempfile.TemporaryDirectory(prefix="fma-tests-")
        config.add_cleanup(cache.cleanup)
        os.environ["XDG_CACHE_HOME"] = cache.name
        importlib.import_module("librosa.beat")
        importlib.import_module("librosa.core.pitch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts modules that take long first: the last one keeps no worker waiting."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says after the whole suite which tests it leaves out."""
    whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    if whole and "not flink" in config.option.markexpr:
        missing = missing_programs()
        lack = f", not here: {' and '.join(missing)}" if missing else ""
        terminalreporter.write_line(
            "Left out: the tests on a Flink cluster, which need Java and Maven"
            f"{lack}; run them with: ./launch.sh test -m flink"
        )


@pytest.fixture(scope="session", autouse=True)
def _one_analyst() -> Iterator[None]:
    """Jobs in this process share that of the analysis, which takes seconds to start."""
    if "pipeline.launch.plan" not in sys.modules:  # None of the tests runs a job.
        yield
        return
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def start() -> str:
            return stack.enter_context(start_analyst())

        patch.setattr(
            "pipeline.launch.plan.start_analyst",
            lambda: contextlib.nullcontext(start()),
        )
        yield


def _read_process_state() -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    state: dict[str, object] = {
        "os.getcwd()": os.getcwd(),
        "os.umask()": mask,
        "signal handlers": tuple(map(signals.getsignal, HANDLED)),
        "socket.getdefaulttimeout()": socket.getdefaulttimeout(),
    }
    state |= {f"os.environ[{name!r}]": value for name, value in os.environ.items()}
    del state["os.environ['PYTEST_CURRENT_TEST']"]  # It says "(teardown)" later.
    return state


@pytest.fixture(autouse=True)
def _leaves_the_process_as_it_was() -> Iterator[None]:
    """Or tests would depend on each other's order."""
    before = _read_process_state()
    yield
    after = _read_process_state()
    # Libraries, and commands for what they start, set variables that nobody had set.
    after = {key: after.get(key) for key in before}
    assert before.items() ^ after.items() == set()


@pytest.fixture(autouse=True)
def _own_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts a command leaves no command line to the next."""
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture(autouse=True)
def _no_lines_by_the_clock(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes seconds says how far it is, where tests read what went wrong.

    How long something takes depends on the machine; tests of these lines have a clock.
    """
    if "clock" not in request.fixturenames:
        monkeypatch.setattr(progress, "LINE_SECONDS", (math.inf, math.inf))


def find_data(path: str) -> Path:
    found = DATA / path
    if not found.exists():
        pytest.skip(f"needs {found}, which is not part of the project")
    return found


@pytest.fixture(scope="session")
def genuine_path() -> Path:
    """FMA's clip of track 2."""
    return find_data("fma_small/000/000002.mp3")


@pytest.fixture(scope="session")
def genuine_mp3(genuine_path: Path) -> bytes:
    return genuine_path.read_bytes()


@pytest.fixture(scope="session")
def genuine_tracks() -> Path:
    """The first 682 rows of FMA's tracks.csv."""
    return find_data("fma_metadata/tracks.csv")


@pytest.fixture(scope="session")
def music() -> np.ndarray:
    """30 s of synthetic stereo music at 44.1 kHz; shape (n, 2), float32."""
    return make_music()


@pytest.fixture(scope="session")
def music_mp3(music: np.ndarray) -> bytes:
    return encode(music)


@pytest.fixture(scope="session")
def music_files(music: np.ndarray, music_mp3: bytes) -> dict[str, bytes]:
    """The music in each format that libsndfile writes, by its name."""
    return {
        "mp3": music_mp3,
        "wav": encode(music, kind="WAV"),
        "flac": encode(music, kind="FLAC"),
        "ogg": encode(music, kind="OGG"),
    }


@pytest.fixture(scope="session")
def signal(request: pytest.FixtureRequest) -> Callable[[str], np.ndarray]:
    """Makes clip-long waveforms, shape (1321967,), by the names in `SIGNALS`."""
    made: dict[str, np.ndarray] = {}

    def load(data: bytes) -> np.ndarray:
        return load_waveform(io.BytesIO(data), ClipConfig()).samples

    def make(name: str) -> np.ndarray:
        rng = np.random.default_rng(0)
        match name:
            case "genuine":
                return load(request.getfixturevalue("genuine_mp3"))
            case "music":
                return load(request.getfixturevalue("music_mp3"))
            case "click":
                silence = np.zeros(CLIP_SAMPLES, np.float32)
                click = rng.uniform(-0.5, 0.5, 200) * np.exp(-np.arange(200) / 40)
                silence[600_000:600_200] = click
                return silence
            case "noise":
                return 0.2 * rng.standard_normal(CLIP_SAMPLES, np.float32)
            case "short sine":
                return load(encode(make_sine(440, 6), kind="FLAC"))
            case "48 kHz":
                return load(encode(make_music(30, 48_000, seed=1), 48_000))
            case "22 kHz mono":
                return load(encode(make_music(30, 22_050, seed=2)[:, :1], 22_050))
        raise ValueError(name)

    def get(name: str) -> np.ndarray:
        if name not in made:
            made[name] = make(name)
        return made[name]

    return get
