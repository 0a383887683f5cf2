"""A helper of `pipeline.decoding.isolation` that really crashes and really hangs."""

import ctypes
import os
import signal
import sys
import time
from typing import BinaryIO

from pipeline.common.clip_config import ClipConfig
from pipeline.decoding.isolation_helper import serve
from pipeline.decoding.waveform import Waveform, load_waveform


def load(file: BinaryIO, config: ClipConfig) -> Waveform:
    start = file.read(20)
    if start.startswith(b"segmentation fault"):
        ctypes.string_at(0)
    if start.startswith(b"abort"):
        os.abort()
    if start.startswith(b"killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if start.startswith(b"hang in C"):
        # With Python's lock held: no thread or handler of Python can run.
        ctypes.PyDLL(None).sleep(60)
    if start.startswith(b"hang in Python"):
        time.sleep(60)
    if start.startswith(b"loop"):
        while True:
            pass
    if start.startswith(b"out of time"):
        signal.raise_signal(signal.SIGPROF)
    if start.startswith(b"all memory"):
        bytearray(1 << 42)
    if start.startswith(b"programming error"):
        raise ZeroDivisionError
    if start.startswith(b"print"):
        os.write(1, b"what libraries print " * 1_000)
    return load_waveform(file, config)


if __name__ == "__main__":
    sys.exit(serve(load, sys.argv[1:]))
