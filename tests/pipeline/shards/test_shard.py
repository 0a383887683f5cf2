import dataclasses
import hashlib
import io
import json
import threading
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import soundfile
from apache_beam.io.filesystem import BeamIOError
from google.api_core.exceptions import Forbidden

from pipeline.common import storage
from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
from pipeline.common.quiet import keep_back_stderr
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.decoding.waveform import load_waveform
from pipeline.inputs.join import Clip
from pipeline.representations.spectrum import Workspace
from pipeline.schema import SPLITS, ShardFile
from pipeline.shards import runs, shard
from pipeline.shards.result import DatasetConfig
from pipeline.shards.shard import fetch_audio, keep_or_make_shard, make_shard
from pipeline.shards.tfrecord import read_records
from tests.support.audio_files import (
    RATE,
    encode,
    encode_with_ffmpeg,
    make_markers,
    make_music,
)
from tests.support.flaky import make_store_flaky

with keep_back_stderr():
    import tensorflow as tf

NAMES = ("windows", "mel", "features")
GENRES = ("Folk", "Jazz")


def make_clip(path: Path, track_id: str, **changes) -> Clip:
    values = {
        "track_id": track_id,
        "artist_id": f"a{track_id}",
        "labels": (1,),
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
        "t4": {"split": "test", "labels": (0,)},
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
    for name in (*NAMES, "_temporary"):
        (output / name).mkdir(parents=True, exist_ok=True)
    return DatasetConfig(**(values | changes))


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.001)


@pytest.fixture(scope="module")
def made(tmp_path_factory, clips):
    """The output folder and the result of shard 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "RETRY_SECONDS", 0.001)
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
        indices = range({"windows": 2, "mel": 5}.get(name, 1))
        assert [(row["track_id"], row["index"]) for row in rows] == [
            (track, index) for track in ("t1", "t2", "t5") for index in indices
        ]
        assert {row["label"] for row in rows} == {1}
        test_rows = read_features(output, name, "test")
        assert {(row["track_id"], row["label"]) for row in test_rows} == {("t4", 0)}
        assert read_features(output, name, "validation") == []


def test_records_name_their_decoder(made):
    output, _ = made
    rows = read_features(output, "features", "training")
    assert [row["decoder"] for row in rows] == ["libsndfile", "ffmpeg", "libsndfile"]


def test_the_result_tells_what_was_written(made, clips):
    output, result = made
    assert result.shard == 1
    by_id = {clip.track_id: clip for clip in clips}
    assert [clip.track_id for clip in result.clips] == ["t1", "t2", "t4", "t5"]
    for written in result.clips:
        clip = by_id[written.track_id]
        for name in ("artist_id", "split", "path", "size"):
            assert getattr(written, name) == getattr(clip, name)
        assert written.genres == tuple(GENRES[label] for label in clip.labels)
        assert 5 < written.seconds < 31
    decoders = [clip.decoder for clip in result.clips]
    assert decoders == ["libsndfile", "ffmpeg", "libsndfile", "libsndfile"]
    assert len({clip.audio for clip in result.clips}) == 4
    expected = {}
    for path in output.rglob("*.tfrecord"):
        data = path.read_bytes()
        expected[str(path.relative_to(output))] = ShardFile(
            records=len(list(read_records(io.BytesIO(data)))),
            size=len(data),
            crc32c=f"{google_crc32c.value(data):08x}",
        )
    assert result.files == expected
    assert len(result.decode_ms) == len(result.compute_ms) == 4


def test_every_other_clip_is_a_reject(made, clips):
    _, result = made
    found = {reject.track_id: reject for reject in result.rejects}
    assert {track: reject.reason for track, reject in found.items()} == {
        "t0": Reason.UNREADABLE,
        "t3": Reason.EMPTY,
        "t6": Reason.UNDECODABLE,
    }
    assert len(result.rejects) + len(result.clips) == len(clips)
    for clip in clips:
        if clip.track_id in found:
            reject = found[clip.track_id]
            assert (reject.path, reject.stage) == (clip.path, "decode")
            line = json.loads(reject.to_json())
            assert line["reason"] == reject.reason.value
            assert line["message"]


def test_moments_are_of_training_clips(made):
    _, result = made
    assert set(result.moments) == {"windows", "features"}
    assert result.moments["features"].mean.shape == (3, 37)
    assert result.moments["windows"].variance.shape == (3, 1)


def test_a_rerun_writes_the_same_bytes(made, clips, tmp_path):
    output, result = made
    again = make_shard(1, reversed(clips), make_config(tmp_path), Workspace())
    assert hash_files(tmp_path) == hash_files(output)
    assert again.rejects == result.rejects
    assert again.clips == result.clips
    assert again.files == result.files
    assert again.fingerprint == result.fingerprint
    # Over its own output as well.
    make_shard(1, clips, make_config(tmp_path), Workspace())
    assert hash_files(tmp_path) == hash_files(output)


def test_a_shard_without_clips_has_empty_files(tmp_path):
    result = make_shard(0, [], make_config(tmp_path), Workspace())
    assert (result.rejects, result.moments, result.clips) == ((), {}, ())
    files = sorted(tmp_path.rglob("*.tfrecord"))
    assert len(files) == len(NAMES) * len(SPLITS)
    assert all(path.stat().st_size == 0 for path in files)


def test_a_programming_error_fails_the_shard_and_leaves_nothing(
    tmp_path, clips, monkeypatch
):
    original = shard.make_records

    def fail_on_the_second(clip, *arguments):
        if clip.track_id == "t2":
            raise ZeroDivisionError
        return original(clip, *arguments)

    monkeypatch.setattr(shard, "make_records", fail_on_the_second)
    with pytest.raises(ZeroDivisionError):
        make_shard(1, clips, make_config(tmp_path), Workspace())
    assert hash_files(tmp_path) == {}


def test_a_wav_that_cannot_be_kept_fails_the_shard(tmp_path, clips, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(shard, "write_wav", fail)
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

    monkeypatch.setattr(shard, "fetch_audio", fetch)
    make_shard(1, clips, make_config(tmp_path), Workspace())
    assert len(opened) == len(clips) - 1  # One is missing.
    assert all(file.closed for file in opened)


class Loads:
    """A decoder that says when it begins and when it has ended."""

    def __init__(self, load=load_waveform) -> None:
        self.begun = self.ended = 0
        self.load = load
        self.changed = threading.Condition()

    def __call__(self, file, config):
        self._count("begun")
        try:
            return self.load(file, config)
        finally:
            self._count("ended")

    def _count(self, name: str) -> None:
        with self.changed:
            setattr(self, name, getattr(self, name) + 1)
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.ended >= count, 20)


@pytest.mark.parametrize("ahead", [True, False])
def test_one_clip_is_decoded_while_another_is_computed(
    tmp_path, clips, monkeypatch, ahead
):
    good = [clip for clip in sorted(clips) if clip.track_id in ("t1", "t4", "t5")]
    loads, seen = Loads(), []
    original = shard.make_records

    def compute(*arguments):
        loads.wait(min(len(seen) + 1 + ahead, len(good)))
        seen.append(loads.begun)
        return original(*arguments)

    monkeypatch.setattr(shard, "make_records", compute)
    config = make_config(tmp_path, decode_ahead=ahead)
    result = make_shard(1, good, config, Workspace(), loads)
    assert seen == ([2, 3, 3] if ahead else [1, 2, 3])
    assert [clip.track_id for clip in result.clips] == ["t1", "t4", "t5"]


def test_clips_decoded_ahead_make_the_same_bytes(made, clips, tmp_path, monkeypatch):
    output, expected = made
    original = shard.make_records
    # The next one is in the shared memory as well; nothing loads the missing one.
    counts = {"t1": 2, "t2": 3, "t4": 5, "t5": 6}
    with IsolatedDecoder() as decoder:
        loads = Loads(decoder.load_waveform)

        def compute(clip, *arguments):
            loads.wait(counts[clip.track_id])
            return original(clip, *arguments)

        monkeypatch.setattr(shard, "make_records", compute)
        config = make_config(tmp_path, decode_ahead=True)
        result = make_shard(1, clips, config, Workspace(), loads)
    assert hash_files(tmp_path) == hash_files(output)
    assert (result.clips, result.rejects) == (expected.clips, expected.rejects)


def test_a_failure_leaves_nothing_of_what_was_decoded_ahead(
    tmp_path, clips, monkeypatch
):
    config = make_config(tmp_path, decode_ahead=True)
    with IsolatedDecoder() as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(shard, "make_records", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                make_shard(1, clips, config, Workspace(), decoder.load_waveform)
        assert hash_files(tmp_path) == {}
        result = make_shard(1, clips, config, Workspace(), decoder.load_waveform)
    assert len(result.clips) == 4


def test_a_second_clip_of_an_id_is_a_reject(tmp_path, clips, music_mp3):
    again = tmp_path / "z.mp3"
    again.write_bytes(music_mp3)
    doubled = [clips[1], make_clip(again, "t1", artist_id="z")]
    for number, ordered in enumerate((doubled, doubled[::-1])):
        config = make_config(tmp_path / str(number))
        result = make_shard(1, ordered, config, Workspace())
        [reject] = result.rejects
        assert (reject.path, reject.reason) == (str(again), Reason.DUPLICATE_ID)
        assert (reject.track_id, reject.stage) == ("t1", "join")
        assert clips[1].path in reject.message
        assert [clip.path for clip in result.clips] == [clips[1].path]


# Finished shards


def test_a_finished_shard_is_kept(made, clips, tmp_path, monkeypatch):
    output, _ = made
    progress_file = tmp_path / "progress"
    progress_file.write_bytes(b"")
    config = make_config(tmp_path / "out")
    first, kept = keep_or_make_shard(1, clips, config, Workspace())
    assert not kept
    monkeypatch.setattr(shard, "make_shard", None)
    config = dataclasses.replace(config, progress_file=str(progress_file))
    again, kept = keep_or_make_shard(1, reversed(clips), config, Workspace())
    assert kept
    assert again.to_json() == first.to_json()
    assert progress_file.read_bytes() == b"." * len(clips)
    assert hash_files(output).items() <= hash_files(tmp_path / "out").items()


@pytest.mark.parametrize("damage", ["missing", "shorter", "no JSON", "other JSON"])
def test_a_shard_that_is_not_as_it_was_is_made_anew(clips, tmp_path, damage):
    config = make_config(tmp_path)
    keep_or_make_shard(1, clips[:2], config, Workspace())
    expected = hash_files(tmp_path)
    file = tmp_path / "mel" / "training-00001-of-00002.tfrecord"
    result = tmp_path / "_progress" / "shard-00001-of-00002.json"
    match damage:
        case "missing":
            file.unlink()
        case "shorter":
            file.write_bytes(file.read_bytes()[:-1])
        case "no JSON":
            result.write_text("")
        case "other JSON":
            result.write_text("[1]")
    _, kept = keep_or_make_shard(1, clips[:2], config, Workspace())
    assert not kept
    name = "_progress/shard-00001-of-00002.json"  # It has times.
    assert hash_files(tmp_path).keys() == expected.keys()
    assert {**hash_files(tmp_path), name: ""} == {**expected, name: ""}


def test_files_of_two_runs_are_never_taken_for_one(clips, tmp_path, monkeypatch):
    """An interruption while the files of a shard get their names."""
    first = make_config(tmp_path)
    second = dataclasses.replace(first, tools="newer")
    keep_or_make_shard(1, clips[:2], first, Workspace())
    expected = hash_files(tmp_path)
    original, calls = storage.rename, []

    def fail_late(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "rename", fail_late)
        with pytest.raises(storage.WriteError):
            keep_or_make_shard(1, clips[:2], second, Workspace())
    # Sizes alone could not tell: those of vectors are always the same.
    _, kept = keep_or_make_shard(1, clips[:2], first, Workspace())
    assert not kept
    assert hash_files(tmp_path).keys() == expected.keys()


def test_a_run_that_was_taken_over_names_no_file(clips, tmp_path):
    config = make_config(tmp_path, run="mine")
    runs.begin_run(config)
    runs.begin_run(dataclasses.replace(config, run="the other"))
    with pytest.raises(runs.SupersededError, match="Another job has begun"):
        keep_or_make_shard(1, clips[:2], config, Workspace())
    assert set(hash_files(tmp_path)) == {"_progress/RUN"}


def test_a_write_error_that_passes_is_tried_again(clips, tmp_path, monkeypatch):
    original, calls = shard.make_shard, []

    def fail_at_first(*arguments):
        calls.append(arguments)
        if len(calls) < 3:
            raise storage.WriteError("mel: reset.", transient=True)
        return original(*arguments)

    monkeypatch.setattr(shard, "make_shard", fail_at_first)
    result, _ = keep_or_make_shard(1, clips[:1], make_config(tmp_path), Workspace())
    assert len(result.clips) == 1

    def fail_for_good(*arguments):
        calls.append(arguments)
        raise storage.WriteError("mel: disk full.")

    calls.clear()
    monkeypatch.setattr(shard, "make_shard", fail_for_good)
    with pytest.raises(storage.WriteError, match="disk full"):
        keep_or_make_shard(0, [], make_config(tmp_path), Workspace())
    assert len(calls) == 1


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
            labels=clip.labels,
            split=clip.split,
        )
        for clip in clips
        if clip.track_id in ("t1", "t4", "t5")
    ]
    without_aac = [clip for clip in clips if clip.track_id != "t2"]
    make_shard(1, without_aac, make_config(tmp_path / "b"), Workspace())
    make_shard(1, from_wavs, make_config(tmp_path / "c"), Workspace())
    assert hash_files(tmp_path / "c") == hash_files(tmp_path / "b")


def write_a_year_later(file, *arguments, _write=soundfile.write, **options):
    _write(file, *arguments, **options)
    data = bytearray(file.getvalue())
    at = data.index(b"PEAK") + 12
    assert int.from_bytes(data[at : at + 4], "little") > 1_700_000_000
    data[at : at + 4] = (2_000_000_000).to_bytes(4, "little")
    file.seek(0)
    file.write(data)


def test_a_kept_wav_decodes_to_the_same_samples(tmp_path, music_mp3, monkeypatch):
    samples = load_waveform(io.BytesIO(music_mp3), ClipConfig()).samples
    samples = samples * np.float32(2)  # beyond full scale, as loud MP3s are
    clip = make_clip(tmp_path / "in" / "x" / "a.b.mp3", "t")
    config = make_config(
        tmp_path / "out",
        wav_output=str(tmp_path / "wav"),
        audio_base=str(tmp_path / "in"),
    )
    shard.write_wav(clip, samples, config)
    path = tmp_path / "wav" / "x" / "a.b.wav"
    assert soundfile.info(path).subtype == "FLOAT"
    # On another day, too: libsndfile writes the time into it.
    first = path.read_bytes()
    monkeypatch.setattr(soundfile, "write", write_a_year_later)
    shard.write_wav(clip, samples, config)
    assert path.read_bytes() == first
    again = load_waveform(io.BytesIO(path.read_bytes()), ClipConfig())
    np.testing.assert_array_equal(again.samples, samples)
    assert again.decoder == "libsndfile"


def test_a_kept_wav_is_as_long_as_the_audio(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(encode(make_music(6.0, 8_000), 8_000, "FLAC"))
    options = {"wav_output": str(tmp_path / "wav"), "audio_base": str(tmp_path)}
    config = make_config(tmp_path / "out", **options)
    make_shard(0, [make_clip(path, "t")], config, Workspace())
    wav = (tmp_path / "wav" / "a.wav").read_bytes()
    found = load_waveform(io.BytesIO(wav), ClipConfig())
    expected = load_waveform(io.BytesIO(path.read_bytes()), ClipConfig())
    assert found.length == expected.length == 6 * SAMPLE_RATE
    np.testing.assert_array_equal(found.samples, expected.samples)


# Reading


def test_a_store_that_fails_twice_costs_nothing(made, clips, tmp_path, monkeypatch):
    """Reading audio, creating files and renaming them."""
    output, _ = made
    config = make_config(tmp_path)
    failures = make_store_flaky(monkeypatch)
    result, kept = keep_or_make_shard(1, clips, config, Workspace())
    assert not kept
    assert {r.track_id: r.reason for r in result.rejects}["t0"] == Reason.UNREADABLE
    found = hash_files(tmp_path)
    del found["_progress/shard-00001-of-00002.json"]
    assert found == hash_files(output)
    assert [failures[name] for name in ("open", "create", "rename")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("error", "calls"),
    [(OSError("reset"), 3), (BeamIOError("busy"), 3), (Forbidden("not yours"), 1)],
)
def test_a_store_that_does_not_answer(tmp_path, monkeypatch, error, calls):
    names = []

    def fail(name):
        names.append(name)
        raise error

    monkeypatch.setattr(storage, "open_for_reading", fail)
    with pytest.raises(AudioError, match=str(error)) as caught:
        fetch_audio(make_clip(tmp_path / "a", "t"), "middle")
    assert caught.value.reason == Reason.UNREADABLE
    assert len(names) == calls


@pytest.mark.parametrize("isolated", [False, True])
def test_a_large_file_that_breaks_while_it_is_decoded(tmp_path, monkeypatch, isolated):
    """It is a reject, and the others become records."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (60 * 44_100, 2))
    soundfile.write(tmp_path / "long.wav", noise, 44_100)
    soundfile.write(tmp_path / "short.wav", noise[: 8 * 44_100], 44_100)
    clips = [make_clip(tmp_path / f"{n}.wav", n) for n in ("long", "short")]
    assert clips[0].size > shard.WHOLE_FILE_BYTES > clips[1].size
    original = storage.open_for_reading

    def open_breaking(path):
        file = original(path)
        return io.BufferedReader(BreakingFile(path)) if "long" in path else file

    monkeypatch.setattr(storage, "open_for_reading", open_breaking)
    config = make_config(tmp_path / "out", representations=("mel",))
    with IsolatedDecoder() as decoder:
        load = decoder.load_waveform if isolated else load_waveform
        result = shard.make_shard(0, clips, config, Workspace(), load)
    assert [clip.track_id for clip in result.clips] == ["short"]
    [reject] = result.rejects
    assert (reject.track_id, reject.reason) == ("long", Reason.UNREADABLE)
    assert "long.wav cannot be read: the store is gone" in reject.message


class BreakingFile(io.FileIO):
    """Cannot be read beyond its first megabyte."""

    def readinto(self, buffer):
        if self.tell() > 1 << 20:
            raise ConnectionResetError("the store is gone")
        return super().readinto(buffer)


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
    monkeypatch.setattr(shard, "WHOLE_FILE_BYTES", len(data))
    with fetch_audio(clip, "middle") as whole:
        assert isinstance(whole, io.BytesIO)
        assert len(whole.getvalue()) == len(data)
        expected = load_waveform(whole, config).samples
    monkeypatch.setattr(shard, "WHOLE_FILE_BYTES", len(data) - 1)
    with fetch_audio(clip, "middle") as part:
        if kind == "mp3":
            assert len(part.getvalue()) < 0.6 * len(data)
        samples = load_waveform(part, config).samples
    np.testing.assert_array_equal(samples, expected)
    assert part.closed
    assert len(samples) < 60 * RATE
