import argparse
import io
import os
import pty
import re
import subprocess
import sys

import pytest

from pipeline.common import progress
from pipeline.common.progress import (
    BYTE,
    SILENT,
    LiveReporter,
    Reporter,
    add_progress_flags,
    format_seconds,
    make_reporter,
    take_reporter,
)
from tests.support.pipes import goes_nowhere, nobody_reads


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be set by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


class Terminal:
    """Takes the place of standard output and error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._master, slave = pty.openpty()
        self._stream = os.fdopen(slave, "w", encoding="utf-8")

    def attach(self) -> None:
        """For the beginning of a test: pytest has streams of its own for fixtures."""
        for name in ("stdout", "stderr", "__stdout__"):
            self._monkeypatch.setattr(sys, name, self._stream)

    def read(self) -> str:
        """What has been written to it, which the system hands on when it likes."""
        self._stream.write("\0")
        self._stream.flush()
        text = b""
        while b"\0" not in text:
            text += os.read(self._master, 65536)
        return text.replace(b"\0", b"").decode()

    def close(self) -> None:
        self._stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.close()


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock, capsys):
    with Reporter().stage("Decoding", 40, "clip") as stage:
        for _ in range(40):
            clock[0] += 0.5
            stage.advance()
    assert capsys.readouterr() == (
        "",
        "Decoding: 10 of 40 clips; 2.0 a second, 15 s left\n"
        "Decoding: 20 of 40 clips; 2.0 a second, 10 s left\n"
        "Decoding: 30 of 40 clips; 2.0 a second, 5.0 s left\n"
        "Decoding: 40 of 40 clips in 20 s\n",
    )


def test_a_short_stage_is_no_line_in_a_log(clock, capsys):
    with Reporter().stage("Decoding", 40, "clip") as stage:
        for _ in range(40):
            clock[0] += 0.1
            stage.advance()
    assert capsys.readouterr() == ("", "")


def test_after_a_failure_its_error_is_what_comes_next(clock, capsys):
    def fail() -> None:
        with Reporter().stage("trials", 5, "trial") as stage:
            clock[0] += 4
            stage.advance()
            clock[0] += 4
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().err == ""


def test_what_was_done_before_does_not_count_for_the_pace(clock):
    with SILENT.stage("shards", 100, "shard", done=60) as stage:
        clock[0] += 50  # The start is no measure either.
        stage.advance()
        clock[0] += 10
        stage.update(62, "two workers")
        assert stage.describe() == (
            "62 of 100 shards; 10 s a shard, 6 min 20 s left; two workers"
        )


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (8_000_000, "6.0 of 8.0 MB; 2.0 MB a second, 1.0 s left"),
        (None, "6.0 MB; 2.0 MB a second"),
    ],
)
def test_bytes_are_shown_in_megabytes(clock, total, text):
    with SILENT.stage("weights", total, BYTE) as stage:
        stage.update(2_000_000)
        clock[0] += 2
        stage.update(6_000_000)
        assert stage.describe() == text


def test_a_single_part_is_not_in_plural(clock):
    with SILENT.stage("files", 1, "file") as stage:
        assert stage.describe() == "0 of 1 file"


def test_items_are_counted_when_they_are_done(clock, capsys):
    for _ in Reporter().track(iter("ab"), "letters", "letter", total=2):
        clock[0] += 7
    assert capsys.readouterr().err == (
        "letters: 1 of 2 letters\nletters: 2 of 2 letters in 14 s\n"
    )


@pytest.mark.parametrize(
    ("flags", "output"),
    [
        ([], "result\nnote\n"),
        (["--quiet"], "result\n"),
        (["--verbose"], "result\nnote\ndetail\n"),
    ],
)
def test_flags_choose_how_much_is_told(flags, output, capsys, clock):
    parser = argparse.ArgumentParser()
    add_progress_flags(parser)
    arguments = parser.parse_args(flags)
    reporter = take_reporter(arguments)
    assert vars(arguments) == {}
    with reporter.stage("parts", 1):
        clock[0] += 7
    for name in ("result", "note", "detail"):
        getattr(reporter, name)(name)
    reporter.warn("warning")
    printed = capsys.readouterr()
    assert printed.out == output
    stage = "" if "--quiet" in flags else "parts: 0 of 1 part in 7.0 s\n"
    assert printed.err == f"{stage}warning\n"


def test_quiet_and_verbose_exclude_each_other(capsys):
    parser = argparse.ArgumentParser()
    add_progress_flags(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--quiet", "--verbose"])
    assert "not allowed with" in capsys.readouterr().err


def test_silence(capsys):
    with SILENT.stage("parts", 1) as stage:
        stage.advance()
    SILENT.result("result")
    SILENT.warn("warning")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_line_that_goes(terminal):
    terminal.attach()
    reporter = make_reporter()
    assert isinstance(reporter, LiveReporter)
    with (
        reporter.stage("folds", 2, "fold"),
        reporter.stage("training", 9, "epoch") as stage,
    ):
        stage.update(3, "loss 0.5")
        written = ""
        while written.count("3 of 9 epochs; loss 0.5") < 2:  # Pictures.
            written += terminal.read()
        reporter.note(f"[what] stays {'x' * 200}")
        print("of others")
    reporter.result("the end")
    written += terminal.read()
    assert "0 of 2 folds" in written
    assert "\x1b[?25l" not in written  # The cursor stays visible.
    lines = screen(written)
    assert lines == [f"[what] stays {'x' * 200}", "of others", "the end"]


def screen(text: str) -> list[str]:
    """What is left of lines that go up and erase."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|[^\x1b]", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.parametrize(("variable", "colours"), [("NO_COLOR", False), ("X", True)])
def test_colour_is_left_out_where_it_is_not_wanted(
    terminal, monkeypatch, variable, colours
):
    terminal.attach()
    monkeypatch.setenv(variable, "1")
    with make_reporter().stage("parts", 2) as stage:
        stage.advance()
    assert bool(re.search(r"\x1b\[[\d;]*[39]\d", terminal.read())) == colours


def test_a_terminal_that_can_do_nothing_gets_plain_lines(terminal, monkeypatch, clock):
    terminal.attach()
    monkeypatch.setenv("TERM", "dumb")
    with make_reporter().stage("parts", 2):
        clock[0] += 7
    assert terminal.read() == "parts: 0 of 2 parts in 7.0 s\r\n"


def test_results_go_to_their_file_while_a_terminal_shows_progress(
    terminal, monkeypatch
):
    terminal.attach()
    reporter, file = make_reporter(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(sys, "__stdout__", file)
    with reporter.stage("parts", 2):
        reporter.result("the result")
    assert file.getvalue() == "the result\n"
    assert "the result" not in terminal.read()


def test_progress_is_seen_where_native_libraries_are_kept_quiet(terminal):
    terminal.attach()
    reporter = make_reporter()
    sys.stderr = io.StringIO()  # As far as Python knows; a monkeypatch restores it.
    with reporter.stage("parts", 2):
        pass
    assert "0 of 2 parts" in terminal.read()


def test_rich_is_imported_for_terminals_only():
    code = "import sys, pipeline.common.progress as p\n"
    code += "with p.make_reporter().stage('x', 1): pass\n"
    code += "assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 0 min"),
        (7530, "2 h 5 min"),
    ],
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_work_goes_on_where_nobody_reads_of_it(monkeypatch):
    """As in `./launch.sh train ... | head -3`."""
    with nobody_reads(monkeypatch, "stdout", "stderr") as streams:
        reporter = Reporter()
        reporter.note("a line")
        reporter.warn("another")
        reporter.finish("models", ["compare"])
        assert all(map(goes_nowhere, streams))
