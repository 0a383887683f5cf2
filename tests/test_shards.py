import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from apache_beam.io.filesystem import BeamIOError
from google.api_core.exceptions import Forbidden

from pipeline import preflight, shards, storage
from pipeline.audio import load_waveform
from pipeline.clip import Clip
from pipeline.config import ClipConfig
from pipeline.quiet import keep_back_stderr
from pipeline.rejects import AudioError, Reason
from pipeline.schema import SPLITS, fingerprint
from pipeline.shards import DatasetConfig, fetch_audio, make_shard
from pipeline.spectrum import Workspace
from pipeline.tfrecord import read_records
from tests.audio_files import RATE, encode, encode_with_ffmpeg, make_markers, make_music

with keep_back_stderr():
    import tensorflow as tf

NAMES = ("windows", "mel", "features")
GENRES = ("Folk", "Jazz")


def make_clip(path: Path, track_id: str, **changes) -> Clip:
    values = {
        "track_id": track_id,
        "artist_id": f"a{track_id}",
        "genre": "Jazz",
        "label": 1,
        "split": "training",
        "path": str(path),
        "size": path.stat().st_size if path.exists() else 1_000,
    }
    return Clip(**(values | changes))


@pytest.fixture(scope="module")
def clips(tmp_path_factory, music_mp3) -> list[Clip]:
    """Four good clips and three that are not, in no order."""
    folder = tmp_path_factory.mktemp("audio")
    short = make_music(6, seed=4)
    content = {
        "t4": encode(short, kind="FLAC"),
        "t1": music_mp3,
        "t3": b"",
        "t2": encode_with_ffmpeg(short, extension="m4a"),
        "t6": b"<html>",
        "t5": encode(make_music(5.5, 22_050, seed=5)[:, :1], 22_050),
    }
    for name, data in content.items():
        (folder / f"{name}.mp3").write_bytes(data)
    changes = {
        "t4": {"split": "test", "genre": "Folk", "label": 0},
        "t5": {"artist_id": ""},
    }
    return [
        make_clip(folder / f"{name}.mp3", name, **changes.get(name, {}))
        for name in [*content, "t0"]
    ]


def make_config(output: Path, **changes) -> DatasetConfig:
    values = {
        "output": str(output),
        "representations": NAMES,
        "clip": ClipConfig(windows_per_clip=2),
        "genres": GENRES,
        "num_shards": 2,
    }
    preflight.make_folders(str(output), NAMES)
    return DatasetConfig(**(values | changes))


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    monkeypatch.setattr(shards, "RETRY_SECONDS", 0.001)


@pytest.fixture(scope="module")
def made(tmp_path_factory, clips):
    """The output folder and the result of shard 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "RETRY_SECONDS", 0.001)
        output = tmp_path_factory.mktemp("output")
        result = make_shard(1, clips, make_config(output), Workspace())
    return output, result


def hash_files(output: Path) -> dict[str, str]:
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def read_features(output: Path, name: str, split: str) -> list[dict]:
    """Scalars of the records of a file, in order."""
    rows = []
    with (output / name / f"{split}-00001-of-00002.tfrecord").open("rb") as file:
        for record in read_records(file):
            feature = tf.train.Example.FromString(record).features.feature
            rows.append(
                {
                    "track_id": feature["track_id"].bytes_list.value[0].decode(),
                    "decoder": feature["decoder"].bytes_list.value[0].decode(),
                    "label": feature["label"].int64_list.value[0],
                    "index": feature["index"].int64_list.value[0],
                }
            )
    return rows


def test_a_shard_is_one_file_for_each_representation_and_split(made):
    output, _ = made
    assert set(hash_files(output)) == {
        f"{name}/{split}-00001-of-00002.tfrecord" for name in NAMES for split in SPLITS
    }


def test_records_are_sorted_by_track_and_window(made):
    output, _ = made
    for name in NAMES:
        rows = read_features(output, name, "training")
        indices = (0, 1) if name == "windows" else (0,)
        assert [(row["track_id"], row["index"]) for row in rows] == [
            (track, index) for track in ("t1", "t2", "t5") for index in indices
        ]
        assert {row["label"] for row in rows} == {1}
        test_rows = read_features(output, name, "test")
        assert {(row["track_id"], row["label"]) for row in test_rows} == {("t4", 0)}
        assert read_features(output, name, "validation") == []


def test_records_name_their_decoder(made):
    output, _ = made
    rows = read_features(output, "mel", "training")
    assert [row["decoder"] for row in rows] == ["libsndfile", "ffmpeg", "libsndfile"]


def test_the_report_counts_what_was_written(made, clips):
    output, result = made
    report = result.report
    assert report.shard == 1
    assert report.clips == {("training", "Jazz"): 3, ("test", "Folk"): 1}
    assert report.records == {
        ("windows", "training"): 6,
        ("windows", "test"): 2,
        ("mel", "training"): 3,
        ("mel", "test"): 1,
        ("features", "training"): 3,
        ("features", "test"): 1,
    }
    assert report.record_bytes == {
        name: sum(path.stat().st_size for path in (output / name).iterdir())
        for name in NAMES
    }
    assert report.decoders == {"libsndfile": 3, "ffmpeg": 1}
    # Without t5, whose artist is not known.
    assert report.artists == [
        ("at1", "training"),
        ("at2", "training"),
        ("at4", "test"),
    ]
    assert len(report.decode_ms) == len(report.feature_ms) == 4
    by_id = {clip.track_id: clip for clip in clips}
    used = [by_id[name] for name in ("t1", "t2", "t4", "t5")]
    assert report.digest == fingerprint(
        [(clip.track_id, clip.genre, clip.split, clip.size) for clip in used]
    )


def test_every_other_clip_is_a_reject(made, clips):
    _, result = made
    found = {reject.track_id: reject for reject in result.rejects}
    assert {track: reject.reason for track, reject in found.items()} == {
        "t0": Reason.UNREADABLE,
        "t3": Reason.EMPTY,
        "t6": Reason.UNDECODABLE,
    }
    assert len(result.rejects) + sum(result.report.clips.values()) == len(clips)
    for clip in clips:
        if clip.track_id in found:
            reject = found[clip.track_id]
            assert (reject.path, reject.stage) == (clip.path, "decode")
            line = json.loads(reject.to_json())
            assert line["reason"] == reject.reason.value
            assert line["message"]


def test_moments_are_of_training_clips(made):
    _, result = made
    assert len(result.moments) == 3
    for moments in result.moments:
        assert set(moments) == {"windows", "features"}
        assert moments["features"].mean.shape == (37,)


def test_a_rerun_writes_the_same_bytes(made, clips, tmp_path):
    output, result = made
    again = make_shard(1, reversed(clips), make_config(tmp_path), Workspace())
    assert hash_files(tmp_path) == hash_files(output)
    assert again.rejects == result.rejects
    times = {"decode_ms": [], "feature_ms": []}
    assert dataclasses.replace(again.report, **times) == dataclasses.replace(
        result.report, **times
    )
    # Over its own output as well.
    make_shard(1, clips, make_config(tmp_path), Workspace())
    assert hash_files(tmp_path) == hash_files(output)


def test_a_shard_without_clips_has_empty_files(tmp_path):
    result = make_shard(0, [], make_config(tmp_path), Workspace())
    assert (result.rejects, result.moments) == ([], [])
    assert not result.report.clips
    files = sorted(tmp_path.rglob("*.tfrecord"))
    assert len(files) == len(NAMES) * len(SPLITS)
    assert all(path.stat().st_size == 0 for path in files)


def test_a_programming_error_fails_the_shard_and_leaves_nothing(
    tmp_path, clips, monkeypatch
):
    original = shards.make_records

    def fail_on_the_second(clip, *arguments):
        if clip.track_id == "t2":
            raise ZeroDivisionError
        return original(clip, *arguments)

    monkeypatch.setattr(shards, "make_records", fail_on_the_second)
    with pytest.raises(ZeroDivisionError):
        make_shard(1, clips, make_config(tmp_path), Workspace())
    assert hash_files(tmp_path) == {}


def test_a_wav_that_cannot_be_kept_fails_the_shard(tmp_path, clips, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(shards, "write_wav", fail)
    config = make_config(tmp_path, wav_output=str(tmp_path / "wav"))
    with pytest.raises(OSError, match="no space"):
        make_shard(1, clips, config, Workspace())
    assert hash_files(tmp_path) == {}


def test_progress_is_a_byte_for_each_clip_used_or_not(tmp_path, clips):
    progress = tmp_path / "progress"
    progress.write_bytes(b"..")
    config = make_config(tmp_path / "out", progress_file=str(progress))
    make_shard(1, clips[2:5], config, Workspace())
    assert progress.read_bytes() == b"....."


def test_every_file_is_closed(tmp_path, clips, monkeypatch):
    opened = []

    def fetch(clip, excerpt):
        opened.append(fetch_audio(clip, excerpt))
        return opened[-1]

    monkeypatch.setattr(shards, "fetch_audio", fetch)
    make_shard(1, clips, make_config(tmp_path), Workspace())
    assert len(opened) == len(clips) - 1  # One is missing.
    assert all(file.closed for file in opened)


# Decoded clips


def test_kept_wavs_make_the_same_records(made, clips, tmp_path):
    output, _ = made
    audio_base = str(Path(clips[0].path).parent)
    wavs = tmp_path / "wavs"
    config = make_config(tmp_path / "a", wav_output=str(wavs), audio_base=audio_base)
    make_shard(1, clips, config, Workspace())
    assert sorted(path.name for path in wavs.rglob("*.wav")) == [
        "t1.wav",
        "t2.wav",
        "t4.wav",
        "t5.wav",
    ]
    assert not [
        path for path in wavs.rglob("*") if path.suffix != ".wav" and path.is_file()
    ]
    expected = hash_files(output)
    assert hash_files(tmp_path / "a") == expected

    from_wavs = [
        make_clip(
            wavs / f"{clip.track_id}.wav",
            clip.track_id,
            artist_id=clip.artist_id,
            genre=clip.genre,
            label=clip.label,
            split=clip.split,
        )
        for clip in clips
        if clip.track_id in ("t1", "t4", "t5")
    ]
    without_aac = [clip for clip in clips if clip.track_id != "t2"]
    make_shard(1, without_aac, make_config(tmp_path / "b"), Workspace())
    make_shard(1, from_wavs, make_config(tmp_path / "c"), Workspace())
    assert hash_files(tmp_path / "c") == hash_files(tmp_path / "b")


def test_a_kept_wav_decodes_to_the_same_samples(tmp_path, music_mp3):
    samples = load_waveform(io.BytesIO(music_mp3), ClipConfig()).samples
    samples = samples * np.float32(2)  # beyond full scale, as loud MP3s are
    clip = make_clip(tmp_path / "in" / "x" / "a.b.mp3", "t")
    config = make_config(
        tmp_path / "out",
        wav_output=str(tmp_path / "wav"),
        audio_base=str(tmp_path / "in"),
    )
    shards.write_wav(clip, samples, config)
    path = tmp_path / "wav" / "x" / "a.b.wav"
    assert soundfile.info(path).subtype == "FLOAT"
    again = load_waveform(io.BytesIO(path.read_bytes()), ClipConfig())
    np.testing.assert_array_equal(again.samples, samples)
    assert again.decoder == "libsndfile"


# Reading


def test_a_store_that_answers_the_third_time(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    original, calls, pauses = storage.open_for_reading, [], []

    def answer_late(name):
        calls.append(name)
        if len(calls) < 3:
            raise [OSError("reset"), BeamIOError("busy")][len(calls) - 1]
        return original(name)

    monkeypatch.setattr(storage, "open_for_reading", answer_late)
    monkeypatch.setattr(shards.time, "sleep", pauses.append)
    monkeypatch.setattr(shards, "RETRY_SECONDS", 0.25)
    with fetch_audio(make_clip(path, "t"), "middle") as file:
        assert file.read() == b"content"
    assert len(calls) == 3
    assert pauses == [0.25, 0.5]


@pytest.mark.parametrize(
    "error", [OSError("reset"), BeamIOError("busy"), Forbidden("not yours")]
)
def test_a_store_that_does_not_answer(tmp_path, monkeypatch, error):
    calls = []

    def fail(name):
        calls.append(name)
        raise error

    monkeypatch.setattr(storage, "open_for_reading", fail)
    with pytest.raises(AudioError, match=str(error)) as caught:
        fetch_audio(make_clip(tmp_path / "a", "t"), "middle")
    assert caught.value.reason == Reason.UNREADABLE
    assert len(calls) == shards.READ_ATTEMPTS


def test_a_file_that_is_gone(tmp_path):
    path = tmp_path / "gone.mp3"
    with pytest.raises(AudioError, match=r"gone\.mp3") as caught:
        fetch_audio(make_clip(path, "t"), "middle")
    assert caught.value.reason == Reason.UNREADABLE


@pytest.mark.parametrize("kind", ["mp3", "wav"])
def test_of_large_files_the_excerpt_alone_is_read(tmp_path, monkeypatch, kind):
    """A file's size decides how it is read, not what comes of it."""
    markers = make_markers(60)
    data = (
        encode_with_ffmpeg(markers, "-b:a", "64k")
        if kind == "mp3"
        else encode(markers, kind="WAV")
    )
    path = tmp_path / "long"
    path.write_bytes(data)
    clip, config = make_clip(path, "t"), ClipConfig()
    monkeypatch.setattr(shards, "WHOLE_FILE_BYTES", len(data))
    with fetch_audio(clip, "middle") as whole:
        assert isinstance(whole, io.BytesIO)
        assert len(whole.getvalue()) == len(data)
        expected = load_waveform(whole, config).samples
    monkeypatch.setattr(shards, "WHOLE_FILE_BYTES", len(data) - 1)
    with fetch_audio(clip, "middle") as part:
        if kind == "mp3":
            assert len(part.getvalue()) < 0.6 * len(data)
        samples = load_waveform(part, config).samples
    np.testing.assert_array_equal(samples, expected)
    assert part.closed
    assert len(samples) < 60 * RATE
