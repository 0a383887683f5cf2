import os
import subprocess
import sys
import time

from pipeline.job import lifeline

WATCH = """
import sys, time
from pipeline.job import lifeline

lifeline.INTERVAL = 0.05
lifeline.end_with(int(sys.argv[1]))
print("watching", flush=True)
time.sleep(60)
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
    assert watcher.wait(timeout=10) == 1
    watcher.stdout.close()
    launcher.stdin.close()


def test_processes_of_others_are_alive():
    assert lifeline.is_alive(os.getpid())
    assert lifeline.is_alive(1)
