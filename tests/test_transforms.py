import dataclasses
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.config import ClipConfig
from pipeline.metadata import MetadataConfig, Track
from pipeline.rejects import Reason, Reject
from pipeline.schema import SPLITS
from pipeline.shards import DatasetConfig, ShardReport
from pipeline.splits import stable_hash
from pipeline.tfrecord import read_records
from pipeline.transforms import (
    METRICS,
    AudioFile,
    FindLeaks,
    JoinTracks,
    MakeShards,
    MatchAudio,
    ReadTracks,
    pair,
)
from tests.corpora import make_clip, write_csv, write_plain_corpus, write_tone

LABELS = {"High": 0, "Low": 1}


def test_pipeline() -> TestPipeline:
    return TestPipeline(runner="FnApiRunner")


test_pipeline.__test__ = False


def make_track(key: str = "k", **changes) -> Track:
    values = {
        "key": key,
        "track_id": f"t-{key}",
        "artist_id": "a",
        "genre": "Low",
        "split": "training",
        "path": f"{key}.mp3",
        "wanted": True,
    }
    return Track(**(values | changes))


def counters(result) -> dict[str, int]:
    query = result.metrics().query(MetricsFilter().with_namespace(METRICS))
    return {item.key.metric.name: item.result for item in query["counters"]}


def test_read_tracks_yields_each_row(tmp_path):
    path = tmp_path / "tracks.csv"
    write_csv(
        path, [{"path": "x/a.mp3", "genre": "Low"}, {"path": "b.mp3", "genre": ""}]
    )
    with test_pipeline() as pipeline:
        tracks = pipeline | ReadTracks(config=MetadataConfig(path=str(path)))
        keys = tracks | beam.Map(lambda track: (track.key, track.genre))
        assert_that(keys, equal_to([("x/a", "Low"), ("b", "")]))


def test_match_audio_lists_files_with_sizes(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a b.mp3").write_bytes(b"123")
    (tmp_path / "c.mp3").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"no")
    with test_pipeline() as pipeline:
        files = pipeline | MatchAudio(pattern=f"{tmp_path}/**.mp3")
        expected = [
            AudioFile(f"{tmp_path}/deep/er/a b.mp3", 3),
            AudioFile(f"{tmp_path}/c.mp3", 0),
        ]
        assert_that(files, equal_to(expected))


def test_join_puts_every_input_in_one_place():
    tracks = [
        make_track("good"),
        make_track("missing"),
        make_track("no-genre", genre=""),
        make_track("unwanted", wanted=False),
        make_track("twice", track_id="t-1"),
        make_track("twice", track_id="t-2"),
        make_track("copies"),
    ]
    names = [
        "good.mp3",
        "no-genre.mp3",
        "unwanted.mp3",
        "twice.mp3",
        "copies.mp3",
        "copies.wav",
        "stray.mp3",
    ]
    with test_pipeline() as pipeline:
        joined = (
            pipeline | "T" >> beam.Create(tracks),
            pipeline | "F" >> beam.Create([AudioFile(f"m/{n}", 9) for n in names]),
        ) | JoinTracks(genres=list(LABELS), kind="plain", audio_base="m")
        assert_that(
            joined.clips | "C" >> beam.Map(lambda c: (c.track_id, c.path, c.label)),
            equal_to(
                [
                    ("t-good", "m/good.mp3", 1),
                    ("t-1", "m/twice.mp3", 1),
                    ("t-copies", "m/copies.mp3", 1),
                ]
            ),
        )
        assert_that(
            joined.rejects
            | "R" >> beam.Map(lambda r: (r.reason, r.track_id, r.path, r.stage)),
            equal_to(
                [
                    (Reason.MISSING, "t-missing", "missing.mp3", "join"),
                    (Reason.NO_GENRE, "t-no-genre", "m/no-genre.mp3", "join"),
                    (Reason.DUPLICATE, "t-2", "twice.mp3", "join"),
                    (Reason.DUPLICATE, "t-copies", "m/copies.wav", "join"),
                    (Reason.NO_METADATA, "", "m/stray.mp3", "join"),
                ]
            ),
            label="Rejects",
        )
    counted = counters(pipeline.result)
    assert counted["files_not_wanted"] == 1
    assert counted["rejected_duplicate"] == 2
    assert counted["rejected_missing"] == 1


def test_join_matches_fma_numbers():
    with test_pipeline() as pipeline:
        joined = (
            pipeline | "T" >> beam.Create([make_track("2", track_id="2")]),
            pipeline | "F" >> beam.Create([AudioFile("gs://b/x/000/000002.mp3", 1)]),
        ) | JoinTracks(genres=list(LABELS), kind="fma", audio_base="gs://b/x")
        assert_that(
            joined.clips | beam.Map(lambda clip: clip.path),
            equal_to(["gs://b/x/000/000002.mp3"]),
        )


def test_pair_ignores_missing_audio_of_unwanted_tracks():
    assert pair([make_track(wanted=False)], [], LABELS) == ([], [], 0)


def make_config(output: Path, **changes) -> DatasetConfig:
    for folder in ("windows", "mel", "_temporary"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    values = {
        "output": str(output),
        "representations": ("windows", "mel"),
        "clip": ClipConfig(windows_per_clip=2),
        "genres": tuple(LABELS),
        "num_shards": 3,
    }
    return DatasetConfig(**(values | changes))


def test_make_shards_writes_every_shard_and_counts(tmp_path):
    clips = [
        make_clip(write_tone(tmp_path / f"{i}.wav", 300 + i), f"t{i}") for i in range(4)
    ]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing")
    clips.append(make_clip(broken, "t-broken"))
    output = tmp_path / "out"
    with test_pipeline() as pipeline:
        shards = pipeline | beam.Create(clips) | MakeShards(config=make_config(output))
        assert_that(
            shards.rejects | "R" >> beam.Map(lambda r: (r.track_id, r.reason, r.stage)),
            equal_to([("t-broken", Reason.UNDECODABLE, "decode")]),
        )
        assert_that(
            shards.reports | "S" >> beam.Map(lambda r: r.shard),
            equal_to([0, 1, 2]),
            label="Reports",
        )
        assert_that(
            shards.moments
            | "M" >> beam.Map(lambda m: (sorted(m), m["windows"].mean.shape)),
            equal_to([(["windows"], (1,))] * 4),
            label="Moments",
        )
    assert len(list(output.glob("*/*.tfrecord"))) == 2 * 3 * len(SPLITS)
    for shard in range(3):
        here = sum(stable_hash(clip.track_id) % 3 == shard for clip in clips[:4])
        path = output / "windows" / f"training-{shard:05d}-of-00003.tfrecord"
        with path.open("rb") as file:
            assert len(list(read_records(file))) == 2 * here
    counted = counters(pipeline.result)
    assert counted["clips_read"] == 5
    assert counted["clips_training_Low"] == 4
    assert counted["records_windows_training"] == 8
    assert counted["rejected_undecodable"] == 1
    query = pipeline.result.metrics().query(MetricsFilter().with_namespace(METRICS))
    distributions = {d.key.metric.name: d.result for d in query["distributions"]}
    assert distributions["decode_ms"].count == 4
    assert distributions["feature_ms"].min > 0


@pytest.mark.parametrize("options", [[], ["--direct_runner_bundle_repeat=2"]])
def test_shards_are_the_same_bytes_for_any_order_and_retry(tmp_path, options):
    clips = [
        make_clip(write_tone(tmp_path / f"{i}.wav", 300 + i), f"t{i}") for i in range(3)
    ]
    contents = []
    for attempt, ordered in enumerate((clips, clips[::-1])):
        output = tmp_path / f"out-{attempt}"
        with TestPipeline(
            runner="FnApiRunner",
            options=beam.options.pipeline_options.PipelineOptions(options),
        ) as pipeline:
            _ = pipeline | beam.Create(ordered) | MakeShards(config=make_config(output))
        files = sorted(output.glob("*/*.tfrecord"))
        contents.append({file.name: file.read_bytes() for file in files})
        assert not list((output / "_temporary").iterdir())
    assert contents[0] == contents[1]


def test_programming_errors_fail_the_job(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("a bug, not a bad file")

    monkeypatch.setattr("pipeline.shards.make_records", broken)
    clip = make_clip(write_tone(tmp_path / "a.wav", 440))
    with pytest.raises(TypeError, match="a bug"), test_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create([clip])
            | MakeShards(config=make_config(tmp_path / "out"))
        )


def make_report(shard: int, artists: list[tuple[str, str]]) -> ShardReport:
    return ShardReport(
        shard=shard,
        clips={},
        records={},
        record_bytes={},
        decoders={},
        decode_ms=[],
        feature_ms=[],
        artists=artists,
        digest="",
    )


def test_find_leaks_names_artists_in_several_splits():
    reports = [
        make_report(0, [("a", "training"), ("b", "training")]),
        make_report(1, [("a", "training"), ("b", "test"), ("c", "test")]),
    ]
    with test_pipeline() as pipeline:
        leaks = pipeline | beam.Create(reports) | FindLeaks()
        assert_that(leaks, equal_to(["b"]))


def test_rejects_are_plain_rows():
    reject = Reject(
        path="p", track_id="t", stage="join", reason=Reason.MISSING, message="m"
    )
    assert dataclasses.replace(reject) == reject
    assert '"reason": "missing"' in reject.to_json()


def test_corpus_helper_makes_what_it_says(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=2)
    assert len(list(Path(glob).parent.glob("*.wav"))) == 2
    assert metadata.read_text().count("\n") == 3
