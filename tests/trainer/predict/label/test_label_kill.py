"""Labelling jobs that are killed; `tests.whole.campaigns.kill` does it more often."""

import json
import shutil

import psutil
import pytest

from tests.support.jobs import (
    MODES,
    count_finished,
    kill,
    let_go,
    looks_finished,
    read_dataset,
    start,
    wait_until_held,
)
from tests.support.small_models import write_models, write_tones
from trainer.predict.label.__main__ import main

MODULE = "trainer.predict.label"
SHARDS = 12


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("catalogue")
    write_models(folder / "models")
    write_tones(folder / "music", 48)
    write_tones(folder / "music" / "long", 1, 95.0)
    (folder / "music" / "broken.mp3").write_bytes(b"words")
    names = (f"--audio={folder}/music", f"--model={folder}/models/windows")
    return [*names, f"--num_shards={SHARDS}", "--by_excerpt", "--embeddings"]


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    assert main([*flags, f"--output={output}"]) == 0
    return read_dataset(output)


def test_a_job_that_is_killed_gives_the_rows_of_an_undisturbed_one(
    flags, undisturbed, tmp_path, capsys
):
    output = tmp_path / "labels"
    job = [*flags, f"--output={output}"]
    process = start(job, tmp_path / "log", module=MODULE, held_at=5)
    wait_until_held(process, output, 5)
    kill(process)
    assert not looks_finished(output)
    finished = count_finished(output)
    assert 5 <= finished < SHARDS
    capsys.readouterr()
    assert main(job) == 0
    printed = capsys.readouterr().out
    assert f"{finished} of {SHARDS} shards are there from a job that did not" in printed
    assert read_dataset(output) == undisturbed
    names = sorted(output.glob("labels/*.jsonl"))
    rows = [json.loads(line) for file in names for line in file.open()]
    assert [row["start"] for row in rows if row["excerpts"] == 3] == pytest.approx(
        [95 / 6 - 15, 95 / 2 - 15, 95 * 5 / 6 - 15], abs=1e-3
    )
    assert {len(row["embedding"]) for row in rows} == {64}


@pytest.mark.slow
def test_labels_that_are_being_replaced_survive_kills(flags, undisturbed, tmp_path):
    output = tmp_path / "labels"
    assert main([*flags, "--top=1", f"--output={output}"]) == 0
    before = read_dataset(output)
    saved = shutil.copytree(output, tmp_path / "saved")
    job = [*flags, *MODES["two workers"], "--overwrite"]
    orphans = []
    for shards in (2, 5):
        log = tmp_path / f"{shards}.log"
        words = [*job, f"--output={output}"]
        process = start(words, log, module=MODULE, held_at=shards)
        wait_until_held(process, output / "_next", shards)
        orphans += kill(process)
        let_go(log)
        found = read_dataset(output)
        assert {name: found[name] for name in before} == before == read_dataset(saved)
    assert main([*flags, "--overwrite", f"--output={output}"]) == 0
    psutil.wait_procs(orphans, timeout=240)
    assert not [orphan for orphan in orphans if orphan.is_running()]
    assert read_dataset(output) == undisturbed
