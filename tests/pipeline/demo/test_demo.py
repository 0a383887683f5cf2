"""The demo corpus: layout, metadata, planted faults, determinism, restarts."""

import collections
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
from pipeline.common.progress import Reporter
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.waveform import load_waveform
from pipeline.demo import __main__ as cli
from pipeline.demo import encode
from pipeline.demo.__main__ import main
from pipeline.demo.corpus import (
    GENRES_FILE,
    METADATA_FILE,
    PLANTED_FILE,
    STATE_FILE,
    make_corpus,
)
from pipeline.demo.encode import count_clip_samples
from pipeline.demo.genres import GENRES
from pipeline.demo.layout import BROKEN, DemoConfig, Kind, plan_layout
from pipeline.inputs.genres import LabelRule, read_tree_file
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
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert make_corpus(small_config(folder))
    return folder


@pytest.fixture(scope="module")
def listed(corpus: Path) -> dict[str, list[dict[str, object]]]:
    """The content of planted.json."""
    return json.loads((corpus / PLANTED_FILE).read_text())


@pytest.fixture(scope="module")
def planted(corpus: Path, listed) -> dict[str, Path]:
    """Kind to the file's path, from planted.json."""
    return {
        item["kind"]: corpus / "fma_demo" / item["path"]
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
    make_corpus(small_config(tmp_path, workers=2))
    first, second = digest(corpus), digest(tmp_path)
    assert len(first) > 20
    assert first == second


def test_other_seed_gives_other_music_and_rows(tmp_path):
    for seed in (0, 1):
        alone = {"seed": seed, "artists_per_genre": (1, 0, 0)}
        make_corpus(one_genre(tmp_path / str(seed), **alone))
    first, second = digest(tmp_path / "0"), digest(tmp_path / "1")
    assert first["fma_metadata/tracks.csv"] != second["fma_metadata/tracks.csv"]
    clip = "fma_demo/000/000002.mp3"
    assert first[clip] != second[clip]


def test_header_is_the_genuine_one(corpus):
    header = header_lines(corpus / METADATA_FILE)
    assert hashlib.sha256(header).hexdigest() == GENUINE_HEADER


@pytest.mark.skipif(not GENUINE.exists(), reason="no genuine tracks.csv here")
def test_header_equals_genuine_file(corpus):
    assert header_lines(corpus / METADATA_FILE) == header_lines(GENUINE)


def test_rows_are_like_fma(corpus):
    rows = read_rows(corpus / METADATA_FILE)
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
        assert re.fullmatch(r"\[(\d+(, \d+)*)?\]", row["track", "genres"])


def test_tracks_have_a_kind_of_their_top_genre(corpus):
    path = corpus / GENRES_FILE
    tree = read_tree_file(path.read_bytes(), str(path))
    rule = LabelRule(kind="all", tree=tree)
    config = MetadataConfig(path=str(corpus / METADATA_FILE), labels=rule)
    with (corpus / METADATA_FILE).open(newline="") as file:
        tracks = {track.track_id: track for track in read_tracks(file, config)}
    counts = collections.Counter()
    for row in read_rows(corpus / METADATA_FILE):
        track, top = tracks[row["", "track_id"]], row["track", "genre_top"]
        counts.update(track.genres)
        if top:
            assert top in track.genres
            kinds = set(track.genres) & tree.parents.keys()
            assert {tree.parents[kind] for kind in kinds} == {top}
    with path.open(newline="") as file:
        stated = {row["title"]: int(row["#tracks"]) for row in csv.DictReader(file)}
    assert stated == {title: counts[title] for title in stated}


def test_pipeline_reads_every_row(corpus, planted):
    text = io.StringIO((corpus / METADATA_FILE).read_text("utf-8"), newline="")
    config = MetadataConfig(path=str(corpus / METADATA_FILE), subset="small")
    tracks = list(read_tracks(text, config))
    rows = read_rows(corpus / METADATA_FILE)
    assert [track.track_id for track in tracks] == [row["", "track_id"] for row in rows]
    wanted = {track.path for track in tracks if track.wanted}
    wanted_files = {corpus / "fma_demo" / path for path in wanted}
    files = set(clip_paths(corpus))
    assert wanted_files - files == {planted["missing"]}
    assert files - wanted_files == {planted["unlisted"]}


def clip_paths(corpus: Path) -> list[Path]:
    return sorted(corpus.glob("fma_demo/*/*.mp3"))


def test_full_layout_is_balanced_and_artist_disjoint(tmp_path):
    tracks = plan_layout(DemoConfig(output=tmp_path))
    good = [track for track in tracks if track.is_good]
    assert len(good) == 8 * (5 * 3 + 2 * 2 + 4 * 1) == 184
    splits: dict[int, set[str]] = {}
    genres: dict[int, set[str]] = {}
    for track in tracks:
        splits.setdefault(track.artist.artist_id, set()).add(track.artist.split)
        genres.setdefault(track.artist.artist_id, set()).add(track.artist.genre)
    assert all(len(names) == 1 for names in [*splits.values(), *genres.values()])
    assert len(splits) == 88
    counts = collections.Counter((t.artist.split, t.artist.genre) for t in good)
    clips = {"training": 15, "validation": 4, "test": 4}
    assert counts == {(s, g): n for s, n in clips.items() for g in GENRES}
    kinds = collections.Counter(track.kind for track in tracks)
    assert kinds == dict.fromkeys(Kind, 1) | {Kind.GOOD: 182, Kind.OTHER_SUBSET: 8}
    assert len({track.path for track in tracks}) == len(tracks)
    assert len({track.path[:3] for track in tracks}) > 50


def test_files_are_those_of_the_layout(corpus):
    tracks = plan_layout(small_config(corpus))
    expected = {corpus / "fma_demo" / track.path for track in tracks if track.has_file}
    assert set(clip_paths(corpus)) == expected
    assert sum(track.is_good for track in tracks) == 3 * len(FOUR)


def test_good_clips_are_stereo_mp3s_of_full_length_without_clipping(corpus, planted):
    good = [path for path in clip_paths(corpus) if path not in planted.values()]
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


def test_rows_of_planted_files(corpus, listed, planted):
    rows = {row["", "track_id"]: row for row in read_rows(corpus / METADATA_FILE)}
    ids = {item["kind"]: str(item["track_id"]) for item in listed["broken"]}
    assert set(ids) == set(BROKEN)
    assert [kind for kind in ids if ids[kind] not in rows] == ["unlisted"]
    assert [kind for kind in ids if not planted[kind].exists()] == ["missing"]
    assert rows[ids["no_genre"]]["track", "genre_top"] == ""
    for kind in ("no_genre", "unlisted"):
        assert soundfile.read(planted[kind])[0].std() > 0.01


@pytest.mark.parametrize(
    "kind", ["tag_only", "empty", "too_short", "truncated", "silent", "not_audio"]
)
def test_decoder_gives_the_planted_reason(listed, planted, kind):
    stated = {item["kind"]: item["reason"] for item in listed["broken"]}[kind]
    with planted[kind].open("rb") as file, pytest.raises(AudioError) as caught:
        load_waveform(file, ClipConfig())
    assert caught.value.reason is Reason(stated)


def test_tag_names_the_artist_and_ends_where_its_size_says(planted):
    tag = planted["tag_only"].read_bytes()
    size = (tag[6] << 21) | (tag[7] << 14) | (tag[8] << 7) | tag[9]
    assert len(tag) == 10 + size
    assert b"TPE1" in tag
    assert b"TIT2" in tag
    # Good files begin with one too.
    assert planted["mono"].read_bytes()[:3] == b"ID3"


class Recorder(Reporter):
    """Notes how far the work is, each time it is told."""

    def __init__(self):
        super().__init__(quiet=True)
        self.calls = []

    def _show(self, stage):
        self.calls.append((stage.done, stage.total))


def test_complete_corpus_is_left_alone(tmp_path):
    config = one_genre(tmp_path, artists_per_genre=(1, 0, 0))
    assert make_corpus(config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    recorder = Recorder()
    assert not make_corpus(config, recorder)
    assert recorder.calls == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_interrupted_corpus_is_completed(tmp_path):
    make_corpus(one_genre(tmp_path / "whole"))

    class StopError(Exception):
        pass

    class Stopper(Recorder):
        def _show(self, stage):
            raise StopError

    config = one_genre(tmp_path / "parts")
    with pytest.raises(StopError):
        make_corpus(config, Stopper())
    assert json.loads((config.output / STATE_FILE).read_text())["complete"] is False
    recorder = Recorder()
    make_corpus(config, recorder)
    assert recorder.calls == [(2, 3), (3, 3)]
    assert digest(config.output) == digest(tmp_path / "whole")


def test_spoilt_state_begins_again(tmp_path):
    config = one_genre(tmp_path, artists_per_genre=(1, 0, 0))
    make_corpus(config)
    before = digest(tmp_path)
    clip = tmp_path / "fma_demo/000/000002.mp3"
    clip.write_bytes(b"half a clip")
    (tmp_path / STATE_FILE).write_text("{not json")
    assert make_corpus(config)
    assert digest(tmp_path) == before


def test_other_corpus_replaces_the_old_one(tmp_path):
    alone = {"artists_per_genre": (1, 0, 0)}
    make_corpus(one_genre(tmp_path / "a", tracks_per_artist=(3, 1, 1), **alone))
    make_corpus(one_genre(tmp_path / "a", **alone))
    make_corpus(one_genre(tmp_path / "b", **alone))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize(
    "name",
    [
        METADATA_FILE,
        "fma_demo/000/000002.mp3",
        "fma_demo/000/000003.mp3",
        "planted.json",
        "notes.txt",
        "fma_demo/000/mine.mp3",
    ],
)
def test_files_of_the_user_stay(tmp_path, capsys, name):
    mine = tmp_path / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"keep")
    assert main([f"--output={tmp_path}", "--genres=Rock", "--clip_seconds=6"]) == 2
    assert name in capsys.readouterr().err
    assert digest(tmp_path) == {name: hashlib.sha256(b"keep").hexdigest()}


def test_a_file_beside_an_old_corpus_stays(tmp_path):
    alone = {"artists_per_genre": (1, 0, 0)}
    make_corpus(one_genre(tmp_path, **alone))
    mine = tmp_path / "fma_demo/000/mine.mp3"
    mine.write_bytes(b"keep")
    before = digest(tmp_path)
    with pytest.raises(UserError, match=r"mine\.mp3"):
        make_corpus(one_genre(tmp_path, seed=1, **alone))
    assert digest(tmp_path) == before


def test_corpus_from_before_the_mark_is_replaced(tmp_path):
    state = {"corpus": {"version": 1}, "complete": True, "files": ["000/000009.mp3"]}
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    old = tmp_path / "fma_demo/000/000009.mp3"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    make_corpus(one_genre(tmp_path, artists_per_genre=(1, 0, 0)))
    assert not old.exists()
    assert soundfile.info(tmp_path / "fma_demo/000/000002.mp3").format == "MP3"


def test_an_encoder_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(encode.imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(UserError, match=r"Cannot write .*000002.mp3: ffmpeg fails in"):
        make_corpus(one_genre(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "--seed must be 0 or more. Received: -1"),
        ({"workers": 0}, "--workers must be 1 or more. Received: 0"),
        ({"clip_seconds": 2.0}, "--clip_seconds must be 6 to 60. Received: 2"),
        ({"clip_seconds": float("nan")}, "Received: nan"),
        ({"genres": ("Folk", "Polka")}, "Received: Folk,Polka"),
        ({"genres": ()}, "--genres must be some of"),
        ({"artists_per_genre": (0, 1, 1)}, "an artist in training"),
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
    first, then = capsys.readouterr().out.splitlines()
    assert first.startswith(
        f"Demo corpus: {tmp_path}, 3 good clips and 9 broken ones ("
    )
    assert then.startswith(f"Next: ./launch.sh preprocess --audio {tmp_path}/fma_demo ")
    assert main(arguments) == 0
    second = capsys.readouterr().out.splitlines()
    assert "complete already" in second[0]
    assert second[1:] == [then]


def test_command_line_names_what_it_cannot_write(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert main([f"--output={blocked}/demo"]) == 2
    error = capsys.readouterr().err
    assert f"{blocked}/demo" in error
    assert len(error.splitlines()) == 1


def test_command_line_refuses_bad_values(tmp_path, capsys):
    assert main([f"--output={tmp_path}", "--seed=-1"]) == 2
    assert "Received: -1" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([f"--output={tmp_path}", "--sede=1"])
    assert caught.value.code == 2
