"""What others' errors say: their texts as they are raised, where that is quick."""

import errno
import os
import subprocess
import sys

import keras
import pytest
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import (
    ExtendedProvisionInfo,
)
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

from pipeline.common import plain_text
from pipeline.job.checks import IncompleteDatasetError
from pipeline.launch.messages import explain_failure


def test_finds_messages_inside_what_runners_raise():
    error = IncompleteDatasetError("No clip. [while running 'X/Y']")
    assert plain_text.find_message(error, IncompleteDatasetError) == "No clip."
    quoted = RuntimeError(
        "Traceback ...\npipeline.job.checks.IncompleteDatasetError: No clip. "
        "[while running 'X']\n\nmore"
    )
    assert plain_text.find_message(quoted, IncompleteDatasetError) == "No clip."
    assert plain_text.find_message(ValueError("x"), IncompleteDatasetError) is None


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "Make room, or have the quota raised"),
        (errno.EFBIG, "Allow larger files (ulimit -f unlimited)"),
    ],
)
def test_storage_without_room_is_recognised_by_whoever_names_it(number, advice):
    words = os.strerror(number)
    for error in (
        OSError(number, words),
        RuntimeError(f"ResourceExhaustedError: /a/b; {words}"),
    ):
        assert plain_text.explain_no_room(error) == f"{words}. {advice}"
        assert explain_failure(error).startswith(f"{words}. {advice}, then run the")


def test_other_errors_are_not_taken_for_storage_without_room():
    assert plain_text.explain_no_room(RuntimeError("no space in the name")) is None
    assert explain_failure(OSError(errno.EIO, os.strerror(errno.EIO))) is None


def test_keras_says_that_a_download_failed(tmp_path):
    with pytest.raises(Exception, match="URL fetch failure") as caught:
        keras.utils.get_file("x", "http://127.0.0.1:9/x", cache_dir=str(tmp_path))
    assert plain_text.is_failed_download(caught.value)
    assert not plain_text.is_failed_download(ValueError("another"))


def test_beam_says_how_a_worker_ended():
    provision = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo())
    worker = SubprocessSdkWorker(b"exit 7", "127.0.0.1:1", provision)
    with pytest.raises(RuntimeError) as caught:
        worker.run()
    assert plain_text.find_exit_code(caught.value) == "7"
    assert plain_text.find_exit_code(RuntimeError("x exited 7")) is None


def test_imports_nothing_that_takes_time():
    code = (
        "import sys, pipeline.common.plain_text\n"
        "print(sorted({'keras', 'tensorflow', 'apache_beam'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
