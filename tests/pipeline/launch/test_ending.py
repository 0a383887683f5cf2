"""A command's process ends quickly, and loses nothing."""

import os
import subprocess
import sys
import textwrap

import pytest

COMMAND = """
import atexit, logging, logging.handlers, os, sys, tempfile, threading, time
from pipeline.launch.commands import Ending

ending = Ending()

class Modules:
    def __del__(self):
        os.write(1, b"taken apart\\n")

modules = Modules()
folder = tempfile.TemporaryDirectory()
target = logging.FileHandler(sys.argv[1])
logs = logging.handlers.MemoryHandler(10, target=target)
logs.emit(logging.makeLogRecord({"msg": "logged", "levelno": 20}))

said = threading.Event()

def work():
    said.wait()
    time.sleep(0.2)
    print("thread", end=" ")

threading.Thread(target=work).start()
atexit.register(lambda: print("handler", os.path.isdir(folder.name), end=" "))
try:
    print("main", end=" ")
finally:
    said.set()
"""


def run(tmp_path, last, **options) -> subprocess.CompletedProcess[str]:
    code = COMMAND + textwrap.dedent(last)
    return subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        text=True,
        stderr=subprocess.PIPE,
        **options,
    )


def test_what_was_begun_is_ended(tmp_path):
    scratch = {**os.environ, "TMPDIR": str(tmp_path)}
    last = "ending.code = 3; sys.exit(ending.code)"
    done = run(tmp_path, last, stdout=subprocess.PIPE, env=scratch)
    assert (done.returncode, done.stderr) == (3, "")
    # Threads, handlers, buffers and temporary folders have been seen to.
    assert done.stdout == "main thread handler True "
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").read_text() == "logged\n"


def test_an_exception_is_told(tmp_path):
    done = run(tmp_path, "ending.code = [][0]", stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert "IndexError" in done.stderr
    assert done.stdout.startswith("main thread handler True ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_lost_output_is_an_error(tmp_path):
    with open("/dev/full", "w") as full:
        done = run(tmp_path, "ending.code = 0; sys.exit(0)", stdout=full)
    assert done.returncode
    assert "No space left" in done.stderr
