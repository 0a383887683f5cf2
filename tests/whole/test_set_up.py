"""launch.sh sets itself up, or says why not: tried with small packages of our own."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.launch.environment import set_up
from pipeline.launch.environment.installed import Environment, read_pins, select_pins
from tests.support.jobs import wait_for

ROOT = Path(__file__).resolve().parents[2]
#: What is run of a checkout when it sets itself up.
PARTS = ("launch.sh", "pipeline/schema", "pipeline/common", "pipeline/launch")
#: A command that tells what it sees.
SHOW = """
import json, os, sys
def main():
    import alpha
    print(json.dumps({"argv": sys.argv[1:], "path": sys.path, "cwd": os.getcwd(),
                      "alpha": alpha.VERSION, "file": __file__}))
    return 0
"""
TRAP = "open('TRAPPED', 'a').write(__name__)\n"
LAUNCH_TIMEOUT = 280


def make_wheel(folder: Path, name: str, version: str) -> str:
    """Writes a wheel of one module; returns its line of a lock file."""
    stem = f"{name}-{version}"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{stem}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        ),
        f"{stem}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(f"{path},,{len(text)}\n" for path, text in files.items())
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{stem}.dist-info/RECORD", record)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}=={version} \\\n    --hash=sha256:{digest}\n"


class Checkout:
    """A small checkout, with wheels in place of an index.

    Attributes:
      root: of the checkout.
      variables: for whoever launches something there.
    """

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root = root
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(wheels.parent),
            "PYTHON": sys.executable,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
        }

    @property
    def environment(self) -> Environment:
        return Environment(self.root / ".venv", self.root)

    def start(
        self, *arguments: str, cwd: Path | None = None, script: Path | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(script or self.root / "launch.sh"), *arguments],
            cwd=cwd or "/",
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def launch(self, *arguments: str, code: int = 0, **options) -> tuple[str, str]:
        """Standard output and error of a command that ends as it should."""
        process = self.start(*arguments, **options)
        out, error = process.communicate(timeout=LAUNCH_TIMEOUT)
        assert process.returncode == code, out + error
        return out, error

    def copy(self, root: Path) -> "Checkout":
        shutil.copytree(self.root, root, symlinks=True)
        copy = Checkout(root, Path())
        copy.variables = dict(self.variables)
        return copy


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> Checkout:
    """A checkout in which nothing has been set up."""
    folder = tmp_path_factory.mktemp("new")
    root = folder / "Musik für alle"
    root.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (root / part).parent.mkdir(exist_ok=True)
        copy(ROOT / part, root / part)
    (root / "pipeline" / "__init__.py").touch()
    (root / "pipeline" / "show.py").write_text(SHOW)
    wheels = folder / "wheels"
    wheels.mkdir()
    alpha, beta = (make_wheel(wheels, name, "1.0") for name in ("alpha", "beta"))
    (root / "requirements.lock").write_text(alpha)
    (root / "requirements-extras.lock").write_text(f"# More.\n{alpha}")
    (root / "requirements-dev.lock").write_text(alpha + beta)
    (root / "requirements-bootstrap.lock").write_text(
        "uv==0.0.1 --hash=sha256:" + 64 * "0" + "\n"
    )
    return Checkout(root, wheels)


@pytest.fixture(scope="module")
def whole(new, tmp_path_factory) -> Checkout:
    """One that was set up where everything is configured to prevent that."""
    folder = tmp_path_factory.mktemp("whole")
    checkout = new.copy(folder / "Musik für alle")
    evil = folder / "evil"
    (evil / ".config" / "pip").mkdir(parents=True)
    (evil / ".config" / "pip" / "pip.conf").write_text(
        f"[global]\nuser = true\ntarget = {evil}/target\ndry-run = true\n"
    )
    for name in ("sitecustomize", "json", "pip", "venv", "alpha"):
        (evil / f"{name}.py").write_text(TRAP)
    kept = checkout.variables
    checkout.variables = kept | {
        "HOME": str(evil),
        "PIP_USER": "1",
        "PIP_DRY_RUN": "1",
        "PIP_TARGET": str(evil / "target"),
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": str(evil),
        "VIRTUAL_ENV": str(evil),
        "CONDA_PREFIX": str(evil),
        "CDPATH": "/usr",
    }
    _, told = checkout.launch("setup", cwd=evil)
    assert "Set up in" in told
    assert "pip takes its place" in told
    assert not list(evil.rglob("TRAPPED"))
    assert not (evil / "target").exists()
    checkout.variables = kept
    return checkout


def test_what_is_set_up_is_used_at_once(whole, tmp_path):
    out, told = whole.launch("show", "--a", "b c", cwd=tmp_path)
    assert told == ""
    seen = json.loads(out)
    assert seen["argv"] == ["--a", "b c"]
    assert seen["alpha"] == "1.0"
    assert seen["cwd"] == str(tmp_path)
    assert Path(seen["file"]).resolve() == whole.root / "pipeline" / "show.py"


@pytest.mark.parametrize("inside", [False, True])
def test_nothing_beside_the_music_is_imported(whole, tmp_path, inside):
    # The music may lie in the checkout, too.
    folder = whole.copy(tmp_path / "copy").root if inside else tmp_path
    checkout = Checkout(folder, Path()) if inside else whole
    checkout.variables = whole.variables
    for name in ("json", "alpha", "sitecustomize", "runpy", "logging", "coverage"):
        (folder / f"{name}.py").write_text(TRAP)
    (folder / "numpy").mkdir()
    (folder / "numpy" / "__init__.py").write_text(TRAP)
    if not inside:
        (folder / "pipeline").mkdir()
        (folder / "pipeline" / "__init__.py").write_text(TRAP)
    for command in (["show"], ["run", "pipeline.launch.commands", "show"]):
        out, _ = checkout.launch(*command, cwd=folder)
        assert str(folder) not in json.loads(out)["path"]
        assert "" not in json.loads(out)["path"]
    assert not (folder / "TRAPPED").exists()


def test_setup_looks_into_every_file(whole, tmp_path):
    copy = whole.copy(tmp_path / "copy")
    copy.launch("show")
    assert copy.launch("setup") == ("", f"{copy.root / '.venv'} is whole.\n")
    (copy.environment.site / "alpha.py").write_text("VERSION = 0\n")
    assert json.loads(copy.launch("show")[0])["alpha"] == 0
    assert "again: alpha.py of alpha has 12 bytes" in copy.launch("setup")[1]
    assert json.loads(copy.launch("show")[0])["alpha"] == "1.0"


def test_through_links(whole, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "one").symlink_to(whole.root / "launch.sh")
    (tmp_path / "two").symlink_to("bin/one")
    out, told = whole.launch("show", script=tmp_path / "two", cwd=tmp_path)
    assert json.loads(out)["alpha"] == "1.0"
    assert told == ""


def test_a_copied_checkout_runs_its_own_code(whole, tmp_path):
    copy = whole.copy(tmp_path / "copy")
    out, told = copy.launch("show")
    assert Path(json.loads(out)["file"]).resolve() == copy.root / "pipeline" / "show.py"
    assert told == ""


def remove_module(environment: Environment) -> None:
    (environment.site / "alpha.py").unlink()


def remove_metadata(environment: Environment) -> None:
    shutil.rmtree(environment.site / "alpha-1.0.dist-info")


def cut_stamp(environment: Environment) -> None:
    environment.stamp.write_text(environment.stamp.read_text()[:20])


def lose_python(environment: Environment) -> None:
    environment.python.unlink()
    environment.python.symlink_to("/nowhere/python")


def leave_half_a_venv(environment: Environment) -> None:
    environment.stamp.unlink()
    shutil.rmtree(environment.site / "pip")


@pytest.mark.parametrize(
    "damage",
    [remove_module, remove_metadata, cut_stamp, lose_python, leave_half_a_venv],
)
def test_damage_is_found(whole, tmp_path, damage):
    copy = whole.copy(tmp_path / "copy")
    locks = [copy.root / "requirements.lock"]
    copy.environment.link_packages()
    assert copy.environment.find_fault(locks) == ""
    damage(copy.environment)
    assert copy.environment.find_fault(locks)


def test_a_look_at_every_file(whole, tmp_path):
    copy = whole.copy(tmp_path / "copy")
    pins = copy.environment.pins
    assert pins == {"alpha": "1.0"}
    assert copy.environment.find_difference(pins) == ""
    assert copy.environment.find_difference({"alpha": "2.0"}) == (
        "alpha is 1.0, locked is 2.0"
    )
    assert "beta is missing" in copy.environment.find_difference({"beta": "1"})
    (copy.environment.site / "alpha.py").write_text("")
    assert "alpha.py of alpha has 0 bytes" in copy.environment.find_difference(pins)


def test_more_packages_are_added_and_other_ones_made_anew(whole, tmp_path):
    copy = whole.copy(tmp_path / "copy")
    wheels = Path(copy.variables["PIP_FIND_LINKS"])
    own = copy.environment.site / "beside.py"
    own.touch()
    gamma = make_wheel(wheels, "gamma", "1.0")
    lock = copy.root / "requirements.lock"
    lock.write_text(lock.read_text() + gamma)
    out, told = copy.launch("show")
    assert "again: it is not what requirements.lock says" in told
    assert own.exists()
    lock.write_text(make_wheel(wheels, "alpha", "2.0"))
    out, told = copy.launch("show")
    assert json.loads(out)["alpha"] == "2.0"
    assert not own.exists()


def test_what_few_options_take_is_added_when_they_are_given(whole, tmp_path):
    copy = whole.copy(tmp_path / "copy")
    gamma = make_wheel(Path(copy.variables["PIP_FIND_LINKS"]), "gamma", "1.0")
    lock = copy.root / "requirements-extras.lock"
    lock.write_text((copy.root / "requirements.lock").read_text() + gamma)
    own = copy.environment.site / "beside.py"
    own.touch()
    added = copy.environment.site / "gamma.py"
    others = (["export", "--format=savedmodel"], ["predict", "--format", "onnx"])
    for arguments in (["show"], *others):
        copy.start(*arguments).communicate(timeout=LAUNCH_TIMEOUT)
        assert not added.exists()
    _, told = copy.start("export", "--format=onnx").communicate(timeout=LAUNCH_TIMEOUT)
    assert "again: it is not what requirements-extras.lock says" in told
    assert added.exists()
    assert own.exists()
    # More than is needed is whole too.
    assert copy.launch("show")[1] == ""


def test_killed_at_any_moment_it_is_made_again(new, tmp_path):
    checkout = new.copy(tmp_path / "copy")
    python, variables = checkout.environment.python, checkout.variables
    for stage in (python, checkout.environment.site / "pip" / "__init__.py"):
        # It comes no further than to an index that does not answer.
        with socket.create_server(("127.0.0.1", 0)) as index:
            links = f"http://127.0.0.1:{index.getsockname()[1]}/"
            more = {"PIP_FIND_LINKS": links, "PIP_DEFAULT_TIMEOUT": "600"}
            checkout.variables = variables | more
            process = checkout.start("setup")
            wait_for(stage.exists)
            assert process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        assert not checkout.environment.stamp.exists()
    checkout.variables = variables
    lose_python(checkout.environment)
    out, told = checkout.launch("show")
    assert json.loads(out)["alpha"] == "1.0"
    assert "again: its set-up did not come to its end" in told


def test_two_at_once_are_one(new, tmp_path):
    checkout = new.copy(tmp_path / "copy")
    told = []
    processes = [checkout.start("show") for _ in range(2)]
    for process in processes:
        out, error = process.communicate(timeout=LAUNCH_TIMEOUT)
        assert json.loads(out)["alpha"] == "1.0", error
        told.append(error)
    assert sum("Set up in" in text for text in told) == 1
    assert sum("waiting for it" in text for text in told) <= 1


def test_a_failure_is_a_sentence_and_no_environment(new, tmp_path):
    checkout = new.copy(tmp_path / "copy")
    lock = checkout.root / "requirements.lock"
    good = lock.read_text()
    lock.write_text("alpha==1.0 --hash=sha256:" + 64 * "1" + "\n")
    out, told = checkout.launch("show", code=2)
    assert out == ""
    assert "error: the installation of requirements.lock failed" in told
    assert "Traceback" not in told
    lock.write_text(good)
    # An environment elsewhere, by a variable.
    checkout.variables["FMA_ENV"] = "other place"
    out, _ = checkout.launch("show", cwd=tmp_path)
    assert json.loads(out)["alpha"] == "1.0"
    assert Environment(tmp_path / "other place", checkout.root).read_stamp()
    # Nobody's folder is emptied.
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").touch()
    checkout.variables["FMA_ENV"] = str(tmp_path / "thesis")
    _, told = checkout.launch("show", code=2)
    assert "was not made by launch.sh" in told
    assert (tmp_path / "thesis" / "thesis.txt").exists()


def test_an_environment_of_other_making_is_set_aside(tmp_path, capsys):
    environment = Environment(tmp_path / ".venv", tmp_path)
    environment.folder.mkdir()
    (environment.folder / "mine").touch()
    set_up.claim(environment, ours=True)
    told = capsys.readouterr().err
    assert ".venv was not made by launch.sh; it is .venv-1 now." in told
    assert (tmp_path / ".venv-1" / "mine").exists()
    assert environment.mark.is_dir()
    assert not (environment.folder / "mine").exists()


def test_a_checkout_that_cannot_be_written_to(new, tmp_path):
    """As on a read-only file system, which binds root, too."""
    checkout = new.copy(tmp_path / "copy")
    root = checkout.root
    script = tmp_path / "readonly.sh"
    script.write_text(
        '#!/bin/sh\nset -e\nmount --bind "$CHECKOUT" "$CHECKOUT"\n'
        'mount -o remount,ro,bind "$CHECKOUT"\nexec "$CHECKOUT/launch.sh" "$@"\n'
    )
    probe = ["unshare", "-m", "mount", "--bind", str(root), str(root)]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    command = ["unshare", "-m", "sh", str(script), "show"]
    cache = tmp_path / "cache"
    for variables, code in (({}, 2), ({"XDG_CACHE_HOME": str(cache)}, 0)):
        variables |= {k: v for k, v in checkout.variables.items() if k != "HOME"}
        done = subprocess.run(
            command,
            env=variables | {"CHECKOUT": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["alpha"] == "1.0"
    assert not (root / ".venv").exists()
    assert list(cache.glob("fma-genre-classifiers/*/fma-setup"))


def test_no_python_is_a_sentence(new, tmp_path):
    checkout = new.copy(tmp_path / "copy")
    checkout.variables |= {"PYTHON": "/nowhere/python", "PATH": "/nowhere"}
    for tool in ("dirname", "readlink", "cksum", "tr", "env", "bash", "tail"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    checkout.variables["PATH"] = str(tmp_path)
    _, told = checkout.launch("show", code=2)
    assert told.startswith("error: CPython 3.11 is needed (found no Python)")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *(("predct", "; did you mean predict?"), ("tset", "; did you mean test?")),
        *(("local fma", "; did you mean local?"), ("../x", ""), ("--versio", "")),
    ],
)
def test_a_misspelt_command_names_the_right_one(word, meant):
    """Before anything is set up."""
    done = subprocess.run(
        [ROOT / "launch.sh", word], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    expected = f"error: unknown command{meant} (see ./launch.sh help). Received: {word}"
    assert (done.stdout, done.stderr) == ("", f"{expected}\n")


def test_a_part_of_a_lock():
    text = (
        "# by uv\nA.b==1 \\\n    --hash=sha256:1\nc[x, y]==2 \\\n    --hash=sha256:2\n"
    )
    assert read_pins(text) == {"a-b": "1", "c": "2"}
    assert select_pins(text, ["a-b"]) == "A.b==1 \\\n    --hash=sha256:1\n"
    assert select_pins(text, ["d"]) == ""
