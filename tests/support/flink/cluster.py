"""A Flink cluster on loopback: a JobManager and TaskManagers of one slot each."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.ports import find_free_ports

_LOGGING = Path(__file__).with_name("log4j.properties")
_OPEN = (
    "util",
    "lang",
    "nio",
    "util.concurrent",
    "time",
    "net",
    "lang.reflect",
    "text",
)
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
#: Memory of a TaskManager, which Flink's scripts would compute; MB.
_MEMORY = {
    "network.min": 256,
    "network.max": 256,
    "task.heap.size": 256,
    "managed.size": 256,
    "framework.heap.size": 128,
    "framework.off-heap.size": 128,
    "task.off-heap.size": 0,
    "jvm-metaspace.size": 256,
    "jvm-overhead.min": 192,
    "jvm-overhead.max": 192,
}


def _end_with_parent() -> None:
    """Lets the system kill a process when the one that started it dies (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Cluster:
    """Starts and ends its processes.

    Args:
      jars: of `tests.support.flink.jars`.
      folder: for configuration and logs.
      settings: Flink's, on top of the usual ones.
    """

    def __init__(
        self, jars: Path, folder: Path, settings: Mapping[str, object]
    ) -> None:
        self._jars = jars
        self._folder = folder
        # A TaskManager holds the jars of each job here, a gigabyte in a few of them.
        self._scratch = folder / "scratch"
        self._scratch.mkdir()
        rest, rpc = find_free_ports(2)
        self.address = f"127.0.0.1:{rest}"
        self.job_server = jars / "job-server.jar"
        self.task_managers: list[subprocess.Popen[bytes]] = []
        self._job_manager: subprocess.Popen[bytes] | None = None
        configuration = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": rpc,
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.memory.process.size": "1024m",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": rest,
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": 1,
            "io.tmp.dirs": self._scratch,
            "heartbeat.timeout": 10_000,
            "heartbeat.interval": 2_000,
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 1,
            "restart-strategy.fixed-delay.delay": "1 s",
            **settings,
        }
        lines = [f"{name}: {value}\n" for name, value in configuration.items()]
        (folder / "config.yaml").write_text("".join(lines))

    def start(self, task_managers: int) -> None:
        memory = ["-Xmx512m"]
        self._job_manager = self._java("job-manager", memory, _JOB_MANAGER, [])
        for _ in range(task_managers):
            self.start_task_manager()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.ask("/overview")["slots-total"] == task_managers:
                    return
            time.sleep(0.3)
        raise TimeoutError(f"no cluster after two minutes; see {self._folder}")

    def start_task_manager(self) -> None:
        flags = [f"-Dtaskmanager.memory.{n}={v}mb" for n, v in _MEMORY.items()]
        flags += ["-Dtaskmanager.cpu.cores=1", "-Dtaskmanager.memory.process.size="]
        memory = ["-Xmx700m", "-XX:MaxDirectMemorySize=600m"]
        name = f"task-manager-{len(self.task_managers)}"
        self.task_managers.append(self._java(name, memory, _TASK_MANAGER, flags))

    def _java(
        self, name: str, memory: list[str], main: str, flags: list[str]
    ) -> subprocess.Popen[bytes]:
        opens = [f"--add-opens=java.base/java.{p}=ALL-UNNAMED" for p in (*_OPEN, "io")]
        opens += ["--add-exports=java.base/sun.net.util=ALL-UNNAMED"]
        command = ["java", f"-Djava.io.tmpdir={self._scratch}"]
        command += [f"-Dlog4j.configurationFile=file:{_LOGGING}", *opens]
        command += [*memory, "-cp", f"{self._jars}/lib/*", main]
        command += ["--configDir", str(self._folder), *flags]
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                command,
                # Workers start here, where the project is not.
                cwd=self._folder,
                env=os.environ | {"TMPDIR": str(self._scratch)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(
            f"http://{self.address}{path}", timeout=5
        ) as answer:
            return json.load(answer)

    def stop(self) -> None:
        for process in (*self.task_managers, self._job_manager):
            if process is not None:
                process.kill()
                process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)


@contextlib.contextmanager
def running_cluster(
    jars: Path, folder: Path, settings: Mapping[str, object], task_managers: int = 2
) -> Iterator[Cluster]:
    """A cluster, ended with the block, or with this process."""
    cluster = Cluster(jars, folder, settings)
    try:
        cluster.start(task_managers)
        yield cluster
    finally:
        cluster.stop()
