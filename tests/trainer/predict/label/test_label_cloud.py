"""Labelling with everything in a bucket: an emulator's, and a fake Dataflow."""

import json

import pytest

from pipeline.cloud import follow
from pipeline.launch.commands import main as launch
from tests.support.cloud.environment import BUCKET, loopback_cloud
from tests.support.cloud.services import JOB_ID
from tests.support.small_models import write_models, write_tones
from trainer.predict.label.__main__ import main


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloud")
    write_models(folder / "models")
    write_tones(folder / "music", 3)
    (folder / "music" / "empty.wav").write_bytes(b"")
    with loopback_cloud(folder) as cloud:
        cloud.upload(folder / "models", "models")
        cloud.upload(folder / "music", "music")
        yield cloud


def arguments(output: str) -> list[str]:
    return [
        f"--model=gs://{BUCKET}/models/windows",
        f"--audio=gs://{BUCKET}/music/**",
        f"--output=gs://{BUCKET}/{output}",
        "--num_shards=2",
    ]


def test_a_bucket_is_labelled_from_here(cloud, capsys):
    assert main([*arguments("labels"), "--direct_running_mode=in_memory"]) == 0
    names = [name.removeprefix("labels/") for name in cloud.list("labels/")]
    assert names == [
        "COMPLETED",
        "OWNER.json",
        "labels.json",
        *(
            f"labels/0000{n}-of-00002.{kind}"
            for n in "01"
            for kind in ("jsonl", "parquet")
        ),
        "rejects-00000-of-00001.jsonl",
        "report.json",
    ]
    summary = json.loads(cloud.get("labels/labels.json"))
    assert summary["inputs"] == {
        "files": 4,
        "songs": 3,
        "rejects": 1,
        "not_audio": 0,
    }


def test_dataflow_is_sent_the_same_job(cloud, capsys, monkeypatch):
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    place = ["--project=fma-project", "--region=europe-west1", f"--bucket={BUCKET}"]
    place.append(f"--dataflow_endpoint={cloud.endpoint}")
    made = {name: cloud.get(name) for name in cloud.list("labels/")}

    def finish() -> None:
        for name, content in made.items():
            cloud.put(name.replace("labels/", "there/", 1), content)

    cloud.services.on_state["DONE"] = finish
    command = ["launch", "dataflow", "--label", *place, *arguments("there"), "--wait"]
    assert launch(command) == 0
    printed = capsys.readouterr().out
    assert f"Submitted: {JOB_ID}" in printed
    assert "4 files are 3 songs, 1 rejects" in printed
    assert "\nNext: ./launch.sh app --model gs://" in printed
    (created,) = cloud.services.sent("POST", "/jobs")
    assert created.body["name"].startswith("fma-labels-")


def test_dataflow_takes_no_files_of_this_machine(cloud, tmp_path, capsys):
    place = ["--project=fma-project", "--region=europe-west1", f"--bucket={BUCKET}"]
    flags = [*place, *arguments("elsewhere"), f"--model={tmp_path}"]
    assert launch(["launch", "dataflow", "--label", *flags]) == 2
    assert "--model must be on gs://" in capsys.readouterr().err
