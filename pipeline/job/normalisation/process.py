"""The analysis in a process of its own, which imports TensorFlow while clips are made.

Importing TensorFlow and tft takes as long as a hundred clips, and ending a process that
has them two seconds. A job on this machine starts the process with its first clips.
Messages are framed JSON over a Unix socket.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, cast

import numpy as np

from pipeline.common.child_process import end_with, python_command
from pipeline.common.clip_config import ClipConfig
from pipeline.common.quiet import optional_hidden
from pipeline.decoding.isolation import receive, send
from pipeline.representations import make_schemas
from pipeline.schema import Normalisation, RepresentationSchema
from pipeline.shards.moments import PooledMoments

#: Shards' indices and moments of their training clips.
ShardMoments = Sequence[tuple[int, Mapping[str, PooledMoments]]]

#: Seconds for an answer, many times what the largest dataset takes on a busy machine:
#: a process that was stopped must not stop the job.
ANSWER_SECONDS = 600.0

_MODULE = "pipeline.job.normalisation.process"


def select_schemas(
    names: Sequence[str], config: ClipConfig
) -> dict[str, RepresentationSchema]:
    """Schemas of the representations that are normalised."""
    schemas = make_schemas(names, config)
    return {name: schema for name, schema in schemas.items() if schema.segments}


@contextlib.contextmanager
def start_analyst() -> Iterator[str]:
    """Starts the process, which ends with the context or with this process.

    Yields:
      Address for `ask_analyst`; empty where the system gives none.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="analyst-"))
        address = os.path.join(folder, "socket")
        try:
            listener = socket.socket(socket.AF_UNIX)
            stack.callback(listener.close)
            listener.bind(address)  # A path of at most some 100 bytes.
            listener.listen()
        except OSError:
            yield ""
            return
        process = subprocess.Popen(
            python_command(_MODULE, str(listener.fileno()), str(os.getpid()), folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Whoever gets no answer does the same again, and is heard.
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            # TensorFlow leaves files there when it is killed.
            env=os.environ | {"TMPDIR": folder},
        )
        # Whoever asks when the process is dead is refused.
        listener.close()
        try:
            yield address
        finally:
            process.kill()
            process.wait()


def ask_analyst(
    address: str,
    names: Sequence[str],
    config: ClipConfig,
    moments: ShardMoments,
    output: str,
) -> dict[str, Normalisation] | None:
    """As `analysis.analyse`, by the process.

    Args:
      address: of the process; empty for none.
      names: representations.
      config: their parameters.
      moments: of every shard.
      output: local folder for what tft writes.

    Returns:
      The constants of each representation; None where the process gave no answer.
    """
    if not address:
        return None
    request = {
        "names": list(names),
        "config": dataclasses.asdict(config),
        "output": output,
        "moments": [
            (
                shard,
                {
                    name: (pool.clips, pool.mean.tolist(), pool.variance.tolist())
                    for name, pool in pools.items()
                },
            )
            for shard, pools in moments
        ],
    }
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(address)
            with connection.makefile("rwb") as stream:
                send(cast(IO[bytes], stream), b"A", json.dumps(request).encode())
                _, answer = receive(cast(IO[bytes], stream))
    except (OSError, EOFError):
        return None
    return {
        name: Normalisation(mean=tuple(mean), variance=tuple(variance))
        for name, (mean, variance) in json.loads(answer).items()
    }


def serve(descriptor: int, launcher: int, scratch: str) -> None:
    """Analyses what it is asked to, until it is killed or the launcher is gone.

    Args:
      descriptor: of the socket that listens.
      launcher: process that has started this one.
      scratch: its folder, which goes with this process where the launcher is killed.
    """
    # An interrupt is for the other process to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(launcher, scratch)
    with optional_hidden():
        import apache_beam  # noqa: F401
    from pipeline.job.normalisation.analysis import analyse

    with socket.socket(fileno=descriptor) as listener:
        # The launcher's default, which Beam sets for GCS, comes with the descriptor.
        listener.settimeout(None)
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream:
                _, payload = receive(cast(IO[bytes], stream))
                request = json.loads(payload)
                schemas = select_schemas(
                    request["names"], ClipConfig(**request["config"])
                )
                constants = analyse(
                    [
                        (shard, {name: _read_pool(*p) for name, p in pools.items()})
                        for shard, pools in request["moments"]
                    ],
                    schemas,
                    request["output"],
                )
                answer = {
                    name: (found.mean, found.variance)
                    for name, found in constants.items()
                }
                send(cast(IO[bytes], stream), b"N", json.dumps(answer).encode())


def _read_pool(
    clips: int, mean: Sequence[float], variance: Sequence[float]
) -> PooledMoments:
    return PooledMoments(
        clips=clips,
        mean=np.array(mean, np.float64),
        variance=np.array(variance, np.float64),
    )


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
