import importlib.util
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from pipeline.common import quiet
from pipeline.common.quiet import filter_stderr, keep_back_stderr, optional_hidden


def say(text: str) -> None:
    """Prints as native libraries do."""
    os.write(2, text.encode())


def fail(error: type[BaseException]) -> None:
    with keep_back_stderr():
        say("why it failed\n")
        raise error


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code that has nothing between it and descriptor 2."""
    return subprocess.run(
        [sys.executable, "-c", "import os, sys, subprocess, threading\n" + code],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )


def test_what_is_printed_is_kept_back():
    done = run("""
from pipeline.common.quiet import keep_back_stderr, optional_hidden
print("first", file=sys.stderr)
with keep_back_stderr():
    os.write(2, b"native")
    print("python", file=sys.stderr)
    print("progress")
print("last", file=sys.stderr)
""")
    assert (done.stdout, done.stderr) == ("progress\n", "first\nlast\n")


def test_noise_is_filtered_and_the_rest_passes():
    noise = [
        "WARNING: All log messages before absl::InitializeLog() are written",
        "I0000 00:00:1795.5 29604 port.cc:153] oneDNN custom operations are on.",
        "[src/libmpg123/layer3.c:INT123_do_layer3():1844] error: dequantization",
        "Note: Illegal Audio-MPEG-Header 0x00000000 at offset 480921.",
        "Note: Trying to resync...",
        "Warning: Xing stream size off by more than 1%, fuzzy seeking",
    ]
    said = ["error: a message of ours", "Note: not theirs", "  I0000 00:00: quoted"]
    lines = [line for pair in zip(noise, [*said, *said], strict=True) for line in pair]
    done = run(f"""
from pipeline.common.quiet import filter_stderr
print("Note: Trying to resync... before", file=sys.stderr)
with filter_stderr():
    for line in {lines!r}:
        os.write(2, line.encode() + b"\\n")
    code = "import sys; print('Note: Trying to resync...', 'child', file=sys.stderr)"
    subprocess.run([sys.executable, "-c", code + "; print('child', file=sys.stderr)"])
    print("last", file=sys.stderr, end="")
print(" after", file=sys.stderr)
""")
    assert done.stderr.splitlines() == [
        "Note: Trying to resync... before",
        *said,
        *said,
        "child",
        "last after",
    ]


def test_a_traceback_passes_the_filter():
    done = run("""
from pipeline.common.quiet import filter_stderr
with filter_stderr():
    raise RuntimeError("why")
""")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: why\n")


def test_the_filter_leaves_no_descriptor_open():
    done = run("""
from pipeline.common.quiet import filter_stderr
before = os.listdir("/proc/self/fd")
for _ in range(3):
    with filter_stderr():
        print("x", file=sys.stderr)
for thread in set(threading.enumerate()) - {threading.main_thread()}:
    thread.join()
print(len(os.listdir("/proc/self/fd")) - len(before))
""")
    assert (done.stdout, done.stderr) == ("0\n", "x\nx\nx\n")


def test_a_child_that_lives_on_does_not_hold_the_filter_up():
    done = run("""
from pipeline.common.quiet import filter_stderr
with filter_stderr():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    print("last", file=sys.stderr, end="")
print("done", child.poll() is None)
child.communicate(b"\\n")
""")
    assert (done.stdout, done.stderr) == ("done True\n", "last")


def test_what_is_said_last_is_heard_however_late(monkeypatch, capfd):
    forward = quiet._forward_lines

    def forward_late(*arguments):
        time.sleep(1.5)
        forward(*arguments)

    monkeypatch.setattr(quiet, "_forward_lines", forward_late)
    with filter_stderr():
        say("last\n")
    assert capfd.readouterr().err == "last\n"


def test_a_stream_that_takes_nothing_holds_nobody_up():
    done = run("""
from pipeline.common.quiet import filter_stderr
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
with filter_stderr():
    os.write(2, b"lost\\n" * 100_000)  # More than a pipe holds.
print("done")
""")
    assert done.stdout == "done\n"


def test_another_thread_may_have_diverted_the_stream():
    done = run("""
from pipeline.common.quiet import filter_stderr
with filter_stderr():
    os.write(2, b"first\\n")
    held = os.dup(2)  # To divert it back.
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
os.write(2, b"last\\n")
""")
    assert done.stderr == "first\nlast\n"


def test_stderr_works_before_and_after(capfd):
    say("before\n")
    with keep_back_stderr():
        say("within\n")
    say("after\n")
    print("python", file=sys.stderr, flush=True)
    assert capfd.readouterr().err == "before\nafter\npython\n"


@pytest.mark.parametrize("error", [ImportError, KeyboardInterrupt, SystemExit])
def test_after_an_exception_it_is_shown(capfd, error):
    with pytest.raises(error):
        fail(error)
    say("after\n")
    assert capfd.readouterr().err == "why it failed\nafter\n"


def test_no_descriptor_is_left_open():
    done = run("""
from pipeline.common.quiet import keep_back_stderr
before = os.listdir("/proc/self/fd")
for _ in range(3):
    with keep_back_stderr():
        os.write(2, b"x")
    try:
        with keep_back_stderr():
            raise KeyError
    except KeyError:
        pass
print(len(os.listdir("/proc/self/fd")) - len(before))
""")
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_optional_hidden(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    there = types.ModuleType("pandas")
    monkeypatch.setitem(sys.modules, "pandas", there)
    with optional_hidden():
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("sklearn")
        assert importlib.import_module("pandas") is there
    assert "sklearn" not in sys.modules
    assert importlib.util.find_spec("sklearn")
    # Two threads may import at the same time.
    with optional_hidden():
        del sys.modules["sklearn"]
