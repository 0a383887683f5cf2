"""Two jobs on one folder: one wins, whenever the other begins, ends or dies."""

import concurrent.futures
import dataclasses
import json
import random
import threading
import time
from pathlib import Path

import pytest

from pipeline.common import storage
from pipeline.common.clip_config import ClipConfig
from pipeline.common.files import join
from pipeline.job import complete
from pipeline.launch.output import prepare_output
from pipeline.schema import SPLITS, Manifest, shard_file
from pipeline.shards import replace, runs
from pipeline.shards.result import DatasetConfig
from tests.support.manifests import make_manifest

SHARDS = 2


class Killed(BaseException):
    """Stands for the end of a process: nothing is tidied up by what it runs."""


def make_dataset(folder: Path, run: str) -> DatasetConfig:
    return DatasetConfig(
        output=str(folder),
        representations=("mel",),
        clip=ClipConfig(),
        genres=("High",),
        num_shards=SHARDS,
        run=run,
    )


def do_job(
    folder: Path, run: str, *, overwrite: bool, pause, content: str = ""
) -> None:
    """Does what a job does to its folder; every file holds the job's name."""
    content = content or run
    dataset, _ = prepare_output(make_dataset(folder, run), overwrite=overwrite)
    for shard in range(SHARDS):
        pause()
        with runs.writing(dataset):
            for split in SPLITS:
                name = shard_file("mel", split, shard, SHARDS)
                path = join(dataset.output, name)
                storage.write_atomically(path, content.encode(), scratch=dataset.output)
    pause()
    manifest = dataclasses.replace(make_manifest(), description=content)
    with runs.completing(dataset) as done:
        assert not done
        report = json.dumps({"run": run}).encode()
        path = join(dataset.output, "report.json")
        pause()
        storage.write_atomically(path, report, scratch=dataset.output)
        complete.publish(dataset, manifest)


def read_names(folder: Path) -> set[str]:
    """The jobs whose files are in a dataset."""
    text = (folder / "manifest.json").read_text()
    names = {Manifest.from_json(text, source="m").description}
    names |= {path.read_text() for path in folder.glob("mel/*")}
    return names | {json.loads((folder / "report.json").read_text())["run"]}


def list_names(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


def race(
    folder: Path,
    seed: int,
    *,
    dying: bool = False,
    overwrite: bool = False,
    waits: str = "",
):
    """Starts a second job at a random moment of the first; returns their outcomes.

    The one that `waits`, when it has begun, does so for the end of the other.
    """
    draw = random.Random(seed)
    outcomes: dict[str, str] = {}
    step, begun = 0.002, threading.Event()
    ended = {name: threading.Event() for name in "ab"}

    def run(name: str, delay: float, dies_after: int) -> None:
        pauses = 0

        def pause() -> None:
            nonlocal pauses
            pauses += 1
            begun.set()
            time.sleep(draw.uniform(0, step))
            if name == waits:
                ended["b" if name == "a" else "a"].wait()
            if pauses > dies_after:
                raise Killed

        if dying and name == "b":
            begun.wait()
        time.sleep(delay)
        try:
            do_job(folder, name, overwrite=overwrite, pause=pause)
            outcomes[name] = "completed"
        except runs.SupersededError:
            outcomes[name] = "superseded"
        except storage.WriteError:
            # Files that the other's beginning removed: the command asks then.
            dataset = dataclasses.replace(make_dataset(folder, name))
            assert runs.is_superseded(dataset)
            outcomes[name] = "superseded"
        except Killed:
            outcomes[name] = "killed"
        finally:
            ended[name].set()

    threads = [
        threading.Thread(
            target=run, args=("a", 0.0, draw.randint(0, 3) if dying else 99)
        ),
        threading.Thread(target=run, args=("b", draw.uniform(0, 6 * step), 99)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {"a", "b"}
    return outcomes


def test_one_of_two_jobs_wins_at_100_random_offsets(tmp_path):
    won = set()
    for seed in range(100):
        folder = tmp_path / str(seed)
        # Whoever begins while the other one waits wins.
        outcomes = race(folder, seed, waits={0: "a", 1: "b"}.get(seed, ""))
        assert sorted(outcomes.values()) == ["completed", "superseded"], seed
        [winner] = (name for name, outcome in outcomes.items() if outcome[0] == "c")
        assert read_names(folder) == {winner}, seed
        assert not {n for n in list_names(folder) if n.startswith("_")}
        won.add(winner)
    assert won == {"a", "b"}


def test_a_job_that_dies_stands_in_nobodys_way(tmp_path):
    for seed in range(30):
        folder = tmp_path / str(seed)
        outcomes = race(folder, seed, dying=True)
        assert outcomes["b"] == "completed", seed
        assert read_names(folder) == {"b"}, seed


def test_jobs_that_replace_a_dataset_never_mix(tmp_path):
    for seed in range(15):
        folder = tmp_path / str(seed)
        do_job(folder, "old", overwrite=False, pause=lambda: None)
        outcomes = race(folder, seed, overwrite=True)
        assert "completed" in outcomes.values()
        [name] = read_names(folder)
        assert outcomes[name] == "completed"
        assert not {n for n in list_names(folder) if n.startswith("_")}
        assert [path.name for path in tmp_path.glob(".*")] == []


def test_somebody_always_sees_a_whole_dataset(tmp_path):
    folder = tmp_path / "data"
    do_job(folder, "old", overwrite=False, pause=lambda: None)
    looks, done = threading.Semaphore(0), threading.Event()

    def look() -> None:
        while not done.is_set():
            with open(folder / "COMPLETED", "rb"):
                looks.release()

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        looker = executor.submit(look)
        for name in "abc":
            # One look may have begun before.
            pause = lambda: [looks.acquire(timeout=1) for _ in range(2)]  # noqa: E731
            do_job(folder, name, overwrite=True, pause=pause)
        done.set()
        looker.result()
    assert read_names(folder) == {"c"}


@pytest.mark.parametrize("exchange", [True, False])
def test_replacing_gives_the_bytes_of_a_new_dataset(tmp_path, monkeypatch, exchange):
    def job(name: str, run: str, *, overwrite: bool) -> None:
        do_job(
            tmp_path / name,
            run,
            overwrite=overwrite,
            pause=lambda: None,
            content="same",
        )

    if not exchange:
        monkeypatch.setattr(replace, "_rename_exchange", lambda *names: False)
    for name in ("fresh", "data"):
        job(name, name, overwrite=False)
    (tmp_path / "data" / "rejects-00000-of-00009.jsonl").write_text("old\n")
    job("data", "replacing", overwrite=True)
    assert list_names(tmp_path / "data") == list_names(tmp_path / "fresh")
    for name in list_names(tmp_path / "fresh") - {"report.json"}:
        found = (tmp_path / "data" / name).read_bytes()
        assert found == (tmp_path / "fresh" / name).read_bytes(), name
    folders = {path.name for path in (tmp_path / "data").iterdir() if path.is_dir()}
    assert folders == {"mel", "clips"}


@pytest.mark.parametrize("steps", range(12))
def test_replacing_file_by_file_goes_on_after_an_interruption(
    tmp_path, monkeypatch, steps
):
    """On stores that cannot exchange folders: the old is whole, or the new will be."""
    folder = tmp_path / "data"
    do_job(folder, "old", overwrite=False, pause=lambda: None)
    before = {name: (folder / name).read_bytes() for name in list_names(folder)}
    monkeypatch.setattr(replace, "_rename_exchange", lambda *names: False)
    original, calls = storage.rename, []

    def rename(source, target):
        if "_next" in source and "_unfinished" not in source and "_temp" not in source:
            calls.append(source)
            if len(calls) > steps:
                raise Killed
        original(source, target)

    monkeypatch.setattr(storage, "rename", rename)
    killed = False
    try:
        do_job(folder, "new", overwrite=True, pause=lambda: None)
    except Killed:
        killed = True
        if (folder / "COMPLETED").exists():
            for name, content in before.items():
                assert (folder / name).read_bytes() == content
    monkeypatch.setattr(storage, "rename", original)
    assert killed == (steps < len(calls))
    if killed:
        with pytest.raises(runs.SupersededError):
            prepare_output(make_dataset(folder, "later"), overwrite=False)
    assert read_names(folder) == {"new"}
    assert not {n for n in list_names(folder) if n.startswith("_")}
