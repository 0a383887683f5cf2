"""The job on Prism, where `prism` is installed.

go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0
"""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import preprocess
from tests.support.jobs import read_dataset, wait_for, write_leaking_corpus
from tests.support.ports import find_free_ports


def find_prism() -> str:
    path = ":".join([*map(str, [Path.home() / "go/bin"]), "/usr/local/bin", "/usr/bin"])
    found = shutil.which("prism") or shutil.which("prism", path=path)
    if found is None:
        pytest.skip("prism is not installed (see the top of this file)")
    return found


@pytest.fixture
def endpoint(tmp_path) -> Iterator[str]:
    program = find_prism()
    [port] = find_free_ports()
    command = [program, "-serve_http=false", f"-job_port={port}"]
    command += ["-idle_shutdown_timeout=5m"]
    with (tmp_path / "prism.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def answers() -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 1),
        ):
            return True
        return False

    try:
        wait_for(answers)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_the_bytes_are_those_of_the_local_runner(endpoint, tmp_path):
    corpus = write_leaking_corpus(tmp_path, 20)
    flags = [*corpus, "--num_shards=4", "--representations", "windows", "mel"]
    assert preprocess.main([*flags, f"--output={tmp_path / 'here'}"]) == 0
    flags += ["--runner=PortableRunner", f"--job_endpoint={endpoint}"]
    flags += ["--environment_type=LOOPBACK", f"--output={tmp_path / 'there'}"]
    assert preprocess.main(flags) == 0
    assert read_dataset(tmp_path / "there") == read_dataset(tmp_path / "here")
