"""Jobs that are killed; `tests.whole.campaigns.kill` does it twenty times."""

import os
import signal

import psutil
import pytest

from pipeline import preprocess
from tests.support.jobs import (
    MODES,
    count_finished,
    find_workers,
    kill,
    let_go,
    looks_finished,
    read_dataset,
    start,
    wait_until_held,
    write_leaking_corpus,
)

SHARDS = 8


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    flags = write_leaking_corpus(tmp_path_factory.mktemp("corpus"), 40)
    return [*flags, f"--num_shards={SHARDS}", "--representations", "mel"]


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    assert preprocess.main([*flags, f"--output={output}"]) == 0
    return read_dataset(output)


def finish(flags, output, capsys) -> str:
    assert preprocess.main([*flags, f"--output={output}"]) == 0
    return capsys.readouterr().out


def test_a_killed_job_is_taken_up_again(flags, undisturbed, tmp_path, capsys):
    output = tmp_path / "out"
    for shards in (2, 4):
        job = [*flags, *MODES["one process"], f"--output={output}"]
        process = start(job, tmp_path / "log", held_at=shards)
        wait_until_held(process, output, shards)
        kill(process)
        assert not looks_finished(output)
    # A shard of another layout, and rubbish of the killed job.
    (output / "mel" / "training-00000-of-00099.tfrecord").write_bytes(b"stale")
    assert count_finished(output) == 4
    printed = finish(flags, output, capsys)
    assert f"4 of {SHARDS} shards are there from a job that did not" in printed
    assert "4 shards kept from an earlier run" in printed
    assert read_dataset(output) == undisturbed


@pytest.mark.slow
def test_orphaned_workers_end_and_do_no_harm(flags, undisturbed, tmp_path, capsys):
    output, log = tmp_path / "out", tmp_path / "log"
    job = [*flags, *MODES["two workers"], f"--output={output}"]
    process = start(job, log, held_at=1)
    wait_until_held(process, output, 1)
    children = kill(process)
    assert children
    assert not looks_finished(output)
    # At once, while the orphans may still be at work.
    let_go(log)
    finish(flags, output, capsys)
    psutil.wait_procs(children, timeout=240)
    assert not [child for child in children if child.is_running()]
    assert read_dataset(output) == undisturbed


def test_a_killed_worker_fails_the_job(flags, undisturbed, tmp_path, capsys):
    output, log = tmp_path / "out", tmp_path / "log"
    job = [*flags, *MODES["two workers"], f"--output={output}"]
    process = start(job, log, held_at=1)
    wait_until_held(process, output, 1)
    os.kill(find_workers(process)[0].pid, signal.SIGKILL)
    assert process.wait(timeout=240) == 1
    text = log.read_text()
    assert "error: a worker process died" in text
    assert "Traceback" not in text
    assert not looks_finished(output)
    finish(flags, output, capsys)
    assert read_dataset(output) == undisturbed
