"""Inputs and outputs on gs://: Beam's and TensorFlow's own clients, an emulator."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.common import gcs
from pipeline.common.clip_config import ClipConfig
from pipeline.decoding.waveform import load_waveform
from pipeline.representations.music_model import load_network
from pipeline.representations.weights import find_weights
from pipeline.schema import Manifest, UserError, completion_marker
from pipeline.shards import shard
from pipeline.shards.records import make_workspace
from pipeline.shards.result import DatasetConfig
from tests.support.audio_files import encode_with_ffmpeg
from tests.support.cloud.environment import BUCKET, loopback_cloud
from tests.support.corpora import RATE, make_clip, write_plain_corpus
from tests.support.music_models import publish_chance_weights

REPRESENTATIONS = ("mel", "features")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with loopback_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_plain_corpus(folder)
    return folder


def run_pipeline(source: str, output: str, wavs: str) -> int:
    return preprocess.main(
        [
            f"--audio={source}/audio/*.wav",
            f"--metadata={source}/tracks.csv",
            f"--output={output}",
            f"--wav_output={wavs}",
            "--num_shards=2",
            "--representations",
            *REPRESENTATIONS,
        ]
    )


@pytest.fixture(scope="module")
def local(corpus) -> Path:
    assert run_pipeline(str(corpus), str(corpus / "dataset"), str(corpus / "wavs")) == 0
    return corpus / "dataset"


@pytest.fixture(scope="module")
def remote(cloud, corpus) -> str:
    cloud.upload(corpus / "audio", "corpus/audio")
    cloud.put("corpus/tracks.csv", (corpus / "tracks.csv").read_bytes())
    source = f"gs://{BUCKET}/corpus"
    code = run_pipeline(source, f"gs://{BUCKET}/dataset", f"gs://{BUCKET}/wavs")
    assert code == 0
    return f"gs://{BUCKET}/dataset"


def test_records_are_those_of_a_local_run(cloud, local, remote):
    names = [path.relative_to(local).as_posix() for path in local.glob("*/*.tfrecord")]
    assert len(names) == len(REPRESENTATIONS) * 3 * 2
    for name in names:
        assert cloud.get(f"dataset/{name}") == (local / name).read_bytes(), name
    assert any((local / name).stat().st_size for name in names)


def test_manifests_differ_in_nothing(cloud, local, remote):
    def read(content: bytes) -> Manifest:
        return Manifest.from_json(content.decode(), source="test")

    mine = read((local / "manifest.json").read_bytes())
    content = cloud.get("dataset/manifest.json")
    theirs = read(content)
    assert theirs == mine
    marker = completion_marker(theirs, content.decode())
    assert cloud.get("dataset/COMPLETED").decode() == marker


def test_wavs_are_kept_there_too(cloud, corpus, remote):
    for path in (corpus / "wavs").glob("*.wav"):
        assert cloud.get(f"wavs/{path.name}") == path.read_bytes()


def test_nothing_unfinished_is_left(cloud, remote):
    assert not [name for name in cloud.list("") if "_temporary" in name]
    assert "dataset/transform_fn/saved_model.pb" in cloud.list("dataset")


def test_the_trainer_trains_as_in_vertex_ai(
    cloud, local, remote, tmp_path, monkeypatch
):
    from trainer import task

    arguments = ["--model=features", "--epochs=2", "--batch_size=4"]
    here = [f"--data={local}", f"--output={tmp_path}/model"]
    assert task.main([*arguments, *here]) == 0
    # What Vertex AI sets in a job's container.
    for name, folder in (
        ("AIP_MODEL_DIR", "model"),
        ("AIP_CHECKPOINT_DIR", "checkpoints"),
        ("AIP_TENSORBOARD_LOG_DIR", "logs"),
    ):
        monkeypatch.setenv(name, f"gs://{BUCKET}/job/{folder}/")
    assert task.main([*arguments, f"--data={remote}"]) == 0
    names = {path.name for path in (tmp_path / "model").iterdir() if path.is_file()}
    written = {name.removeprefix("job/model/") for name in cloud.list("job/model/")}
    assert {"model.keras", "report.json", "history.json"} <= names <= written
    mine = json.loads((tmp_path / "model" / "history.json").read_text())
    theirs = json.loads(cloud.get("job/model/history.json"))
    assert strip_times(theirs) == strip_times(mine)
    assert [name for name in cloud.list("job/logs") if "tfevents" in name]


def test_reports_are_written_there_too(cloud, remote):
    from trainer.baselines import __main__ as baselines
    from trainer.compare import __main__ as compare

    models, report = f"gs://{BUCKET}/models", f"gs://{BUCKET}/report"
    options = ["--models", "gaussian_nb", "knn"]
    assert baselines.main([f"--data={remote}", f"--output={models}", *options]) == 0
    assert compare.main([f"--models={models}", f"--output={report}"]) == 0
    assert "models/knn-features/report.json" in cloud.list("models")
    assert [name for name in cloud.list("report") if name.endswith(".html")]


def strip_times(history):
    for phase in history["phases"]:
        phase.pop("seconds")
        for name in [name for name in phase if "wait" in name or "time" in name]:
            phase.pop(name)
    return history


def test_of_a_long_file_only_the_excerpt_is_fetched(cloud, monkeypatch, tmp_path):
    from google.cloud.storage import Blob

    fetched = []
    original = Blob.download_as_bytes

    def download(blob, *args, **kwargs):
        content = original(blob, *args, **kwargs)
        fetched.append(len(content))
        return content

    seconds = 600
    noise = np.random.default_rng(0).normal(0, 0.1, (seconds * RATE, 1))
    # At a variable bit rate the middle is found by following every frame.
    data = encode_with_ffmpeg(noise, "-b:a", "64k", rate=RATE)
    monkeypatch.setattr(shard, "WHOLE_FILE_BYTES", 1 << 20)
    cloud.put("long/song.mp3", data)
    (tmp_path / "song.mp3").write_bytes(data)
    monkeypatch.setattr(Blob, "download_as_bytes", download)
    samples = []
    here = make_clip(tmp_path / "song.mp3")
    there = dataclasses.replace(here, path=f"gs://{BUCKET}/long/song.mp3")
    for clip in (here, there):
        with shard.fetch_audio(clip, "middle") as file:
            samples.append(load_waveform(file, ClipConfig()).samples)
    assert np.array_equal(*samples)
    # Of ten minutes, half a minute and the header.
    assert sum(fetched) < len(data) / 8


def test_a_worker_reads_the_music_models_weights_there(cloud, monkeypatch):
    content = publish_chance_weights(monkeypatch)
    cloud.put("weights/model.npz", content)
    path = f"gs://{BUCKET}/weights/model.npz"
    model, found = find_weights(path)
    assert (model.name, found) == ("MSD_vgg", path)
    config = DatasetConfig(
        output=f"gs://{BUCKET}/dataset",
        representations=("embeddings",),
        clip=ClipConfig(music_model=model.name),
        genres=("g",),
        music_weights=path,
    )
    patches = np.ones((2, 187, 96), np.float32)
    here = load_network(content, "here")(patches)
    np.testing.assert_array_equal(make_workspace(config).network(patches), here)
    with pytest.raises(UserError, match=r"can be read\. Received: gs://.*none\.npz"):
        find_weights(f"gs://{BUCKET}/weights/none.npz")


def test_reads_text_or_says_that_there_is_none(cloud):
    cloud.put("notes/a.txt", "größer".encode())
    assert gcs.read_text(f"gs://{BUCKET}/notes/a.txt") == "größer"
    assert gcs.read_text(f"gs://{BUCKET}/notes/b.txt") is None


def test_probing_a_folder_leaves_nothing(cloud):
    gcs.check_writable(f"gs://{BUCKET}/probed")
    assert cloud.list("probed") == []


def test_a_missing_bucket_is_one_sentence(cloud):
    message = r"There is no bucket gs://fma-nowhere; create it with `gcloud storage"
    with pytest.raises(UserError, match=message):
        gcs.check_readable([f"gs://{BUCKET}/a", "gs://fma-nowhere/audio/*.mp3"])


def test_refused_credentials_are_one_sentence(cloud, tmp_path, monkeypatch):
    key = cloud.key | {"token_uri": f"{cloud.endpoint}/revoked"}
    (tmp_path / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(UserError, match=f"refuses the credentials for gs://{BUCKET}"):
        gcs.check_readable([f"gs://{BUCKET}/a"])


def test_local_paths_need_no_credentials(monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    gcs.check_readable(["/music/*.mp3", "", None, "/gcs/bucket/dataset"])


@pytest.mark.parametrize("name", ["ab", "My-Bucket", "-abc", "a b c", "abc-"])
def test_names_of_no_bucket(name):
    with pytest.raises(UserError, match="--bucket must name a bucket"):
        gcs.check_bucket_name(name, "--bucket")
