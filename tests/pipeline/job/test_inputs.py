import dataclasses
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.common.rejects import Reason, Reject
from pipeline.inputs.join import AudioFile, Join
from pipeline.inputs.metadata import MetadataConfig, Track
from pipeline.inputs.names import AudioFolder, name_aliases
from pipeline.inputs.survey import inspect_inputs
from pipeline.job.counters import METRICS
from pipeline.job.inputs import JoinTracks, MatchAudio, ReadTracks
from tests.support.corpora import write_csv, write_plain_corpus
from tests.support.flaky import make_store_flaky

LABELS = {"High": 0, "Low": 1}


def test_pipeline() -> TestPipeline:
    return TestPipeline(runner="FnApiRunner")


test_pipeline.__test__ = False


def make_track(key: str = "k", **changes) -> Track:
    values = {
        "key": key,
        "track_id": f"t-{key}",
        "artist_id": "a",
        "genres": ("Low",),
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
        tracks = (
            pipeline
            | "S" >> beam.Impulse()
            | ReadTracks(config=MetadataConfig(path=str(path)))
        )
        keys = tracks | beam.Map(lambda track: (track.key, track.genre))
        assert_that(keys, equal_to([("x/a", "Low"), ("b", "")]))


def test_match_audio_lists_files_with_sizes(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a b.mp3").write_bytes(b"123")
    (tmp_path / "c.mp3").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"no")
    with test_pipeline() as pipeline:
        files = pipeline | beam.Impulse() | MatchAudio(patterns=(f"{tmp_path}/**.mp3",))
        expected = []
        for name, size in (("deep/er/a b.mp3", 3), ("c.mp3", 0)):
            modified = (tmp_path / name).stat().st_mtime
            expected.append(AudioFile(f"{tmp_path}/{name}", size, modified))
        assert_that(files, equal_to(expected))


def test_a_store_that_fails_twice_costs_nothing(tmp_path, monkeypatch):
    """Reading the metadata, also in the middle of it."""
    rows = [{"path": f"{i}.mp3", "genre": "x" * 1_000} for i in range(300)]
    write_csv(tmp_path / "tracks.csv", rows)
    for row in rows[:5]:
        (tmp_path / row["path"]).write_bytes(b"1")
    config = MetadataConfig(path=str(tmp_path / "tracks.csv"))
    failures = make_store_flaky(monkeypatch)
    with test_pipeline() as pipeline:
        files = pipeline | beam.Impulse() | MatchAudio(patterns=(f"{tmp_path}/*.mp3",))
        tracks = pipeline | "S" >> beam.Impulse() | ReadTracks(config=config)
        names = tracks | "Path" >> beam.Map(lambda track: track.path)
        assert_that(names, equal_to([row["path"] for row in rows]))
        sizes = files | "Size" >> beam.Map(lambda file: file.size)
        assert_that(sizes, equal_to([1] * 5), label="Sizes")
    assert [failures[name] for name in ("open", "read")] == [2, 2]


def test_join_puts_every_input_in_one_place():
    tracks = [
        make_track("good"),
        make_track("missing"),
        make_track("no-genre", genres=()),
        make_track("unwanted", wanted=False),
        make_track("twice", track_id="t-1"),
        make_track("twice", track_id="t-2"),
        make_track("copies"),
        make_track("either"),
    ]
    names = [
        "good.mp3",
        "no-genre.mp3",
        "unwanted.mp3",
        "twice.mp3",
        "copies.mp3",
        "copies.wav",
        "stray.mp3",
        "good.jpg",
        "either.flac",
        "either.wav",
    ]
    with test_pipeline() as pipeline:
        joined = (
            pipeline | "T" >> beam.Create(tracks),
            pipeline | "F" >> beam.Create([AudioFile(f"m/{n}", 9) for n in names]),
        ) | JoinTracks(genres=list(LABELS), kind="plain", folder=AudioFolder(path="m"))
        assert_that(
            joined.clips | "C" >> beam.Map(lambda c: (c.track_id, c.path, *c.labels)),
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
                    (Reason.DUPLICATE_ROW, "t-2", "twice.mp3", "join"),
                    (Reason.DUPLICATE_FILE, "t-copies", "m/copies.wav", "join"),
                    (Reason.NO_METADATA, "", "m/stray.mp3", "join"),
                    (Reason.AMBIGUOUS_ROW, "t-either", "either.mp3", "join"),
                    (Reason.AMBIGUOUS_FILE, "", "m/either.flac", "join"),
                    (Reason.AMBIGUOUS_FILE, "", "m/either.wav", "join"),
                ]
            ),
            label="Rejects",
        )
        assert_that(joined.not_wanted, equal_to(["m/unwanted.mp3"]), label="NotWanted")
        assert_that(joined.not_audio, equal_to(["m/good.jpg"]), label="NotAudio")
    counted = counters(pipeline.result)
    assert counted["files_not_audio"] == 1
    assert counted["files_not_wanted"] == 1
    assert counted["rejected_duplicate_row"] == 1
    assert counted["rejected_duplicate_file"] == 1
    assert counted["rejected_missing"] == 1


def test_join_matches_fma_numbers():
    with test_pipeline() as pipeline:
        joined = (
            pipeline | "T" >> beam.Create([make_track("2", track_id="2")]),
            pipeline | "F" >> beam.Create([AudioFile("gs://b/x/000/000002.mp3", 1)]),
        ) | JoinTracks(
            genres=list(LABELS), kind="fma", folder=AudioFolder(path="gs://b/x")
        )
        assert_that(
            joined.clips | beam.Map(lambda clip: clip.path),
            equal_to(["gs://b/x/000/000002.mp3"]),
        )


def test_the_survey_and_the_job_agree(tmp_path, monkeypatch):
    """On names that are alike in all ways, in a folder in a folder of its name."""
    monkeypatch.chdir(tmp_path)
    files = "a.mp3 a.wav b.flac c.wav music/c.wav d.1.mp3 e.mp3 e.wav f.jpg g"
    for name in files.split():
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = "a.mp3 a.wav b.wav c.wav music/c.wav d.1 e f.jpg g no.wav music/b.flac"
    rows = [
        {"path": name, "genre": ["Low", "High"][i % 2]}
        for i, name in enumerate(names.split())
    ]
    write_csv(tmp_path / "t.csv", rows)
    folder = AudioFolder(path="music", aliases=name_aliases("music"))
    config = MetadataConfig(path="t.csv", folder=folder)
    inputs = inspect_inputs(["music"], config)
    with test_pipeline() as pipeline:
        start = pipeline | beam.Impulse()
        joined = (
            start | ReadTracks(config=inputs.metadata),
            start | MatchAudio(patterns=("music",)),
        ) | JoinTracks(
            genres=inputs.genres,
            kind="plain",
            folder=folder,
            nearest=inputs.nearest,
        )
        paths = joined.clips | "P" >> beam.Map(lambda clip: clip.path)
        assert_that(paths, equal_to([clip.path for clip in inputs.clips]))
        reasons = joined.rejects | "R" >> beam.Map(lambda r: (r.reason, r.path))
        expected = [
            (Reason.AMBIGUOUS_ROW, "e"),
            (Reason.AMBIGUOUS_FILE, "music/e.mp3"),
            (Reason.AMBIGUOUS_FILE, "music/e.wav"),
            (Reason.MISSING, "b.wav"),
            (Reason.MISSING, "no.wav"),
        ]
        assert_that(reasons, equal_to(expected), label="Rejects")
    assert len(inputs.clips) == 8


def test_pair_ignores_missing_audio_of_unwanted_tracks():
    join = Join(labels=LABELS)
    assert not any(join.pair([make_track(wanted=False)], []))


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
