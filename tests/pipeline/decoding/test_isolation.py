import dataclasses
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline import preprocess
from pipeline.common.clip_config import CLIP_SAMPLES, SAMPLE_RATE, ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import isolation
from pipeline.decoding.excerpts import load_excerpts
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.decoding.waveform import load_waveform
from pipeline.representations.spectrum import Workspace
from pipeline.schema import UserError
from pipeline.shards.result import DatasetConfig
from pipeline.shards.shard import make_shard
from tests.support.audio_files import (
    CountingFile,
    encode,
    encode_with_ffmpeg,
    make_music,
)
from tests.support.corpora import make_clip, write_plain_corpus

CRASHING = "tests.support.crashing_decoder"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def decoder():
    with IsolatedDecoder() as decoder:
        yield decoder


@pytest.fixture
def fragile():
    with IsolatedDecoder(helper=CRASHING) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def short() -> bytes:
    return encode(make_music(6.0), kind="FLAC")


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def make_config(output: Path, **changes) -> DatasetConfig:
    for folder in ("mel", "_temporary"):
        (output / folder).mkdir(parents=True)
    return DatasetConfig(
        output=str(output),
        representations=("mel",),
        clip=ClipConfig(),
        genres=("g", "h"),
        num_shards=1,
        **changes,
    )


def reject(decoder: IsolatedDecoder, data: bytes) -> tuple[Reason, str]:
    with pytest.raises(AudioError) as caught:
        decoder.load_waveform(io.BytesIO(data), ClipConfig())
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("kind", ["mp3", "wav", "flac", "ogg"])
def test_the_same_waveform_as_in_this_process(decoder, music_files, kind):
    data = music_files[kind]
    expected = load_waveform(io.BytesIO(data), ClipConfig())
    found = decoder.load_waveform(io.BytesIO(data), ClipConfig())
    assert found.samples.shape == (CLIP_SAMPLES,)
    assert found.samples.dtype == np.float32
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert dataclasses.replace(found, samples=expected.samples) == expected


def test_the_length_is_the_audios_own(decoder, short):
    found = decoder.load_waveform(io.BytesIO(short), ClipConfig())
    assert found.length == pytest.approx(found.seconds * SAMPLE_RATE, abs=1)
    repeated = np.resize(found.samples[: found.length], CLIP_SAMPLES)
    np.testing.assert_array_equal(found.samples, repeated)


def test_two_files_share_the_memory_in_turn(decoder, music_files, short):
    """No copy of 5 MB a clip: whoever needs the samples longer makes one."""
    data = [music_files["flac"], short, music_files["ogg"]]
    expected = [load_waveform(io.BytesIO(d), ClipConfig()).samples for d in data]
    first = decoder.load_waveform(io.BytesIO(data[0]), ClipConfig()).samples
    assert not first.flags.writeable
    second = decoder.load_waveform(io.BytesIO(data[1]), ClipConfig()).samples
    np.testing.assert_array_equal(first, expected[0])
    reject(decoder, b"<html>")  # Takes its turn too.
    np.testing.assert_array_equal(second, expected[1])
    fourth = decoder.load_waveform(io.BytesIO(data[2]), ClipConfig()).samples
    assert np.shares_memory(fourth, second)
    np.testing.assert_array_equal(fourth, expected[2])


def test_wavs_hold_their_own_clip(decoder, music_files, short, tmp_path):
    """Although they are written while the next clip is decoded."""
    clips = []
    for name, content in {"a": music_files["mp3"], "b": short, "c": b""}.items():
        path = tmp_path / f"{name}.mp3"
        path.write_bytes(content)
        clips.append(make_clip(path, name))
    paths = {"wav_output": str(tmp_path), "audio_base": str(tmp_path)}
    config = make_config(tmp_path, **paths)
    result = make_shard(0, clips, config, Workspace(), decoder.load_waveform)
    assert len(result.clips) == 2
    for clip in clips[:2]:
        wav = io.BytesIO((tmp_path / f"{clip.track_id}.wav").read_bytes())
        samples = load_waveform(wav, ClipConfig()).samples
        source = io.BytesIO(Path(clip.path).read_bytes())
        expected = load_waveform(source, ClipConfig()).samples
        np.testing.assert_array_equal(samples, expected)


def test_options_reach_the_helper(decoder, short):
    with pytest.raises(AudioError) as caught:
        decoder.load_waveform(io.BytesIO(short), ClipConfig(min_duration=6.5))
    assert caught.value.reason == Reason.TOO_SHORT
    decoder.load_waveform(io.BytesIO(short), ClipConfig(min_duration=5.5))


def test_ffmpeg_is_there_too(decoder):
    data = encode_with_ffmpeg(make_music(6.0), extension="m4a")
    assert decoder.load_waveform(io.BytesIO(data), ClipConfig()).decoder == "ffmpeg"


def test_of_large_files_only_what_is_needed_is_read(decoder):
    rng = np.random.default_rng(0)
    frames = rng.integers(-9_000, 9_000, (8_000 * 600, 1), np.int16)
    data = encode(frames, 8_000, "WAV")
    file = CountingFile(data)
    found = decoder.load_waveform(file, ClipConfig())
    expected = load_waveform(io.BytesIO(data), ClipConfig())
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert len(data) > 9_000_000
    assert file.bytes_read < 2_000_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", Reason.EMPTY), (b"<html>", Reason.UNDECODABLE), (bytes(999), None)],
)
def test_rejects_are_the_same(decoder, data, reason):
    with pytest.raises(AudioError) as caught:
        load_waveform(io.BytesIO(data), ClipConfig())
    assert reject(decoder, data) == (caught.value.reason, str(caught.value))
    assert reason in (None, caught.value.reason)


@pytest.mark.parametrize(
    ("poison", "name"),
    [
        (b"segmentation fault", "Segmentation fault"),
        (b"abort", "Aborted"),
        (b"killed", "Killed"),
    ],
)
def test_a_crash_costs_one_reject(fragile, short, poison, name):
    expected = load_waveform(io.BytesIO(short), ClipConfig()).samples
    for _ in range(2):
        reason, message = reject(fragile, poison)
        assert reason == Reason.DECODER_CRASHED
        assert message == f"the process that decodes it died 2 times ({name})"
        found = fragile.load_waveform(io.BytesIO(short), ClipConfig())
        np.testing.assert_array_equal(found.samples, expected)


def test_a_helper_killed_from_outside_costs_nothing(decoder, short):
    for _ in range(2):
        decoder.load_waveform(io.BytesIO(short), ClipConfig())
        helper = psutil.Process(decoder._process.pid)
        helper.kill()
        while helper.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    decoder.load_waveform(io.BytesIO(short), ClipConfig())


def test_a_helper_that_is_stopped_costs_one_reject(short, monkeypatch):
    monkeypatch.setattr(isolation, "GRACE", 0.2)
    before = children()
    with IsolatedDecoder(time_limit=0.05) as decoder:
        start = decoder._start

        def start_stopped():
            helper = start()
            helper.send_signal(signal.SIGSTOP)
            return helper

        decoder._stop()
        monkeypatch.setattr(decoder, "_start", start_stopped)
        # More than the pipe has room for, which nobody takes out either.
        for data in (short, bytes(3 << 20)):
            with pytest.raises(AudioError, match="died 2 times") as caught:
                decoder.load_waveform(io.BytesIO(data), ClipConfig())
            assert caught.value.reason == Reason.DECODER_CRASHED
    assert children() <= before


@pytest.mark.parametrize("poison", [b"hang in C", b"hang in Python", b"loop"])
def test_a_hang_costs_one_reject_and_its_time(short, poison):
    with IsolatedDecoder(helper=CRASHING, time_limit=0.2) as decoder:
        reason, message = reject(decoder, poison)
        assert reason == Reason.DECODER_TIMED_OUT
        assert message == "decoding takes more than 0.2 s"
        decoder._time_limit = isolation.TIME_LIMIT  # Of the next helper.
        decoder.load_waveform(io.BytesIO(short), ClipConfig())


def test_an_alarm_after_a_pause_costs_nothing(decoder, short):
    expected = decoder.load_waveform(io.BytesIO(short), ClipConfig()).samples.copy()

    class Pausing(io.BytesIO):
        helper = decoder._process

        def read(self, size: int | None = -1, /) -> bytes:
            self.helper.send_signal(signal.SIGALRM)
            self.helper.wait()
            return super().read(size)

    found = decoder.load_waveform(Pausing(short), ClipConfig())
    np.testing.assert_array_equal(found.samples, expected)


def test_too_much_memory_costs_one_reject(fragile, short):
    reason, message = reject(fragile, b"all memory")
    assert reason == Reason.DECODER_CRASHED
    assert message == "decoding takes more than 4,096 MiB of memory"
    fragile.load_waveform(io.BytesIO(short), ClipConfig())


def test_a_slow_store_is_not_the_decoders_fault():
    pauses = []

    class SlowFile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            pauses.append(0.4)
            time.sleep(pauses[-1])
            return super().read(size)

    limit = 0.5
    long = encode(np.tile(make_music(6.0, 8_000), (60, 1)), 8_000, "WAV")
    with IsolatedDecoder(time_limit=limit) as decoder:
        decoder.load_waveform(SlowFile(long), ClipConfig())
    assert sum(pauses) > isolation.WAITING * limit


def test_a_programming_error_is_no_reject(capfd):
    with (
        IsolatedDecoder(helper=CRASHING) as decoder,
        pytest.raises(RuntimeError, match="exit code 1"),
    ):
        decoder.load_waveform(io.BytesIO(b"programming error"), ClipConfig())
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_store_that_fails_is_no_crash(decoder, short):
    class FailingFile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the store is gone")

    with pytest.raises(OSError, match="the store is gone"):
        decoder.load_waveform(FailingFile(short), ClipConfig())
    decoder.load_waveform(io.BytesIO(short), ClipConfig())


def test_what_libraries_print_does_no_harm(short, capfd):
    with IsolatedDecoder(helper=CRASHING) as decoder:
        with pytest.raises(AudioError):
            decoder.load_waveform(io.BytesIO(b"print"), ClipConfig())
        decoder.load_waveform(io.BytesIO(short), ClipConfig())
    assert "what libraries print" in capfd.readouterr().err


def test_closing_ends_the_helper(short):
    before = children()
    decoder = IsolatedDecoder()
    decoder.load_waveform(io.BytesIO(short), ClipConfig())
    assert len(children() - before) == 1
    decoder.close()
    assert children() <= before


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "decoder.load_waveform(Deadly(bytes(1000)), ClipConfig())",
    ],
    ids=["while it waits", "while it decodes"],
)
def test_a_helper_ends_with_the_process_that_has_it_and_says_nothing(code):
    code = (
        "import io, os, signal\n"
        "from pipeline.common.clip_config import ClipConfig\n"
        "from pipeline.decoding.isolation import IsolatedDecoder\n"
        "class Deadly(io.BytesIO):\n"
        "    def read(self, count=-1):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"decoder = IsolatedDecoder()\n{code}\n"
    )
    # Its error output ends when the helper, which shares it, has ended.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == b""


def test_the_folder_that_one_is_in_has_no_say(tmp_path, monkeypatch, short):
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with IsolatedDecoder() as decoder:
        decoder.load_waveform(io.BytesIO(short), ClipConfig())


def test_without_shared_memory_of_the_system_a_file_does(monkeypatch, short):
    monkeypatch.delattr(isolation.os, "memfd_create", raising=False)
    expected = load_waveform(io.BytesIO(short), ClipConfig()).samples
    with IsolatedDecoder() as decoder:
        found = decoder.load_waveform(io.BytesIO(short), ClipConfig())
    np.testing.assert_array_equal(found.samples, expected)


def test_one_poisoned_clip_costs_one_reject_and_not_the_job(tmp_path, monkeypatch):
    glob, metadata = write_plain_corpus(tmp_path, clips=9)
    (tmp_path / "audio" / "3.wav").write_bytes(b"segmentation fault")
    (tmp_path / "audio" / "4.wav").write_bytes(b"abort")
    monkeypatch.setattr(isolation, "HELPER", CRASHING)
    output = tmp_path / "dataset"
    arguments = ["--audio", glob, "--metadata", str(metadata), "--output", str(output)]
    arguments += ["--num_shards", "2", "--representations", "mel"]
    assert preprocess.main(arguments) == 0
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["rejects"] == {"decoder_crashed": 2}
    assert manifest["inputs"]["clips"] == 7
    [path] = output.glob("rejects-*.jsonl")
    rejects = [json.loads(line) for line in path.read_text().splitlines()]
    assert {reject["track_id"] for reject in rejects} == {"t3", "t4"}


@pytest.mark.parametrize("order", ["badgood", "goodbad", "abdgodo"])
def test_decoding_ahead_charges_each_fault_to_its_clip(tmp_path, short, order):
    """Faults in a row, at both ends, and between clips that are good."""
    content = {
        "a": b"segmentation fault",
        "b": b"out of time",
        "d": b"<html>",
        "g": short,
        "o": encode(make_music(6.0, seed=1), kind="FLAC"),
    }
    clips = [
        make_clip(tmp_path / str(number), f"t{number}")
        for number in range(len(order) + 1)
    ]
    for clip, letter in zip(clips, order, strict=False):  # The last one is missing.
        Path(clip.path).write_bytes(content[letter])
    good = [clip for clip, letter in zip(clips, order, strict=False) if letter in "go"]
    config = make_config(tmp_path / "ahead", decode_ahead=True)
    with IsolatedDecoder(helper=CRASHING) as decoder:
        result = make_shard(0, clips, config, Workspace(), decoder.load_waveform)
    plain = make_shard(0, good, make_config(tmp_path / "plain"), Workspace())
    assert result.clips == plain.clips
    assert result.files == plain.files
    reasons = {
        "a": Reason.DECODER_CRASHED,
        "b": Reason.DECODER_TIMED_OUT,
        "d": Reason.UNDECODABLE,
    }
    expected = {
        f"t{number}": reasons[letter]
        for number, letter in enumerate(order)
        if letter in reasons
    }
    found = {reject.track_id: reject.reason for reject in result.rejects}
    assert found == expected | {f"t{len(order)}": Reason.UNREADABLE}


# Excerpts, as prediction takes them


@pytest.mark.parametrize(("seconds", "count"), [(6.0, 1), (95.0, 3)])
def test_excerpts_are_the_same_as_in_this_process(decoder, tmp_path, seconds, count):
    path = tmp_path / "a.flac"
    path.write_bytes(encode(make_music(seconds, 8_000), 8_000, "FLAC"))
    found = decoder.load_excerpts(str(path), ClipConfig(), 10)
    expected = load_excerpts(str(path), ClipConfig(), 10)
    assert len(found) == count
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)
        assert one[1:] == other[1:]


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (b"segmentation fault", Reason.DECODER_CRASHED),
        (b"out of time", Reason.DECODER_TIMED_OUT),
        (b"all memory", Reason.DECODER_CRASHED),
        (b"<html>", Reason.UNDECODABLE),
    ],
)
def test_a_bad_file_costs_one_reject_in_prediction_too(tmp_path, short, poison, reason):
    path, good = tmp_path / "a.mp3", tmp_path / "b.flac"
    path.write_bytes(poison)
    good.write_bytes(short)
    with IsolatedDecoder(helper=CRASHING) as decoder:
        with pytest.raises(AudioError) as caught:
            decoder.load_excerpts(str(path), ClipConfig(), 10)
        assert caught.value.reason == reason
        assert len(decoder.load_excerpts(str(good), ClipConfig(), 10)) == 1


def test_excerpts_of_nothing(decoder, tmp_path):
    with pytest.raises(FileNotFoundError):
        decoder.load_excerpts(str(tmp_path / "none.mp3"), ClipConfig(), 10)
    os.mkfifo(tmp_path / "a.mp3")
    with pytest.raises(AudioError, match="is a FIFO, not a file") as caught:
        decoder.load_excerpts(str(tmp_path / "a.mp3"), ClipConfig(), 10)
    assert caught.value.reason == Reason.NOT_A_FILE


def test_a_killed_helper_leaves_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # A fake ffmpeg, for which the helper waits while this kills it.
    executable = tmp_path / "ffmpeg"
    executable.write_text('#!/bin/sh\ntouch "$0.started"\nkill -TERM $PPID\n')
    executable.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(executable))
    with (
        IsolatedDecoder() as decoder,
        pytest.raises(AudioError, match=r"died 2 times \(Terminated\)"),
    ):
        decoder.load_waveform(io.BytesIO(b"no audio " * 99), ClipConfig())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"ffmpeg", "ffmpeg.started"}


def test_a_limit_to_the_size_of_files_is_one_sentence():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"10,575,736 bytes: .* \(ulimit -f unlim"):
            IsolatedDecoder()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
