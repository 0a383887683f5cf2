"""Keeps libraries from printing and importing too much. Standard library only."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

#: Lines of TensorFlow's imports and of libmpg123, which comments on every
#: damaged stream; those end as rejects, with a message of our own.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl|[IW]0000 00:00:|"
    rb"To enable the following instructions: |"
    rb"\[src/libmpg123|Note: (Illegal Audio|Trying to resync|Skipped)|"
    rb"Warning: (Xing stream size|Encountered more data)"
)
#: Marks the end of what is filtered.
_END = b"\0end\n"

#: What Keras and Beam import where it is there, for plots, wrappers and stores that
#: nothing here uses: a third of the time of importing them.
_OPTIONAL = ("matplotlib", "pandas", "pymongo", "sklearn")


@contextlib.contextmanager
def optional_hidden() -> Iterator[None]:
    """Has TensorFlow or Beam, imported within, do without what they can do without.

    Not for use while other threads import the same.
    """
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    # `import` raises for them what it raises for modules that are not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


@contextlib.contextmanager
def keep_back_stderr(*, replay: bool = True) -> Iterator[None]:
    """Diverts file descriptor 2, and replays it after an exception.

    TensorFlow prints informational lines while it is being imported, whatever
    its log level. Not for use while other threads may have something to say.

    Args:
      replay: not where the exception says the same.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            if replay:
                os.write(original, buffer.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)


@contextlib.contextmanager
def missing_letters_drawn() -> Iterator[None]:
    """Has Matplotlib draw a box for a letter of no font, without warning of each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


@contextlib.contextmanager
def filter_stderr() -> Iterator[None]:
    """Drops the noise of native libraries from file descriptor 2.

    It holds for this process and for those that it starts; other lines pass as
    they come.
    """
    sys.stderr.flush()
    original = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    forwarded = threading.Event()
    thread = threading.Thread(
        target=_forward_lines, args=(reader, original, forwarded), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        # A child that lives on may hold the pipe, which then has no end yet. A thread
        # that does may have put something else into the place of descriptor 2.
        os.write(writer, _END)
        os.close(writer)
        forwarded.wait()
        thread.join(timeout=0.1)


def _forward_lines(reader: int, target: int, forwarded: threading.Event) -> None:
    try:
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                # What stands before the mark has no line's end of its own.
                text = line.removesuffix(_END)
                if text and not _NOISE.match(text):
                    # Whoever writes goes on, also where nobody reads it.
                    with contextlib.suppress(OSError):
                        os.write(target, text)
                if text != line:
                    forwarded.set()
    finally:
        forwarded.set()
        os.close(target)


def silence_beam() -> None:
    """Silences the start-up chatter of Beam and of what it imports."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    for name in (
        # Reports broken channels, with tracebacks, when a worker has died.
        "apache_beam.runners.worker.data_plane",
        # Prints the traceback of what a step raises, which comes here anyway.
        "apache_beam.runners.common",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def silence_worker() -> None:
    """Keeps Beam's workers in this process from printing what a step raises.

    They print it twice, with its traceback, and the launcher gets it anyway; it may be
    nothing but a full disk.
    """
    from apache_beam.runners.worker import sdk_worker

    logging.getLogger(sdk_worker.__name__).setLevel(logging.CRITICAL)
    setattr(sdk_worker, "print", _print_nothing)  # noqa: B010


def _print_nothing(*_: object, **__: object) -> None:
    """Stands for `print`."""
