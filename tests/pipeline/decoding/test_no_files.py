"""What a name may lead to besides a file: each costs a reject."""

import io
import json
import os
import socket

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.excerpts import load_excerpts
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.decoding.waveform import load_waveform
from pipeline.inputs.join import Clip
from pipeline.shards.shard import WHOLE_FILE_BYTES, fetch_audio
from tests.support.audio_files import encode, make_id3
from tests.support.corpora import write_plain_corpus

#: Sparse: it takes no room on the disk.
SPARSE_BYTES = 10 << 30


def make_strange(folder, names):
    """A FIFO, an endless link, a socket and a sparse file, in place of some."""
    fifo, endless, address, sparse = (folder / name for name in names)
    for path in (fifo, endless, address, sparse):
        path.unlink(missing_ok=True)
    os.mkfifo(fifo)
    endless.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
    with sparse.open("wb") as file:
        file.truncate(SPARSE_BYTES)


def test_a_job_goes_on(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=9)
    make_strange(tmp_path / "audio", ["3.wav", "4.wav", "5.wav", "6.wav"])
    output = tmp_path / "dataset"
    arguments = ["--audio", glob, "--metadata", str(metadata), "--output", str(output)]
    arguments += ["--num_shards", "1", "--representations", "mel"]
    assert preprocess.main(arguments) == 0
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["rejects"] == {"not_a_file": 3, "too_large": 1}
    [path] = output.glob("rejects-*.jsonl")
    rejects = [json.loads(line) for line in path.read_text().splitlines()]
    messages = {reject["track_id"]: reject["message"] for reject in rejects}
    assert messages["t3"] == "is a FIFO, not a file"
    assert messages["t4"] == "is a character device, not a file"
    assert messages["t5"] == "is a socket, not a file"
    assert "10,737,418,240 bytes are too many" in messages["t6"]


def test_prediction_goes_on(tmp_path):
    names = ["fifo.mp3", "endless.mp3", "socket.mp3", "sparse.mp3"]
    make_strange(tmp_path, names)
    with IsolatedDecoder() as decoder:
        for name in names:
            for load in (decoder.load_excerpts, load_excerpts):
                with pytest.raises((AudioError, OSError)) as caught:
                    load(str(tmp_path / name), ClipConfig(), 10)
                reason = getattr(caught.value, "reason", Reason.NOT_A_FILE)
                large = name == "sparse.mp3"
                assert reason == (Reason.TOO_LARGE if large else Reason.NOT_A_FILE)


def make_clip(path) -> Clip:
    return Clip(
        track_id="t",
        artist_id="",
        labels=(0,),
        split="test",
        path=str(path),
        size=path.stat().st_size,
    )


def test_a_file_that_has_grown_since_it_was_listed(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(b"words")
    clip = make_clip(path)
    with path.open("r+b") as file:
        file.truncate(SPARSE_BYTES)
    with (
        fetch_audio(clip, "middle") as file,
        pytest.raises(AudioError) as caught,
    ):
        load_waveform(file, ClipConfig())
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_large_file_with_tags_is_read_where_it_lies(tmp_path):
    """Its audio begins behind the first tag, and is not copied."""
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, (70 * 44_100, 1)).astype(np.float32)
    flac = encode(sound, kind="FLAC")
    path = tmp_path / "a.flac"
    path.write_bytes(make_id3(70_000) + flac + b"TAG" + bytes(125))
    clip = make_clip(path)
    assert clip.size > WHOLE_FILE_BYTES
    with IsolatedDecoder() as decoder, fetch_audio(clip, "middle") as file:
        found = decoder.load_waveform(file, ClipConfig())
        expected = load_waveform(io.BytesIO(flac), ClipConfig())
        assert found.seconds == expected.seconds == 70.0
        np.testing.assert_array_equal(found.samples, expected.samples)
