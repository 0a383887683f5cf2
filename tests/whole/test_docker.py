"""What can be checked of the images without building them."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def read_instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions and arguments, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip()]
    return [(name, arguments) for name, arguments in pairs]


def read_lock(path: Path) -> dict[str, str]:
    """Versions by normalised name."""
    return {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(
            r"^([\w.-]+)(?:\[[\w, -]+\])?==([^\s;\\]+)", path.read_text(), re.MULTILINE
        )
    }


def ignored(name: str) -> bool:
    """Whether .dockerignore, which is a list of exceptions, keeps a path out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return f"!{name.partition('/')[0]}" not in lines


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_source_exists_and_is_sent(dockerfile):
    sources = [
        source
        for name, arguments in read_instructions(dockerfile)
        if name == "COPY"
        for source in arguments.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_the_base_has_the_python_of_the_project(dockerfile):
    (base,) = [text for name, text in read_instructions(dockerfile) if name == "FROM"]
    assert re.search(r"python:?3\.11", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].startswith(">=3.11,")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_nothing_is_resolved_when_an_image_is_built(dockerfile):
    runs = [text for name, text in read_instructions(dockerfile) if name == "RUN"]
    (install,) = [text for text in runs if "pip install" in text]
    assert {"--require-hashes", "--no-deps"} < set(install.split())


def test_the_workers_base_is_the_locked_beam():
    text = (ROOT / "docker" / "dataflow.Dockerfile").read_text()
    (version,) = re.findall(r"^FROM apache/beam_python3\.11_sdk:(\S+)$", text, re.M)
    assert version == read_lock(ROOT / "requirements.lock")["apache-beam"]
    # Dataflow starts workers with Beam's own entry point.
    assert "ENTRYPOINT" not in text


def test_the_trainers_versions_are_those_of_the_project():
    project = read_lock(ROOT / "requirements.lock")
    trainer = read_lock(ROOT / "docker" / "trainer.lock")
    shared = trainer.keys() & project.keys()
    assert {"tensorflow", "keras", "numpy", "scikit-learn"} <= shared
    assert {name: trainer[name] for name in shared} == {
        name: project[name] for name in shared
    }
    assert any(name.startswith("nvidia-cudnn") for name in trainer)
    assert not {"apache-beam", "tensorflow-transform"} & trainer.keys()


def test_the_trainers_image_has_what_the_trainer_imports():
    locked = read_lock(ROOT / "docker" / "trainer.lock")
    owners = importlib.metadata.packages_distributions()
    for path in sorted((ROOT / "trainer").glob("*.py")):
        if path.stem.startswith("vertex"):
            continue  # Submits from elsewhere.
        for name in find_imports(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in ("pipeline", "trainer"):
                continue
            names = {re.sub(r"[-_.]+", "-", o).lower() for o in owners[top]}
            assert names & locked.keys(), f"{path.name} imports {name}"


def find_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_entry_points_are_modules():
    text = (ROOT / "docker" / "trainer.Dockerfile").read_text()
    assert 'ENTRYPOINT ["python", "-m", "trainer.task"]' in text
    assert (ROOT / "trainer" / "task.py").exists()
    # Without this, a container on a machine with a GPU sees none.
    assert "NVIDIA_VISIBLE_DEVICES=all" in text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_lock_installs_into_an_empty_environment(tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--require-hashes"]
    install += ["--no-deps", "-r", str(ROOT / "requirements.lock")]
    subprocess.run(install, check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    for package in ("pipeline", "trainer"):
        (tmp_path / package).symlink_to(ROOT / package)
    for module in ("pipeline.preprocess", "trainer.task"):
        done = subprocess.run(
            [python, "-m", module, "--help"],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
