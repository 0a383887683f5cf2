"""The demo corpus: layout, metadata, planted faults, determinism, restarts."""

import csv
import functools
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.waveform import load_waveform
from pipeline.demo import __main__ as cli
from pipeline.demo.__main__ import main
from pipeline.demo.corpus import STATE_FILE, DemoCorpus, make_corpus
from pipeline.demo.encode import count_clip_samples, make_tag
from pipeline.demo.genres import GENRES
from pipeline.demo.layout import BROKEN, DemoConfig, Kind, plan_layout
from pipeline.inputs.metadata import MetadataConfig, read_tracks
from pipeline.schema import SPLITS, UserError

SECONDS = 6.0
FOUR = ("Electronic", "Experimental", "Folk", "Hip-Hop")
GENUINE = Path(__file__).parents[4] / "shared/data/fma_metadata/tracks.csv"

# SHA-256 of the three header lines of FMA's genuine tracks.csv.
GENUINE_HEADER = "8bea9860a3e8057f4f6ad1504536444ac4008848cc894dcf5e83a58433cee195"


def small_config(output: Path, **changes: object) -> DemoConfig:
    values: dict[str, object] = {
        "output": output,
        "genres": FOUR,
        "artists_per_genre": (1, 1, 1),
        "tracks_per_artist": (1, 1, 1),
        "clip_seconds": SECONDS,
    }
    return DemoConfig(**(values | changes))


def one_genre(output: Path, **changes: object) -> DemoConfig:
    values = {"genres": ("Folk",), "broken": False} | changes
    return small_config(output, **values)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    return make_corpus(small_config(tmp_path_factory.mktemp("demo")))


@pytest.fixture(scope="module")
def planted(corpus: DemoCorpus) -> dict[str, Path]:
    """Kind to the file's path, from planted.json."""
    listed = json.loads(corpus.planted_path.read_text())
    return {
        item["kind"]: corpus.audio_dir / item["path"]
        for item in listed["broken"] + listed["odd"]
    }


def read_rows(path: Path) -> list[dict[tuple[str, str], str]]:
    with path.open(newline="", encoding="utf-8") as file:
        groups, fields, index, *rows = csv.reader(file)
    assert index == ["track_id", *[""] * 52]
    names = [("", "track_id"), *list(zip(groups, fields, strict=True))[1:]]
    return [dict(zip(names, row, strict=True)) for row in rows]


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def header_lines(path: Path) -> bytes:
    with path.open("rb") as file:
        return b"".join(next(file) for _ in range(3))


def test_workers_and_runs_do_not_change_a_byte(corpus, tmp_path):
    # Spawned workers have their own hash seed, so this also covers hash().
    again = make_corpus(small_config(tmp_path / "again", workers=2))
    first, second = digest(corpus.output), digest(again.output)
    assert len(first) > 20
    assert first == second


def test_other_seed_gives_other_music_and_rows(tmp_path):
    clips = [
        make_corpus(
            one_genre(tmp_path / str(seed), seed=seed, artists_per_genre=(1, 0, 0))
        )
        for seed in (0, 1)
    ]
    first, second = (digest(clip.output) for clip in clips)
    assert first["fma_metadata/tracks.csv"] != second["fma_metadata/tracks.csv"]
    clip = "fma_demo/000/000002.mp3"
    assert first[clip] != second[clip]


def test_header_is_the_genuine_one(corpus):
    header = header_lines(corpus.metadata_path)
    assert hashlib.sha256(header).hexdigest() == GENUINE_HEADER


@pytest.mark.skipif(not GENUINE.exists(), reason="no genuine tracks.csv here")
def test_header_equals_genuine_file(corpus):
    assert header_lines(corpus.metadata_path) == header_lines(GENUINE)


def test_rows_are_like_fma(corpus):
    rows = read_rows(corpus.metadata_path)
    assert {row["set", "subset"] for row in rows} == {"small", "medium", "large"}
    assert {row["set", "split"] for row in rows} == set(SPLITS)
    assert {row["track", "genre_top"] for row in rows} == {*FOUR, ""}
    ids = [int(row["", "track_id"]) for row in rows]
    assert ids == sorted(set(ids))
    assert ids[0] == 2
    assert ids[-1] > 100_000
    assert any("\n" in row["artist", "bio"] for row in rows)
    assert any('"' in row["artist", "bio"] for row in rows)
    for row in rows:
        assert row["artist", "name"]
        assert row["track", "title"]
        assert int(row["track", "duration"]) >= 30
        assert int(row["track", "bit_rate"]) >= 64_000
        assert re.fullmatch(r"\[\d*\]", row["track", "genres"])


def test_pipeline_reads_every_row(corpus):
    text = io.StringIO(corpus.metadata_path.read_text("utf-8"), newline="")
    config = MetadataConfig(path=str(corpus.metadata_path), subset="small")
    tracks = list(read_tracks(text, config))
    rows = read_rows(corpus.metadata_path)
    assert [track.track_id for track in tracks] == [row["", "track_id"] for row in rows]
    wanted = {track.path for track in tracks if track.wanted}
    files = {str(path.relative_to(corpus.audio_dir)) for path in clip_paths(corpus)}
    kinds = {item.kind: item.path for item in corpus.broken}
    assert wanted - files == {kinds["missing"]}
    assert files - wanted == {kinds["unlisted"]}


def clip_paths(corpus: DemoCorpus) -> list[Path]:
    return sorted(corpus.audio_dir.glob("*/*.mp3"))


def test_full_layout_is_balanced_and_artist_disjoint(tmp_path):
    tracks = plan_layout(DemoConfig(output=tmp_path))
    good = [t for t in tracks if t.kind in (Kind.GOOD, Kind.MONO, Kind.RATE_48K)]
    splits: dict[int, set[str]] = {}
    genres: dict[int, set[str]] = {}
    for track in tracks:
        splits.setdefault(track.artist.artist_id, set()).add(track.artist.split)
        genres.setdefault(track.artist.artist_id, set()).add(track.artist.genre)
    assert all(len(names) == 1 for names in [*splits.values(), *genres.values()])
    for genre in GENRES:
        own = [track for track in good if track.artist.genre == genre]
        assert len(own) >= 16
        assert len({track.artist.artist_id for track in own}) >= 4
    for split in ("validation", "test"):
        assert sum(track.artist.split == split for track in good) >= 32
    assert len({track.path for track in tracks}) == len(tracks)
    assert len({track.path[:3] for track in tracks}) > 50


def test_counts_are_what_lies_there(corpus):
    assert corpus.counts == {split: dict.fromkeys(FOUR, 1) for split in SPLITS}
    extra = [item for item in corpus.broken if item.kind != "missing"]
    extra += [item for item in corpus.odd if item.kind == "aac"]
    assert len(clip_paths(corpus)) == 3 * len(FOUR) + len(extra)
    assert [str(path) for path in clip_paths(corpus)] == sorted(
        str(path) for path in Path("/").glob(corpus.audio_glob[1:])
    )


def test_good_clips_are_stereo_mp3s_of_full_length_without_clipping(corpus):
    unusual = {item.path for item in corpus.broken + corpus.odd}
    good = [
        path
        for path in clip_paths(corpus)
        if str(path.relative_to(corpus.audio_dir)) not in unusual
    ]
    assert len(good) == 3 * len(FOUR) - 2
    for path in good:
        info = soundfile.info(path)
        assert (info.format, info.samplerate, info.channels) == ("MP3", 44_100, 2)
        samples, _ = soundfile.read(path, dtype="float32")
        extra, partial = divmod(len(samples) - count_clip_samples(SECONDS), 1152)
        assert partial == 0
        assert 0 <= extra <= 3
        assert info.frames == len(samples)
        assert np.abs(samples).max() < 1
        assert 0.01 < samples.std() < 0.5
        assert np.abs(samples[:, 0] - samples[:, 1]).max() > 1e-3


def test_thirty_seconds_are_as_long_as_a_genuine_clip():
    assert count_clip_samples(30) == 1_321_967


def test_mono_and_48_khz(planted):
    mono, fast = soundfile.info(planted["mono"]), soundfile.info(planted["48_khz"])
    assert (mono.channels, mono.samplerate) == (1, 44_100)
    assert (fast.channels, fast.samplerate) == (2, 48_000)
    assert fast.duration >= SECONDS - 0.1


def test_aac_needs_ffmpeg(planted):
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(planted["aac"])
    with planted["aac"].open("rb") as file:
        assert load_waveform(file, ClipConfig()).decoder == "ffmpeg"


def test_no_audio(planted):
    assert planted["empty"].stat().st_size == 0
    assert planted["tag_only"].read_bytes().startswith(b"ID3")
    assert b"<html>" in planted["not_audio"].read_bytes()
    for kind in ("empty", "tag_only", "not_audio"):
        with pytest.raises(soundfile.LibsndfileError):
            soundfile.read(planted[kind])


def test_truncated_announces_more_than_it_has(planted):
    announced = soundfile.info(planted["truncated"]).frames
    samples, _ = soundfile.read(planted["truncated"])
    assert announced >= count_clip_samples(SECONDS)
    assert 0.2 < len(samples) / announced < 0.6


def test_too_short_and_silent(planted):
    short, rate = soundfile.read(planted["too_short"])
    assert 1.4 < len(short) / rate < 1.8
    assert short.std() > 0.01
    silent, _ = soundfile.read(planted["silent"])
    assert len(silent) >= count_clip_samples(SECONDS)
    assert np.abs(silent).max() < 1e-4


def test_rows_of_planted_files(corpus, planted):
    rows = {row["", "track_id"]: row for row in read_rows(corpus.metadata_path)}
    ids = {item.kind: str(item.track_id) for item in corpus.broken}
    assert set(ids) == set(BROKEN)
    assert [kind for kind in ids if ids[kind] not in rows] == ["unlisted"]
    assert [kind for kind in ids if not planted[kind].exists()] == ["missing"]
    assert rows[ids["no_genre"]]["track", "genre_top"] == ""
    for kind in ("no_genre", "unlisted"):
        assert soundfile.read(planted[kind])[0].std() > 0.01


@pytest.mark.parametrize(
    "kind", ["tag_only", "empty", "too_short", "truncated", "silent", "not_audio"]
)
def test_decoder_gives_the_planted_reason(corpus, planted, kind):
    stated = {item.kind: item.reason for item in corpus.broken}[kind]
    with planted[kind].open("rb") as file, pytest.raises(AudioError) as caught:
        load_waveform(file, ClipConfig())
    assert caught.value.reason is Reason(stated)


def test_id3_tag_is_skipped_by_its_size():
    tag = make_tag({"TIT2": "x" * 300, "TPE1": "y"})
    size = (tag[6] << 21) | (tag[7] << 14) | (tag[8] << 7) | tag[9]
    assert len(tag) == 10 + size


def test_complete_corpus_is_left_alone(tmp_path):
    config = one_genre(tmp_path, artists_per_genre=(1, 0, 0))
    assert make_corpus(config).created
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    calls: list[tuple[int, int]] = []
    again = make_corpus(config, progress=lambda *call: calls.append(call))
    assert not again.created
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_interrupted_corpus_is_completed(tmp_path):
    whole = digest(make_corpus(one_genre(tmp_path / "whole")).output)

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise StopError

    config = one_genre(tmp_path / "parts")
    with pytest.raises(StopError):
        make_corpus(config, progress=stop)
    assert json.loads((config.output / STATE_FILE).read_text())["complete"] is False
    calls: list[tuple[int, int]] = []
    make_corpus(config, progress=lambda *call: calls.append(call))
    assert calls == [(2, 3), (3, 3)]
    assert digest(config.output) == whole


def test_folder_without_marker_is_rewritten(tmp_path):
    clip = tmp_path / "fma_demo/000/000002.mp3"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"half a clip")
    (tmp_path / STATE_FILE).write_text("{not json")
    make_corpus(one_genre(tmp_path, artists_per_genre=(1, 0, 0)))
    assert soundfile.info(clip).format == "MP3"


def test_other_corpus_replaces_its_own_files_only(tmp_path):
    alone = {"artists_per_genre": (1, 0, 0)}
    make_corpus(one_genre(tmp_path, tracks_per_artist=(3, 1, 1), **alone))
    mine = tmp_path / "fma_demo/000/mine.mp3"
    mine.write_bytes(b"keep")
    config = one_genre(tmp_path, **alone)
    make_corpus(config)
    expected = {track.path for track in plan_layout(config)}
    left = {
        str(path.relative_to(tmp_path / "fma_demo"))
        for path in tmp_path.glob("fma_demo/*/*.mp3")
    }
    assert left == expected | {"000/mine.mp3"}


def test_state_file_cannot_delete_outside_the_corpus(tmp_path):
    outside = tmp_path / "000001.mp3"
    outside.write_bytes(b"keep")
    output = tmp_path / "out"
    output.mkdir()
    state = {"corpus": {}, "files": ["../../000001.mp3", 7]}
    (output / STATE_FILE).write_text(json.dumps(state))
    make_corpus(one_genre(output, artists_per_genre=(1, 0, 0)))
    assert outside.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "--seed must be 0 or more. Received: -1"),
        ({"workers": 0}, "--workers must be 1 or more. Received: 0"),
        ({"clip_seconds": 2.0}, "--clip_seconds must be 6 to 60. Received: 2"),
        ({"clip_seconds": float("nan")}, "Received: nan"),
        ({"genres": ("Folk", "Polka")}, "Received: Folk,Polka"),
        ({"genres": ()}, "--genres must be some of"),
        ({"artists_per_genre": (0, 1, 1)}, "one artist or more in training"),
        ({"artists_per_genre": (99, 1, 1)}, "at most 400 artists"),
        ({"tracks_per_artist": (1, 1, 0)}, "tracks_per_artist must be 1 to 24"),
    ],
)
def test_bad_configuration_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        small_config(tmp_path, **changes)


def test_command_line(tmp_path, capsys, monkeypatch):
    one_artist = functools.partial(DemoConfig, artists_per_genre=(1, 0, 0))
    monkeypatch.setattr(cli, "DemoConfig", one_artist)
    arguments = [f"--output={tmp_path}", "--genres=Rock", "--clip_seconds=6"]
    arguments.append("--workers=1")
    assert main(arguments) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0] == "demo corpus: 12 of 12 clips"
    assert "3 good clips and 9 broken ones" in first[-1]
    assert main(arguments) == 0
    second = capsys.readouterr().out.splitlines()
    assert len(second) == 1
    assert "complete already" in second[0]


def test_command_line_names_what_it_cannot_write(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert main([f"--output={blocked}/demo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Cannot write {blocked}/demo")
    assert len(error.splitlines()) == 1


def test_command_line_refuses_bad_values(tmp_path, capsys):
    assert main([f"--output={tmp_path}", "--seed=-1"]) == 2
    assert "Received: -1" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([f"--output={tmp_path}", "--sede=1"])
    assert caught.value.code == 2
