"""The writing of a model is tried first, and what cuts it off costs no training."""

import dataclasses
import errno
import os
import re
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from pipeline.common.files import LocalFiles, temporary_name
from pipeline.schema import UserError
from tests.support import trainer_fixtures
from trainer import task
from trainer.config import TrainConfig
from trainer.evaluation.model_digests import ModelDigests, digest_bytes
from trainer.runtime.checkpoint import Checkpoint, CheckpointFolder
from trainer.training import train
from trainer.training.model_folder import ModelFolder
from trainer.training.step import Learner

pytestmark = pytest.mark.usefixtures("undrawn")
OLD = dict.fromkeys(("model.keras", "report.json", "confusion.png"), b"old")
NEW = dict.fromkeys(("model.keras", "report.json", "history.json"), b"new")
FILES = {
    "OWNER.json",
    "confusion.png",
    "history.json",
    "history.png",
    "manifest.json",
    "model.json",
    "model.keras",
    "model_card.md",
    "predictions.csv",
    "validation.csv",
    "report.json",
}


class PowerCutError(BaseException):
    """Nothing handles it, as nothing handles a kill."""


class Disk:
    """Counts what changes files; fails from a moment on, in the middle of it."""

    def __init__(self, monkeypatch, error: BaseException) -> None:
        self.count = 0
        self.moment: int | None = None
        self._error = error
        write, rename = LocalFiles.write, tf.io.gfile.rename

        def cut_write(files, path, data):
            if self._fails():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(error, PowerCutError):
                    Path(temporary_name(path)).write_bytes(data[: len(data) // 2])
                raise error
            write(files, path, data)

        def cut(function):
            def change(*arguments, **options):
                if self._fails():
                    raise error
                return function(*arguments, **options)

            return change

        monkeypatch.setattr(LocalFiles, "write", cut_write)
        monkeypatch.setattr(LocalFiles, "delete", cut(LocalFiles.delete))
        monkeypatch.setattr(tf.io.gfile, "rename", cut(rename))

    def _fails(self) -> bool:
        self.count += 1
        return self.moment is not None and self.count > self.moment


def write_model(path: Path, contents: dict[str, bytes], run: str) -> None:
    folder = ModelFolder.at(str(path))
    folder.claim()
    folder.reserve(1000)
    folder.write(lambda: contents, representation="mel", genres=3, run=run)


def publish(path: Path, mine: CheckpointFolder) -> str | None:
    return ModelFolder.at(str(path)).publish(
        lambda run: mine.remove() if run == "new" else None
    )


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.*")}


def test_every_cut_leaves_the_old_model_or_a_way_to_the_new(tmp_path, monkeypatch):
    """At each change of a file, as a kill would do it."""
    monkeypatch.setattr(os, "fsync", lambda *_: None)
    disk = Disk(monkeypatch, PowerCutError())
    moment, complete = 0, False
    outcomes = []
    while not complete:
        output, run_folder = tmp_path / str(moment), tmp_path / f"c{moment}"
        mine = CheckpointFolder(path=f"{run_folder}/head", run_folder=str(run_folder))
        disk.moment = None
        write_model(output, OLD, "old")
        publish(output, mine)
        mine.save(Checkpoint(step=1, state={}, arrays={}))
        disk.count, disk.moment = 0, moment
        try:
            write_model(output, NEW, "new")
            publish(output, mine)
            complete = True
        except PowerCutError:
            pass
        disk.moment = None
        digests = ModelDigests.from_json((output / "model.json").read_bytes(), "x")
        whole = all(
            (output / name).exists()
            and digest_bytes((output / name).read_bytes()) == digest
            for name, digest in digests.files.items()
        )
        # What the digests do not fit is refused by all who read a model.
        state = {"old": "old", "new": "new"}[(output / "model.keras").read_text()]
        assert whole or (output / "_unpublished" / "publish.json").exists()
        finished = publish(output, mine)
        outcomes.append(finished)
        if complete:
            assert finished is None
        elif finished is None:
            # Trained again from the checkpoint of the end of the training.
            assert state == "old"
            assert whole
            assert mine.load() is not None
            write_model(output, NEW, "new")
            publish(output, mine)
        assert names_in(output) == {*NEW, "OWNER.json", "model.json"}
        assert {(output / name).read_bytes() for name in NEW} == {b"new"}
        assert not run_folder.exists()
        moment += 1
    assert outcomes.count("new") >= 5
    assert len(outcomes) >= 15


def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    output = tmp_path / "model"
    mine = CheckpointFolder(path=str(tmp_path / "none"))
    write_model(output, OLD, "old")
    publish(output, mine)
    before = {name: (output / name).read_bytes() for name in names_in(output)}
    disk.count, disk.moment = 0, 1
    with pytest.raises(UserError, match=r"needs? 0\.0 MB|No space left on device"):
        write_model(output, NEW, "new")
    disk.moment = None
    assert (
        before.items()
        <= {name: (output / name).read_bytes() for name in names_in(output)}.items()
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data")
    trainer_fixtures.write_dataset(
        folder, representations=("statistics",), statistics=20
    )
    return str(folder)


def run_task(data: str, output: Path, *flags: str) -> int:
    argv = [f"--data={data}", "--model=statistics", "--epochs=1", f"--output={output}"]
    return task.main([*argv, *flags])


def forbid_training(monkeypatch) -> None:
    monkeypatch.setattr(Learner, "step", lambda *_: pytest.fail("it trains again"))


@pytest.fixture(scope="module")
def calm(data, tmp_path_factory) -> tuple[Path, range]:
    """A model that nothing disturbed, and the changes of files from its end on."""
    output = tmp_path_factory.mktemp("calm") / "model"
    first = 0
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, PowerCutError())
        make = train.make_contents

        def begin(*arguments):
            nonlocal first
            first = disk.count
            return make(*arguments)

        patch.setattr(train, "make_contents", begin)
        assert run_task(data, output) == 0
    return output, range(first, disk.count)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(number / 20, marks=() if number in (0, 12) else pytest.mark.slow)
        for number in range(20)
    ],
)
def test_the_same_command_completes_what_a_kill_cut_off(
    data, calm, tmp_path, monkeypatch, capsys, part
):
    disk = Disk(monkeypatch, PowerCutError())
    disk.moment = calm[1][int(part * len(calm[1]))]
    output = tmp_path / "model"
    with pytest.raises(PowerCutError):
        run_task(data, output)
    disk.moment = None
    forbid_training(monkeypatch)
    assert run_task(data, output) == 0
    assert "finished before" in capsys.readouterr().out
    assert names_in(output) == FILES
    digests = ModelDigests.from_json((output / "model.json").read_bytes(), "x")
    for name in digests.files:
        digests.check(name, digest_bytes((output / name).read_bytes()), name)
    keras.models.load_model(output / "model.keras")
    first, second = (
        (folder / "predictions.csv").read_text() for folder in (output, calm[0])
    )
    assert first == second


def test_the_same_command_completes_what_a_full_disk_cut_off(
    data, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "model"
    write = LocalFiles.write

    def fail(files, path, data):
        if path.endswith("model.keras"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(files, path, data)

    monkeypatch.setattr(LocalFiles, "write", fail)
    assert run_task(data, output) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"error: The model cannot be written to \S+ \(No space left on device\); make "
        r"room there, .* give the same command again\.\n",
        error,
    )
    monkeypatch.undo()
    forbid_training(monkeypatch)
    assert run_task(data, output) == 0
    assert names_in(output) == FILES


def test_writing_is_tried_before_training(data, tmp_path, monkeypatch, capsys):
    forbid_training(monkeypatch)
    write = LocalFiles.write
    sizes = []

    def fail(files, path, data):
        if len(data) > 1000:
            sizes.append(len(data))
            raise OSError(errno.ENOSPC, "No space left on device")
        write(files, path, data)

    monkeypatch.setattr(LocalFiles, "write", fail)
    assert run_task(data, tmp_path / "full") == 2
    error = capsys.readouterr().err
    assert "No space left on device; the model will need 2." in error
    assert len(error.splitlines()) == 1
    assert sizes[0] > 2e6
    assert not (tmp_path / "full").exists()

    def refuse(files, path, data):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(LocalFiles, "write", refuse)
    assert run_task(data, tmp_path / "only") == 2
    error = capsys.readouterr().err
    assert "Read-only file system" in error
    assert len(error.splitlines()) == 1


def test_digests_are_those_of_the_files(data, tmp_path):
    output = tmp_path / "model"
    assert run_task(data, output) == 0
    digests = ModelDigests.from_json((output / "model.json").read_bytes(), "x")
    assert (digests.representation, digests.genres) == ("statistics", 3)
    assert set(digests.files) == FILES - {"OWNER.json", "model.json"}
    for name in digests.files:
        content = (output / name).read_bytes()
        digests.check(name, digest_bytes(content), name)


def test_an_export_of_the_model_before_is_told(tmp_path, capsys):
    folder = ModelFolder.at(str(tmp_path))
    for told in (False, True):
        folder.claim()
        details = {"representation": "mel", "genres": 2, "run": "r"}
        folder.write(lambda: NEW, **details)
        folder.publish(lambda _: None)
        assert ("is of the model that was here before" in capsys.readouterr().err) == (
            told
        )
        (tmp_path / "export").mkdir(exist_ok=True)
        (tmp_path / "export" / "saved_model.pb").write_bytes(b"old")


def test_a_model_of_another_command_is_completed_first(data, tmp_path, capsys):
    output = tmp_path / "model"
    write_model(output, NEW, "another")
    assert run_task(data, output) == 0
    assert names_in(output) == FILES
    assert "finished before" not in capsys.readouterr().out


def test_a_single_genre_cannot_be_learnt(tmp_path, capsys):
    trainer_fixtures.write_dataset(
        tmp_path / "data", representations=("statistics",), genres=("Folk",)
    )
    assert run_task(str(tmp_path / "data"), tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "holds fewer than two genres ('Folk'), between which a classifier" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_process_that_is_not_the_chief_leaves_nothing(
    tmp_path, monkeypatch, shared, finished
):
    """On a disk of its own, or the chief's."""
    data, output = tmp_path / "data", tmp_path / "output"
    trainer_fixtures.write_dataset(data, representations=("statistics",), statistics=5)
    config = TrainConfig(
        data=str(data),
        output=str(output),
        model="statistics",
        checkpoint_dir=str(output / "checkpoints"),
    )

    def compute(run):
        folder = run.checkpoints("features")
        folder.claim()
        outputs = Path(folder.path) / "0123456789ab" / "base-features"
        outputs.mkdir(parents=True)
        (outputs / "training-00000-of-00001.tfrecord").write_bytes(b"")
        return SimpleNamespace(predictions={})

    monkeypatch.setattr(train, "_fit", compute)
    monkeypatch.setattr(train, "wait_for_all", lambda _: None)
    monkeypatch.setattr(train, "_publish_earlier", lambda *_: finished)
    if shared:
        (output / "mine").mkdir(parents=True)
        (output / "model.keras").write_bytes(b"new")
    with train.open_run(config) as run:
        run.devices = dataclasses.replace(run.devices, worker=1, workers=2)
        if finished:
            compute(run)
        assert train._train(run, ModelFolder.at(str(output)), [], {}, "name") is None
    assert output.exists() == shared
    left = {str(path.relative_to(output)) for path in output.rglob("*")}
    assert left == ({"mine", "model.keras"} if shared else set())
