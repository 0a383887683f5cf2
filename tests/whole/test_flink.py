"""The job on a real Flink cluster on loopback; needs Java and Maven, once the network.

`.ci/run` sets FMA_FLINK_TESTS=required, so that nothing is skipped there.
"""

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import psutil
import pytest

from pipeline import preprocess
from pipeline.cloud import flink
from tests.support.cloud.worker_pool import BOOT, make_clean_environment
from tests.support.flink.cluster import Cluster, running_cluster
from tests.support.flink.jars import UnavailableError, build_jars
from tests.support.jobs import (
    ROOT,
    looks_finished,
    read_dataset,
    wait_for,
    write_leaking_corpus,
)

pytestmark = [pytest.mark.flink, pytest.mark.timeout(200)]
SHARDS = 8
REQUIRED = os.environ.get("FMA_FLINK_TESTS") == "required"


@pytest.fixture(scope="module")
def jars() -> Path:
    try:
        return build_jars()
    except UnavailableError as error:
        if REQUIRED:
            pytest.fail(str(error))
        pytest.skip(f"no Flink here: {error}")


@pytest.fixture(scope="module")
def cluster(jars, tmp_path_factory) -> Cluster:
    """Of two TaskManagers whose workers outlive a stage."""
    folder = tmp_path_factory.mktemp("flink")
    settings = {"classloader.resolve-order": "parent-first"}
    with running_cluster(jars, folder, settings) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[str]:
    flags = write_leaking_corpus(tmp_path_factory.mktemp("corpus"), 40)
    return [*flags, f"--num_shards={SHARDS}", "--representations", "windows", "mel"]


@pytest.fixture(scope="module")
def here(corpus, tmp_path_factory) -> dict[str, bytes]:
    """What a local run makes."""
    output = tmp_path_factory.mktemp("here")
    assert preprocess.main([*corpus, f"--output={output}"]) == 0
    return read_dataset(output)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Of workers that have the dependencies, and not the project."""
    return make_clean_environment(tmp_path_factory.mktemp("workers") / "environment")


def make_flags(cluster: Cluster, folder: Path, python: Path) -> list[str]:
    """What a cluster's user gives; workers boot as in Beam's container."""
    worker = folder / "worker"
    worker.write_text(f'#!/bin/sh\nexec "{python}" "{BOOT}" "$@"\n')
    worker.chmod(0o755)
    return [
        f"--flink_master={cluster.address}",
        f"--flink_job_server_jar={cluster.job_server}",
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps({'command': str(worker)})}",
        f"--output={folder / 'out'}",
    ]


def start(flags: list[str], log: Path) -> psutil.Popen:
    with log.open("wb") as file:
        return psutil.Popen(
            [sys.executable, "-m", "pipeline.cloud.flink", *flags],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def count_finished(folder: Path) -> int:
    return len(list(folder.glob("out/_progress/shard-*.json")))


def test_the_bytes_are_those_of_a_local_run(
    cluster, corpus, here, python, tmp_path, capfd
):
    flags = [*corpus, *make_flags(cluster, tmp_path, python)]
    assert flink.main(flags) == 0
    printed, errors = capfd.readouterr()
    assert "2 of 2 slots; workers outlive a stage" in printed
    assert "Looked at the workers of 2 slots" in printed
    assert "stage 7 of 7; clips: 40 of 40" in printed
    assert errors == ""
    assert read_dataset(tmp_path / "out") == here


def test_workers_without_a_package_are_named(cluster, corpus, tmp_path, capsys):
    venv.create(tmp_path / "bare", with_pip=False)
    flags = make_flags(cluster, tmp_path, tmp_path / "bare" / "bin" / "python")
    assert flink.main([*corpus, *flags]) == 2
    assert "lack grpc; install what requirements.lock has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_worker_that_is_killed_costs_its_shard(
    cluster, corpus, here, python, tmp_path
):
    flags = [*corpus, *make_flags(cluster, tmp_path, python)]
    process = start(flags, tmp_path / "log")
    wait_for(lambda: count_finished(tmp_path) >= 1, 120)
    for manager in cluster.task_managers[:1]:
        for worker in psutil.Process(manager.pid).children():
            worker.kill()
    assert process.wait(180) == 0, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert read_dataset(tmp_path / "out") == here


def test_an_interrupt_cancels_the_job_in_the_cluster(cluster, corpus, python, tmp_path):
    flags = [*corpus, *make_flags(cluster, tmp_path, python)]
    process = start(flags, tmp_path / "log")
    wait_for(lambda: count_finished(tmp_path) >= 1, 120)
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 130
    told = (tmp_path / "log").read_text()
    assert "The job is cancelled;" in told
    assert f"of {SHARDS} shards are finished and kept" in told
    assert "Traceback" not in told
    assert not looks_finished(tmp_path / "out")
    jobs = cluster.ask("/jobs/overview")["jobs"]
    assert max(jobs, key=lambda job: job["start-time"])["state"] == "CANCELED"
