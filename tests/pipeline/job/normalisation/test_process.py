import os
import signal
import socket
import subprocess
import sys

import numpy as np
import psutil
import pytest

from pipeline.common.clip_config import ClipConfig
from pipeline.job import complete
from pipeline.job.normalisation import process
from pipeline.job.normalisation.process import (
    ask_analyst,
    select_schemas,
    start_analyst,
)
from pipeline.shards.moments import PooledMoments
from pipeline.shards.result import DatasetConfig
from tests.support.jobs import wait_for

NAMES, CONFIG = ("mel", "features"), ClipConfig()


def make_moments() -> list[tuple[int, dict[str, PooledMoments]]]:
    random = np.random.default_rng(0)
    size = len(select_schemas(NAMES, CONFIG)["features"].segments)
    shards = [
        {
            "features": PooledMoments(
                clips=clips,
                mean=random.normal(size=size),
                variance=random.random(size),
            )
        }
        for clips in (3, 1, 2)
    ]
    return [*enumerate(shards), (3, {})]


def make_dataset(output, **changes) -> DatasetConfig:
    return DatasetConfig(
        output=str(output),
        representations=NAMES,
        clip=CONFIG,
        genres=("a",),
        **changes,
    )


def read_files(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def started(monkeypatch):
    """Processes that a test starts; jobs of other tests share one."""
    processes = []
    popen = subprocess.Popen

    def start(*arguments, **options):
        processes.append(popen(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(process.subprocess, "Popen", start)
    return processes


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Constants and files as this process makes them."""
    folder = tmp_path_factory.mktemp("here")
    return complete.analyse_training(make_dataset(folder), make_moments()), folder


@pytest.fixture
def _default_timeout():
    """Of new sockets: Beam sets one in a process that has asked GCS."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.1)
    yield
    socket.setdefaulttimeout(before)


@pytest.mark.usefixtures("_default_timeout")
def test_the_process_makes_the_same_or_gives_no_answer(
    here, started, tmp_path, monkeypatch
):
    constants, folder = here
    # Nothing is made here.
    monkeypatch.setattr("pipeline.job.normalisation.analysis.analyse", None)
    with start_analyst() as address:
        for name in ("first", "second"):
            dataset = make_dataset(tmp_path / name, analyst=address)
            assert complete.analyse_training(dataset, make_moments()) == constants
            assert read_files(tmp_path / name) == read_files(folder)
        # Of what makes it fail it gives no answer.
        wrong = [(0, {"no representation": make_moments()[0][1]["features"]})]
        assert ask_analyst(address, NAMES, CONFIG, wrong, str(tmp_path)) is None
    [analyst] = started
    assert analyst.returncode is not None
    assert not os.path.exists(address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_it_outlives_a_launcher_that_is_ended(tmp_path, number):
    code = (
        "import os\n"
        "from pipeline.job.normalisation.process import start_analyst\n"
        f"with start_analyst(): os.kill(os.getpid(), {int(number)})"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -number
    wait_for(lambda: not list(tmp_path.iterdir()))


def test_what_tensorflow_leaves_goes_with_its_folder(started, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with start_analyst() as address:
        [analyst] = started
        environment = psutil.Process(analyst.pid).environ()
        assert environment["TMPDIR"] == os.path.dirname(address)
    assert not list(tmp_path.iterdir())


def test_without_an_answer_it_is_made_here(here, started, tmp_path):
    constants, folder = here
    with start_analyst() as address:
        [analyst] = started
        analyst.kill()
        analyst.wait()
        dataset = make_dataset(tmp_path, analyst=address)
        assert complete.analyse_training(dataset, make_moments()) == constants
    assert read_files(tmp_path) == read_files(folder)


def test_a_process_that_hangs_is_not_waited_for_for_ever(
    here, started, tmp_path, monkeypatch
):
    monkeypatch.setattr(process, "ANSWER_SECONDS", 0.2)
    with start_analyst() as address:
        [analyst] = started
        analyst.send_signal(signal.SIGSTOP)
        dataset = make_dataset(tmp_path, analyst=address)
        constants = complete.analyse_training(dataset, make_moments())
        assert constants == here[0]
    assert read_files(tmp_path) == read_files(here[1])
    assert analyst.returncode == -signal.SIGKILL


def test_where_sockets_have_no_such_long_names(monkeypatch, tmp_path):
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with start_analyst() as address:
        assert address == ""
    assert ask_analyst("", NAMES, CONFIG, [], str(tmp_path)) is None
    assert not list(folder.iterdir())


def test_what_is_normalised():
    assert set(select_schemas(("windows", "mel"), CONFIG)) == {"windows"}
    assert select_schemas(("mel",), CONFIG) == {}
