"""What a Flink cluster with Beam's runner consists of, from Maven Central and PyPI.

usage: python -m tests.support.flink.jars     exit code 3: they cannot be had here

Built once, into the user's cache: `job-server.jar`, in place of Beam's own shaded one,
and `lib/`, with Flink's jars and Beam's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

FLINK = "1.19.3"
POM = Path(__file__).with_name("pom.xml")
_LIBRARIES = f"apache-flink-libraries-{FLINK}"
_DRIVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
#: Seconds for each of the two downloads.
DOWNLOAD_SECONDS = 110


class UnavailableError(Exception):
    """The jars cannot be had here."""


def cache_folder() -> Path:
    return Path.home() / ".cache" / "fma-genre-classifiers" / f"flink-{FLINK}"


def find_jars() -> Path | None:
    folder = cache_folder()
    return folder if (folder / "COMPLETE").exists() else None


def missing_programs() -> list[str]:
    return [name for name in ("java", "mvn") if shutil.which(name) is None]


def build_jars() -> Path:
    """Builds the jars, if they are not there.

    Raises:
      UnavailableError: a program is missing, or a download fails.
    """
    if missing := missing_programs():
        raise UnavailableError(f"{' and '.join(missing)} not installed")
    folder = cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / "flink.lock"):
        if find_jars() is None:
            shutil.rmtree(folder, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _build(Path(scratch))
                os.rename(Path(scratch, "made"), folder)
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(scratch: Path) -> None:
    made, runner = scratch / "made", scratch / "runner"
    (made / "lib").mkdir(parents=True)
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
    _run("mvn", "-B", "-q", "-f", POM, copy, f"-DoutputDirectory={runner}")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    pip += ["--no-binary", ":all:", "--no-build-isolation", "-d", scratch]
    _run(*pip, f"apache-flink-libraries=={FLINK}")
    prefix = f"{_LIBRARIES}/deps/lib/"
    with tarfile.open(scratch / f"{_LIBRARIES}.tar.gz") as archive:
        for member in archive:
            name = member.name.removeprefix(prefix)
            if member.isfile() and name != member.name and "/" not in name:
                with archive.extractfile(member) as file:
                    (made / "lib" / name).write_bytes(file.read())
    for jar in runner.glob("*.jar"):
        if not jar.name.startswith(("flink-", "slf4j-")):
            shutil.copy(jar, made / "lib")
    _merge(sorted(runner.glob("*.jar")), made / "job-server.jar")
    (made / "COMPLETE").touch()


def _run(*command: object) -> None:
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"{command[0]} took more than {DOWNLOAD_SECONDS} s"
        ) from error
    if done.returncode:
        raise UnavailableError(f"{command[0]} failed: {done.stdout[-300:].strip()}")


def _merge(jars: list[Path], target: Path) -> None:
    """One jar of many, with the lists of services joined."""
    seen: set[str] = set()
    services: dict[str, bytes] = {}
    dropped = ("/", ".SF", ".RSA", ".DSA", "MANIFEST.MF", "module-info.class")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        manifest = f"Manifest-Version: 1.0\nMain-Class: {_DRIVER}\n\n"
        out.writestr("META-INF/MANIFEST.MF", manifest)
        for jar in jars:
            with zipfile.ZipFile(jar) as source:
                for name in source.namelist():
                    if name.endswith(dropped):
                        continue
                    if name.startswith("META-INF/services/"):
                        text = services.get(name, b"")
                        services[name] = text + source.read(name) + b"\n"
                    elif name not in seen:
                        seen.add(name)
                        out.writestr(name, source.read(name))
        for name, text in services.items():
            out.writestr(name, text)


if __name__ == "__main__":
    try:
        print(build_jars())
    except UnavailableError as unavailable:
        print(f"Flink cannot be had: {unavailable}", file=sys.stderr)
        sys.exit(3)
