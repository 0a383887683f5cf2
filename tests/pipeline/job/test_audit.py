import collections
import dataclasses
import itertools

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.common.rejects import Reason, Reject
from pipeline.inputs.metadata import Track
from pipeline.job.audit import (
    MAX_NAMED,
    Audit,
    AuditInputs,
    AuditResult,
    check,
    enter_clip,
    enter_label,
    enter_reject,
    enter_track,
    merge,
)
from pipeline.shards.result import WrittenClip


def make_track(track_id: str, **changes) -> Track:
    values = {
        "key": track_id,
        "track_id": track_id,
        "artist_id": "a",
        "genres": ("Low",),
        "split": "training",
        "path": f"{track_id}.mp3",
        "wanted": True,
    }
    return Track(**(values | changes))


def make_written(track_id: str, **changes) -> WrittenClip:
    values = {
        "track_id": track_id,
        "artist_id": f"artist of {track_id}",
        "genres": ("Low",),
        "split": "training",
        "path": f"m/{track_id}.mp3",
        "size": 1,
        "seconds": 30.0,
        "decoder": "libsndfile",
        "audio": f"audio of {track_id}",
    }
    return WrittenClip(**(values | changes))


def make_reject(track_id: str, reason: Reason, path: str | None = None) -> Reject:
    path = f"m/{track_id}.mp3" if path is None else path
    return Reject(
        path=path, track_id=track_id, stage="join", reason=reason, message="m"
    )


#: A job with every kind of reject, in which nothing is lost.
WHOLE = {
    "tracks": [
        *map(make_track, ("good", "missing", "no genre", "broken", "twice", "twice")),
        make_track("row"),
        make_track("other row", key="row"),
        make_track("unwanted", wanted=False),
        make_track("leaks"),
        make_track("either"),
    ],
    "files": [
        "m/good.mp3",
        "m/good.wav",
        "m/no genre.mp3",
        "m/broken.mp3",
        "m/twice.mp3",
        "n/twice.mp3",
        "m/row.mp3",
        "m/unwanted.mp3",
        "m/stray.mp3",
        "m/leaks.mp3",
        "m/cover.jpg",
        "m/either.flac",
        "m/either.wav",
    ],
    "not_audio": ["m/cover.jpg"],
    "labels": [("sound", "Low", "good"), ("sound", "Low", "twice")],
    "not_wanted": ["m/unwanted.mp3"],
    "clips": [*map(make_written, ("good", "twice", "row"))],
    "rejects": [
        make_reject("good", Reason.DUPLICATE_FILE, "m/good.wav"),
        make_reject("missing", Reason.MISSING, "missing.mp3"),
        make_reject("no genre", Reason.NO_GENRE),
        make_reject("broken", Reason.CORRUPT),
        make_reject("twice", Reason.DUPLICATE_ID, "n/twice.mp3"),
        make_reject("other row", Reason.DUPLICATE_ROW, "other row.mp3"),
        make_reject("", Reason.NO_METADATA, "m/stray.mp3"),
        make_reject("leaks", Reason.DUPLICATE_AUDIO),
        make_reject("either", Reason.AMBIGUOUS_ROW, "either.mp3"),
        make_reject("", Reason.AMBIGUOUS_FILE, "m/either.flac"),
        make_reject("", Reason.AMBIGUOUS_FILE, "m/either.wav"),
    ],
}


def audit(content: dict[str, list], check_result) -> None:
    with TestPipeline(runner="FnApiRunner") as pipeline:
        inputs = AuditInputs(
            **{
                name: pipeline | name >> beam.Create(rows)
                for name, rows in content.items()
            }
        )
        # The parts may be as many as there are bundles.
        assert_that(inputs | Audit(), lambda parts: check_result([merge(parts)]))


def test_every_input_is_found_in_one_place():
    counts = {
        "tracks": 10,
        "files": 13,
        "files_not_wanted": 1,
        "files_not_audio": 1,
        "clips": 3,
        "artists": 3,
        "artists_in_several_splits": 0,
        "audio": 3,
        "audio_in_several_splits": 0,
        "audio_with_several_ids": 0,
        "audio_with_several_genres": 0,
    }
    audit(WHOLE, equal_to([AuditResult(counts=counts)]))


def test_nothing_is_whole_too():
    audit({name: [] for name in WHOLE}, equal_to([AuditResult(counts={})]))


def audit_here(content: dict[str, list]) -> AuditResult:
    """The same without a runner."""
    entries = collections.defaultdict(list)
    for pairs in (
        *map(enter_track, content["tracks"]),
        [(f"file:{path}", "input") for path in content["files"]],
        [(f"file:{path}", "not wanted") for path in content["not_wanted"]],
        [(f"file:{path}", "not audio") for path in content["not_audio"]],
        [enter_label(*label) for label in content["labels"]],
        *map(enter_clip, content["clips"]),
        *map(enter_reject, content["rejects"]),
    ):
        for key, entry in pairs:
            entries[key].append(entry)
    return merge(itertools.starmap(check, entries.items()))


def without(name: str, index: int) -> dict[str, list]:
    rows = list(WHOLE[name])
    del rows[index]
    return WHOLE | {name: rows}


def plus(name: str, row: object) -> dict[str, list]:
    return WHOLE | {name: [*WHOLE[name], row]}


CASES = [
    (without("clips", 0), "track good: 1 in the inputs, 0 in the records, 0 elsewhere"),
    (without("rejects", 3), "file m/broken.mp3: 1 in the inputs, 0 in the records"),
    (without("rejects", 1), "track missing: 1 in the inputs, 0 in the records"),
    (without("rejects", 6), "file m/stray.mp3: 1 in the inputs, 0 in the records"),
    (without("not_wanted", 0), "file m/unwanted.mp3: 1 in the inputs, 0 in the reco"),
    (without("not_audio", 0), "file m/cover.jpg: 1 in the inputs, 0 in the records"),
    (without("rejects", 8), "track either: 1 in the inputs, 0 in the records"),
    (without("rejects", 9), "file m/either.flac: 1 in the inputs, 0 in the records"),
    (without("files", 0), "file m/good.mp3: 0 in the inputs, 1 in the records"),
    (without("tracks", 0), "track good: 0 in the inputs, 1 in the records"),
    (plus("clips", make_written("good")), "track good: 1 in the inputs, 2 in the reco"),
    (
        plus("rejects", make_reject("good", Reason.CORRUPT)),
        "track good: 1 in the inputs, 1 in the records, 1 elsewhere",
    ),
]


@pytest.mark.parametrize(("content", "problem"), CASES)
def test_what_is_lost_or_doubled_is_named(content, problem):
    assert audit_here(WHOLE).problems == ()
    problems = audit_here(content).problems
    assert [text for text in problems if text.startswith(problem)], problems


def test_a_swap_of_two_ids_is_seen():
    """As many inputs as outputs are not enough."""
    clips = [dataclasses.replace(WHOLE["clips"][0], track_id="nobody")]
    found = audit_here(WHOLE | {"clips": [*clips, *WHOLE["clips"][1:]]})
    names = {problem.partition(":")[0] for problem in found.problems}
    assert names == {"track good", "track nobody"}


def test_no_id_is_in_the_records_and_among_the_rejects():
    """Unless a second row of it is the reject."""
    assert check("track:x", ["input", "input", "clip", "reject"]).problems == ()
    assert check("track:x", ["input", "input", "reject", "reject"]).problems == ()
    assert check("track:x", ["input", "clip", "reject"]).problems != ()
    assert check("track:x", ["input", "input", "clip", "clip"]).problems != ()
    assert check("file:x", ["input", "clip", "reject"]).problems != ()


@pytest.mark.parametrize(
    "reject",
    [
        make_reject("good", Reason.MISSING, "other.mp3"),
        make_reject("good", Reason.AMBIGUOUS_ROW, "other.mp3"),
        make_reject("good", Reason.NO_GENRE, "m/other.mp3"),
        make_reject("good", Reason.CORRUPT, "m/other.mp3"),
    ],
)
def test_one_of_two_rows_of_an_id_may_be_a_reject(reject):
    files = [reject.path] if reject.path.startswith("m/") else []
    found = audit_here(
        WHOLE
        | {
            "tracks": [*WHOLE["tracks"], make_track("good", key="other")],
            "files": [*WHOLE["files"], *files],
            "rejects": [*WHOLE["rejects"], reject],
        }
    )
    assert found.problems == ()


def test_leaks_are_counted_and_named():
    found = check("artist:a:b", ["training:", "test:", "training:"])
    assert found.artists == ("a:b",)
    assert found.counts["artists_in_several_splits"] == 1
    found = check("audio:x", ["training:t:1", "test:t2", "training:t3"])
    assert found.audio == ("t2 (test), t3 (training), t:1 (training)",)
    assert found.counts["audio_with_several_ids"] == 1
    found = check("audio:x", ["training:t1", "training:t2"])
    assert found.audio == ()
    assert found.counts["audio_in_several_splits"] == 0
    assert found.counts["audio_with_several_ids"] == 1


def test_a_recording_under_several_genres_is_named():
    labels = [("s", "Pop", "t3"), ("s", "Pop", "t1"), ("s", "Disco", "t2")]
    found = audit_here(WHOLE | {"labels": [*labels, ("other", "Pop", "t4")]})
    assert found.labels == ("t2 (Disco), t1 (Pop)",)
    assert found.counts["audio_with_several_genres"] == 1
    assert found.problems == ()


def test_names_are_few_and_do_not_depend_on_the_order():
    parts = [
        AuditResult(counts={"clips": 1}, problems=(f"p{i:02d}",), audio=(f"a{i:02d}",))
        for i in range(50)
    ]
    assert (
        merge(parts)
        == merge(reversed(parts))
        == merge([merge(parts[20:]), *parts[:20]])
    )
    assert merge(parts).counts == {"clips": 50}
    assert merge(parts).problems == tuple(f"p{i:02d}" for i in range(MAX_NAMED))
