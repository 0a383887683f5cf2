"""The lock files are closed: installed without a look at dependencies, all are met."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = (
    "requirements.lock",
    "requirements-extras.lock",
    "requirements-dev.lock",
    "docker/trainer.lock",
)


def read_lock(name: str) -> dict[str, Requirement]:
    """Requirements by name; what has several lines has one here."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found: dict[str, Requirement] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.partition("--hash")[0])
            key = canonicalize_name(requirement.name)
            if key in found:
                assert found[key].specifier == requirement.specifier
                requirement.extras |= found[key].extras
            found[key] = requirement
    return found


def pinned_version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def find_unmet(
    locked: dict[str, Requirement], needs: list[str], extras: set[str], owner: str
) -> list[str]:
    """What of some requirements the lock does not bring, in words."""
    unmet = []
    for need in map(Requirement, needs):
        chosen = ("", *extras)
        if need.marker and not any(need.marker.evaluate({"extra": e}) for e in chosen):
            continue
        pin = locked.get(canonicalize_name(need.name))
        if pin is None or not need.specifier.contains(pinned_version(pin), True):
            unmet.append(f"{owner} needs {need}, locked is {pin}")
        # An extra that is not named is one that pip resolves by itself.
        elif not need.extras <= pin.extras:
            unmet.append(f"{owner} needs {need}, the lock names {pin}")
    return unmet


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_of_every_package_is_in_the_lock(name):
    locked = read_lock(name)
    unmet, unseen = [], []
    for key, pin in locked.items():
        try:
            found = importlib.metadata.distribution(key)
        except importlib.metadata.PackageNotFoundError:
            unseen.append(key)
            continue
        assert found.version == pinned_version(pin), key
        unmet += find_unmet(locked, found.requires or [], pin.extras, key)
    assert unmet == []
    # CUDA's wheels are in the trainer's image alone.
    assert [key for key in unseen if not key.startswith("nvidia-")] == []
    assert len(unseen) < len(locked) / 3


def test_a_lock_without_an_extra_or_a_package_is_not_closed():
    locked = {"a": Requirement("a==1"), "b": Requirement("b[x]==2")}
    assert find_unmet(locked, ["a>=1", "b[x]", "c; extra == 'y'"], set(), "d") == []
    needs = ["a>=2", "b[x,z]", "c; extra == 'y'", "e; python_version < '3'"]
    assert len(find_unmet(locked, needs, {"y"}, "d")) == 3


def test_the_locks_satisfy_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = read_lock("requirements-extras.lock")
    locked["fma-genre-classifiers"] = Requirement(
        f"fma-genre-classifiers[{','.join(project['optional-dependencies'])}]==0.1.0"
    )
    needs = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        needs += extra
    assert find_unmet(locked, needs, set(), "the package") == []


def test_the_lock_files_name_no_index():
    for path in (*ROOT.glob("*.lock"), *ROOT.glob("docker/*.lock")):
        assert not re.search(
            r"https?://|--(extra-)?index-url|--find-links", path.read_text()
        )
