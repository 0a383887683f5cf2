"""A job on ZIPs makes what it makes on the folders that they unpack to."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.common.clip_config import ClipConfig
from pipeline.inputs.audio_files import match_audio
from pipeline.inputs.join import AudioFile
from pipeline.launch import estimate
from pipeline.schema import Manifest
from pipeline.shards.result import DatasetConfig
from pipeline.shards.resume import fingerprint_shard
from pipeline.shards.shard import fetch_audio
from tests.support.audio_files import encode
from tests.support.corpora import make_clip, write_csv, write_plain_corpus, write_tone
from tests.support.zips import METHODS, damage, write_zip, zip_folder


def run(*arguments: object) -> int:
    return preprocess.main([str(argument) for argument in arguments])


def read_files(folder, pattern):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.glob(pattern)
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six tones in a folder and, by every method, in a ZIP; datasets of both."""
    folder = tmp_path_factory.mktemp("corpus")
    _, metadata = write_plain_corpus(folder)
    (folder / "audio" / "broken.wav").write_bytes(b"RIFF")
    (folder / "audio" / "notes.txt").write_bytes(b"no audio")
    zip_folder(folder / "audio.zip", folder / "audio", METHODS)
    table = {"meta/tracks.csv": metadata.read_bytes(), "meta/README.txt": b""}
    write_zip(folder / "meta.zip", table)
    sources = {
        "plain": (folder / "audio", metadata),
        "zip": (folder / "audio.zip", folder / "meta.zip"),
    }
    for name, (audio, table) in sources.items():
        code = run(
            "--audio", audio, "--metadata", table, "--output", folder / name,
            "--num_shards", 2, "--wav_output", folder / f"{name}-wavs",
            "--representations", "windows", "mel",
        )  # fmt: skip
        assert code == 0
    return folder


def test_records_are_those_of_the_folder(corpus):
    plain = read_files(corpus / "plain", "*/*.tfrecord")
    assert len(plain) == 2 * 2 * 3
    assert read_files(corpus / "zip", "*/*.tfrecord") == plain
    wavs = read_files(corpus / "plain-wavs", "**/*.wav")
    assert len(wavs) == 6
    assert read_files(corpus / "zip-wavs", "**/*.wav") == wavs


def test_manifests_say_the_same(corpus):
    mine, theirs = (
        Manifest.from_json((corpus / name / "manifest.json").read_text(), source=name)
        for name in ("plain", "zip")
    )
    assert mine.fingerprint == theirs.fingerprint
    assert mine.inputs == theirs.inputs
    assert mine.inputs["files_not_audio"] == 1


def test_rejects_name_the_member(corpus):
    lines = (corpus / "zip" / "rejects-00000-of-00001.jsonl").read_text().splitlines()
    [reject] = map(json.loads, lines)
    assert reject["path"] == f"{corpus}/audio.zip!/audio/broken.wav"
    assert reject["reason"] == "no_metadata"


def test_a_damaged_member_is_a_reject(corpus, tmp_path):
    path = zip_folder(tmp_path / "audio.zip", corpus / "audio", (zipfile.ZIP_BZIP2,))
    damage(path, "audio/3.wav", 2000)
    code = run(
        "--audio", path, "--metadata", corpus / "meta.zip", "--num_shards", 1,
        "--output", tmp_path / "dataset", "--representations", "mel",
    )  # fmt: skip
    assert code == 0
    lines = (tmp_path / "dataset" / "rejects-00000-of-00001.jsonl").read_text()
    found = {r["path"]: r for r in map(json.loads, lines.splitlines())}
    reject = found[f"{path}!/audio/3.wav"]
    assert (reject["reason"], reject["stage"]) == ("damaged_in_zip", "decode")
    assert (reject["track_id"], reject["message"][:19]) == ("t3", "cannot be unpacked:")


def test_a_zip_an_album_is_what_it_unpacks_to(tmp_path, capsys):
    """By a glob and one by its name; rows name files as if they were unpacked."""
    albums = {
        "one": ["First/01.wav", "First/02.wav"],
        "two": ["01.wav", "02.wav"],
        "three": ["Third/01.wav", "Third/own.wav"],
    }
    rows, number = [], 0
    for album, names in albums.items():
        for name in names:
            path = tmp_path / "unpacked" / album / name
            write_tone(path, 200 + 40 * number)
            genre = ["Low", "High"][number % 2]
            rows.append({"path": f"{album}/{name}", "genre": genre, "artist_id": name})
            number += 1
        contents = {n: (tmp_path / "unpacked" / album / n).read_bytes() for n in names}
        write_zip(tmp_path / "zips" / f"{album}.zip", contents, METHODS)
    write_csv(tmp_path / "tracks.csv", rows)
    sources = {
        "plain": [tmp_path / "unpacked"],
        "packed": [tmp_path / "zips" / "t*.zip", tmp_path / "zips" / "one.zip"],
    }
    shards = []
    for name, audio in sources.items():
        code = run(
            "--audio", *audio, "--metadata", tmp_path / "tracks.csv",
            "--output", tmp_path / name, "--num_shards", 2,
            "--representations", "mel",
        )  # fmt: skip
        assert code == 0
        assert "6 tracks and 6 files are 6 clips" in capsys.readouterr().out
        shards.append(read_files(tmp_path / name, "*/*.tfrecord"))
    assert shards[0] == shards[1]


def test_a_shard_is_the_same_while_its_members_are(tmp_path):
    """By size and CRC-32, wherever they lie in the archive."""
    contents = {"a.wav": b"1", "b.wav": b"22"}
    path = tmp_path / "a.zip"
    config = DatasetConfig(
        output="", representations=("mel",), clip=ClipConfig(), genres=("Low",)
    )

    def fingerprint(contents):
        path.unlink(missing_ok=True)
        write_zip(path, contents)
        clips = [
            make_clip(Path(file.path), file.path, size=file.size, crc=file.crc)
            for file in match_audio(str(path))
        ]
        return fingerprint_shard(0, clips, config)

    first = fingerprint(contents)
    assert fingerprint(dict(reversed(contents.items()))) == first
    assert fingerprint(contents | {"a.wav": b"3"}) != first


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "--output holds audio.zip, which is no part of a dataset that"),
        ("audio.zip", "--output is a file; give a folder that is new"),
        ("audio.zip/x", "--output cannot be looked into: Not a directory"),
    ],
)
def test_an_output_never_touches_the_archive(corpus, tmp_path, capsys, output, message):
    path = zip_folder(tmp_path / "audio.zip", corpus / "audio")
    content = path.read_bytes()
    folder = tmp_path / output
    code = run("--audio", path, "--metadata", corpus / "meta.zip", "--output", folder)
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert path.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == [path]


def test_names_that_lead_out_of_the_archive_write_nothing(tmp_path):
    wav = write_tone(tmp_path / "a.wav", 300).read_bytes()
    low = write_tone(tmp_path / "b.wav", 200).read_bytes()
    contents = {"../out.wav": wav, "in.wav": low, "x/../../up.wav": wav}
    path = write_zip(tmp_path / "music.zip", contents)
    rows = [{"path": name, "genre": "Low", "artist_id": name} for name in contents]
    write_csv(tmp_path / "tracks.csv", rows)
    wavs = tmp_path / "deep" / "wavs"
    code = run(
        "--audio", path, "--metadata", tmp_path / "tracks.csv", "--num_shards", 1,
        "--output", tmp_path / "dataset", "--wav_output", wavs,
        "--representations", "mel", "--max_reject_ratio", 1,
    )  # fmt: skip
    assert code == 0
    assert [path.name for path in wavs.iterdir() if path.suffix == ".wav"] == ["in.wav"]
    assert not list(tmp_path.glob("**/out.wav"))
    lines = (tmp_path / "dataset" / "rejects-00000-of-00001.jsonl").read_text()
    rejects = [json.loads(line) for line in lines.splitlines()]
    assert {reject["path"] for reject in rejects if reject["path"] not in contents} == {
        f"{path}!/../out.wav",
        f"{path}!/x/../../up.wav",
    }


def test_long_files_are_read_by_their_middle(tmp_path, music_mp3, monkeypatch):
    """A member is unpacked whole, and then read as any file."""
    monkeypatch.setattr("pipeline.shards.shard.WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr("pipeline.inputs.archives.members.MOST_IN_MEMORY", 1000)
    plain = tmp_path / "a.mp3"
    plain.write_bytes(music_mp3 * 3)
    path = write_zip(tmp_path / "a.zip", {"a.mp3": music_mp3 * 3})
    size = len(music_mp3) * 3
    clips = make_clip(plain), make_clip(Path(f"{path}!/a.mp3"), size=size)
    contents = [fetch_audio(clip, "middle").read() for clip in clips]
    assert contents[0] == contents[1]
    assert len(contents[0]) < size


def test_an_estimate_counts_unpacking(tmp_path):
    noise = np.random.default_rng(0).integers(-9999, 9999, 1_000_000, np.int16)
    wav = encode(noise[:, None], kind="WAV")
    plain = tmp_path / "a.wav"
    plain.write_bytes(wav)
    path = write_zip(tmp_path / "a.zip", {"a.wav": wav})
    config = DatasetConfig(
        output="", representations=("windows",), clip=ClipConfig(), genres=("Low",)
    )
    times = [
        estimate.measure([AudioFile(str(name), len(wav))] * 3, config).cpu_seconds
        for name in (plain, f"{path}!/a.wav")
    ]
    assert times[1] > times[0] + 0.04  # bzip2 takes 0.1 s and more.


def test_the_tree_of_genres_is_found_in_the_zip(tmp_path, genuine_tracks, capsys):
    """As beside tracks.csv in a folder, or in a ZIP of its own."""
    tables = {
        f"fma_metadata/{name}": (genuine_tracks.parent / name).read_bytes()
        for name in ("tracks.csv", "genres.csv")
    }
    metadata = write_zip(tmp_path / "fma_metadata.zip", tables)
    audio = tmp_path / "fma_small" / "000" / "000002.wav"
    write_tone(audio, 300)
    clips = zip_folder(tmp_path / "fma_small.zip", tmp_path / "fma_small")
    for more in ([], ["--genres_file", metadata]):
        code = run(
            "--audio", clips, "--metadata", metadata, "--labels", "all",
            "--estimate", "--representations", "mel", *more,
        )  # fmt: skip
        assert code == 0
        assert "Labels: every genre that a track has" in capsys.readouterr().out
