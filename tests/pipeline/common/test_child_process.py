import os
import subprocess
import sys
import time

from pipeline.common import child_process

WATCH = """
import sys, time
from pipeline.common import child_process

child_process.INTERVAL = 0.05
child_process.end_with(int(sys.argv[1]))
print("watching", flush=True)
time.sleep(600)
"""


def test_ends_with_the_launcher():
    launcher = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    )
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(launcher.pid)], stdout=subprocess.PIPE
    )
    assert watcher.stdout.readline() == b"watching\n"
    time.sleep(0.3)
    assert watcher.poll() is None
    launcher.kill()
    launcher.wait()
    assert watcher.wait() == 1
    watcher.stdout.close()
    launcher.stdin.close()


def test_ends_with_a_parent_that_nobody_has_waited_for():
    # The parent of both is killed, and keeps its id as long as this test likes.
    code = (
        "import subprocess, sys, os; subprocess.Popen("
        "[sys.executable, '-c', sys.argv[1], str(os.getpid())]).wait()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, WATCH], stdout=subprocess.PIPE
    )
    assert parent.stdout.readline() == b"watching\n"
    parent.kill()
    # The pipe ends with whoever can write to it.
    assert parent.stdout.read() == b""
    assert child_process.is_alive(parent.pid)
    parent.wait()
    parent.stdout.close()


def test_processes_of_others_are_alive():
    assert child_process.is_alive(os.getpid())
    assert child_process.is_alive(1)
