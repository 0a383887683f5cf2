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


def test_finds_messages_inside_what_runners_raise():
    error = IncompleteDatasetError("No clip. [while running 'X/Y']")
    assert plain_text.find_message(error, IncompleteDatasetError) == "No clip."
    quoted = RuntimeError(
        "Traceback ...\npipeline.job.checks.IncompleteDatasetError: No clip. "
        "[while running 'X']\n\nmore"
    )
    assert plain_text.find_message(quoted, IncompleteDatasetError) == "No clip."
    assert plain_text.find_message(ValueError("x"), IncompleteDatasetError) is None


def test_a_full_disk_is_recognised_by_whoever_names_it():
    assert plain_text.is_disk_full(
        RuntimeError("ResourceExhaustedError: /a/b; No space left on device")
    )
    assert plain_text.is_disk_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert not plain_text.is_disk_full(RuntimeError("no space in the name"))


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
