"""What is shipped: the sdist, and workers that have nothing else."""

import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from pipeline import preprocess
from pipeline.demo.corpus import make_corpus
from pipeline.demo.layout import DemoConfig
from pipeline.launch import commands
from pipeline.representations import DEFAULTS
from tests.support.cloud.worker_pool import (
    make_clean_environment,
    run_on_workers,
    worker_pool,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """As Beam builds it when a job is submitted."""
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (archive,) = folder.glob("*.tar.gz")
    return archive


def test_the_sdist_holds_every_module_and_no_test(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("pipeline", "trainer")
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= names
    assert {"LICENSE", "setup.py", "pipeline/py.typed", "trainer/py.typed"} <= names
    foreign = {name.partition("/")[0] for name in names}
    assert not foreign & {"tests", "benchmarks", "docs", "docker", "launch.sh"}
    assert sdist.stat().st_size < 2_000_000


def read_headers(text: str) -> list[str]:
    return text.partition("\n\n")[0].splitlines()


def required(headers: list[str]) -> list[str]:
    return [line for line in headers if line.startswith("Requires-Dist")]


def test_the_sdist_for_images_requires_nothing(sdist):
    with tarfile.open(sdist) as archive:
        (member,) = [n for n in archive.getnames() if n.count("/") == 1 and "PKG" in n]
        headers = read_headers(archive.extractfile(member).read().decode())
    assert "Name: fma-genre-classifiers" in headers
    assert required(headers) == []


@pytest.mark.parametrize("staged", [False, True])
def test_what_people_install_requires_what_it_needs(tmp_path, staged):
    code = "from setuptools import build_meta; import sys; "
    code += "build_meta.prepare_metadata_for_build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        # As a submission sets it, for whatever Beam builds the sdist with.
        env=os.environ | ({"FMA_STAGED": "1"} if staged else {}),
    )
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    found = required(read_headers(metadata.read_text()))
    assert bool(found) is not staged
    assert staged or "Requires-Dist: tensorflow==2.21.*" in found
    assert staged or not [r for r in found if "beam" in r and "extra ==" not in r]


def test_every_command_is_installed_and_found(monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["scripts"]) == {f"fma-{name}" for name in commands.COMMANDS}
    assert set(project["scripts"].values()) == {"pipeline.launch.commands:main"}
    extras = {extra for _, extra in commands.COMMANDS.values()} - {""}
    assert extras | set(commands.EXTRAS.values()) <= {
        *project["optional-dependencies"],
    }
    for name, (module, _) in commands.COMMANDS.items():
        assert callable(commands.find_module(module).main), name


def test_what_is_not_installed_is_a_sentence(monkeypatch, capsys):
    def find_module(module):
        raise ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam")

    monkeypatch.setattr(commands, "find_module", find_module)
    monkeypatch.setattr(sys, "argv", sys.argv)
    assert commands.main(["/bin/fma-preprocess", "--help"]) == 2
    assert "pip install 'fma-genre-classifiers[beam]'" in capsys.readouterr().err
    assert commands.main(["/bin/commands.py", "nothing"]) == 2
    assert "Received: 'nothing'" in capsys.readouterr().err


def test_it_installs_where_the_project_is_not(sdist, tmp_path):
    python = make_clean_environment(tmp_path / "environment")
    site = tmp_path / "site"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-index"]
    install += ["--no-deps", "--no-build-isolation", f"--target={site}", str(sdist)]
    subprocess.run(install, cwd="/", check=True, capture_output=True)

    def run(module: str, *, installed: bool) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        if installed:
            variables["PYTHONPATH"] = str(site)
        return subprocess.run(
            [str(python), "-m", module, "--help"],
            cwd="/",
            env=variables,
            capture_output=True,
            text=True,
        )

    assert "No module named" in run("trainer.task", installed=False).stderr
    done = run("trainer.task", installed=True)
    assert done.returncode == 0, done.stderr
    assert "--data" in done.stdout
    (metadata,) = site.glob("fma_genre_classifiers-*.dist-info/METADATA")
    assert required(read_headers(metadata.read_text())) == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    config = DemoConfig(
        output=folder,
        genres=("Electronic", "Folk", "Rock"),
        artists_per_genre=(2, 1, 1),
        tracks_per_artist=(2, 1, 1),
        clip_seconds=10.0,
    )
    make_corpus(config)
    return folder


def options(corpus: Path, output: Path) -> list[str]:
    return [
        f"--audio={corpus}/fma_demo/**.mp3",
        f"--metadata={corpus}/fma_metadata/tracks.csv",
        "--subset=small",
        f"--output={output}",
        "--num_shards=8",
    ]


def read_files(dataset: Path) -> dict[str, bytes]:
    paths = [*dataset.glob("*/*.tfrecord"), *dataset.glob("rejects-*")]
    return {path.relative_to(dataset).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_staged_package_runs_on_clean_workers(corpus, tmp_path):
    python = make_clean_environment(tmp_path / "environment")
    assert preprocess.main(options(corpus, tmp_path / "here")) == 0
    with worker_pool(python, tmp_path) as (pool, log):
        staged = [*options(corpus, tmp_path / "there"), f"--setup_file={ROOT}/setup.py"]
        done = run_on_workers(pool, staged)
        assert done.returncode == 0, done.stderr[-3000:] + log.read_text()[-3000:]
        told = log.read_text()
    # Each of two workers installed the sdist, and nothing else was there to import.
    assert told.count("installed workflow.tar.gz") == 2
    here, there = read_files(tmp_path / "here"), read_files(tmp_path / "there")
    assert len(here) == len(DEFAULTS) * 3 * 8 + 1
    assert there == here
    assert (tmp_path / "there" / "COMPLETED").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_the_staged_package_the_same_job_fails(corpus, tmp_path):
    python = make_clean_environment(tmp_path / "environment")
    with worker_pool(python, tmp_path) as (pool, _):
        done = run_on_workers(pool, options(corpus, tmp_path / "there"))
    assert done.returncode != 0
    assert "No module named 'pipeline'" in done.stderr
    assert not (tmp_path / "there" / "COMPLETED").exists()
