import dataclasses
import json
from pathlib import Path

import apache_beam as beam
import pytest
import soundfile
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import Reason, Reject
from pipeline.decoding.waveform import load_waveform
from pipeline.inputs.splits import stable_hash
from pipeline.job import make_shards
from pipeline.job.counters import METRICS
from pipeline.job.make_shards import MakeShards
from pipeline.launch.output import prepare_output
from pipeline.schema import SPLITS
from pipeline.shards.result import DatasetConfig
from pipeline.shards.shard import make_shard
from pipeline.shards.tfrecord import read_records
from tests.support.corpora import make_clip, write_tone


def test_pipeline() -> TestPipeline:
    return TestPipeline(runner="FnApiRunner")


test_pipeline.__test__ = False


@pytest.fixture(autouse=True)
def decode_here(monkeypatch) -> None:
    """Starting the process that decodes takes longer than these jobs."""

    class Decoder:
        load_waveform = staticmethod(load_waveform)

        def close(self) -> None:
            pass

    monkeypatch.setattr(make_shards, "IsolatedDecoder", Decoder)


def counters(result) -> dict[str, int]:
    query = result.metrics().query(MetricsFilter().with_namespace(METRICS))
    return {item.key.metric.name: item.result for item in query["counters"]}


def make_config(output: Path, **changes) -> DatasetConfig:
    values = {
        "output": str(output),
        "representations": ("windows", "mel"),
        "clip": ClipConfig(windows_per_clip=2),
        "genres": ("High", "Low"),
        "num_shards": 3,
    }
    config = DatasetConfig(**(values | changes))
    prepare_output(config, overwrite=True)
    return config


def begin(pipeline, clips) -> tuple:
    """What the transform starts from."""
    return pipeline | beam.Impulse(), pipeline | beam.Create(clips)


def test_make_shards_writes_every_shard_and_counts(tmp_path):
    clips = [
        make_clip(write_tone(tmp_path / f"{i}.wav", 300 + i), f"t{i}") for i in range(4)
    ]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing")
    clips.append(make_clip(broken, "t-broken"))
    output = tmp_path / "out"
    with test_pipeline() as pipeline:
        made_shards = begin(pipeline, clips) | MakeShards(config=make_config(output))
        assert_that(
            made_shards.rejects
            | "R" >> beam.Map(lambda r: (r.track_id, r.reason, r.stage)),
            equal_to([("t-broken", Reason.UNDECODABLE, "decode")]),
        )
        assert_that(
            made_shards.reports | "S" >> beam.Map(lambda r: r.shard),
            equal_to([0, 1, 2]),
            label="Reports",
        )
        assert_that(
            made_shards.moments
            | "M" >> beam.FlatMap(lambda m: [m[1]["windows"].clips] if m[1] else []),
            lambda counts: sum(counts) == 4 or pytest.fail(f"Received: {counts}"),
            label="Moments",
        )
        assert_that(
            made_shards.clips | "T" >> beam.Map(lambda c: c.track_id),
            equal_to([f"t{i}" for i in range(4)]),
            label="Clips",
        )
    assert len(list((output / "clips").iterdir())) == 3
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
            _ = begin(pipeline, ordered) | MakeShards(config=make_config(output))
        contents.append(read_dataset(output))
        assert not list((output / "_temporary").iterdir())
    assert contents[0] == contents[1]


def test_programming_errors_fail_the_job(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("a bug, not a bad file")

    monkeypatch.setattr("pipeline.shards.shard.make_records", broken)
    clip = make_clip(write_tone(tmp_path / "a.wav", 440))
    with pytest.raises(TypeError, match="a bug"), test_pipeline() as pipeline:
        _ = begin(pipeline, [clip]) | MakeShards(config=make_config(tmp_path / "out"))


def read_dataset(output: Path) -> dict[str, bytes]:
    files = sorted([*output.glob("*/*.tfrecord"), *output.glob("clips/*")])
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


def write_leaking_clips(folder: Path) -> list:
    """Nine clips; t1, t2 and t5 share audio or artist with test or validation."""
    folder.mkdir(exist_ok=True)
    paths = [write_tone(folder / f"{i}.wav", 300 + i) for i in range(9)]
    samples, rate = soundfile.read(paths[0], dtype="int16")
    soundfile.write(paths[1].with_suffix(".flac"), samples, rate)  # The same audio.
    paths[1] = paths[1].with_suffix(".flac")
    paths[7].write_bytes(paths[8].read_bytes())
    splits = {0: "test", 2: "validation", 3: "test", 6: "validation"}
    artists = {2: "a3", 3: "a3", 5: "a6", 6: "a6"}
    return [
        make_clip(
            path,
            f"t{i}",
            artist_id=artists.get(i, f"a{i}"),
            split=splits.get(i, "training"),
        )
        for i, path in enumerate(paths)
    ]


def run(clips, config, **options) -> tuple[list[Reject], list[int]]:
    """Rejects, and numbers of training clips that are pooled by shard."""
    # What checks a PCollection is pickled: files alone bring its content here.
    rejects, counts = (Path(config.output + name) for name in ("-rejects", "-counts"))
    with test_pipeline() as pipeline:
        made = begin(pipeline, clips) | MakeShards(config=config, **options)
        lines = made.rejects | "Line" >> beam.Map(lambda reject: reject.to_json())
        assert_that(lines, lambda rows: write_lines(rejects, rows))
        pooled = made.moments | "Count" >> beam.Map(count_pooled)
        assert_that(pooled, lambda rows: write_lines(counts, rows), label="Moments")
    rows = [json.loads(line) for line in rejects.read_text().splitlines()]
    return (
        [Reject.from_dict(row) for row in rows],
        [int(line) for line in counts.read_text().splitlines()],
    )


def write_lines(path: Path, rows: list) -> None:
    path.write_text("".join(f"{row}\n" for row in sorted(rows)))


def count_pooled(item) -> int:
    return item[1]["windows"].clips if "windows" in item[1] else 0


@pytest.mark.parametrize("num_shards", [1, 4])
def test_what_leaks_is_taken_out(tmp_path, num_shards):
    clips = write_leaking_clips(tmp_path / "audio")
    config = make_config(tmp_path / "out", num_shards=num_shards)
    rejects, pooled = run(clips, config)
    assert [(r.track_id, r.reason, r.stage) for r in rejects] == [
        ("t1", Reason.DUPLICATE_AUDIO, "split"),
        ("t2", Reason.ARTIST_LEAK, "split"),
        ("t5", Reason.ARTIST_LEAK, "split"),
    ]
    assert "same audio as track t0 in test" in rejects[0].message
    assert "a3, is also in test (track t3)" in rejects[1].message
    # The same as if those clips had never been there.
    gone = {reject.track_id for reject in rejects}
    rest = [clip for clip in clips if clip.track_id not in gone]
    clean = make_config(tmp_path / "clean", num_shards=num_shards)
    assert run(rest, clean) == ([], pooled)
    assert read_dataset(tmp_path / "out") == read_dataset(tmp_path / "clean")
    assert sum(pooled) == 3  # t4, t7 and t8, of which two are alike: no leak


def test_leaks_may_be_kept(tmp_path):
    clips = write_leaking_clips(tmp_path / "audio")
    rejects, pooled = run(clips, make_config(tmp_path / "out"), leaks="keep")
    assert rejects == []
    assert sum(pooled) == 5


def test_a_later_run_keeps_what_is_finished(tmp_path, monkeypatch):
    clips = write_leaking_clips(tmp_path / "audio")
    config = make_config(tmp_path / "out", num_shards=4)
    first = run(clips, config), read_dataset(tmp_path / "out")
    made = []
    original = make_shard
    monkeypatch.setattr(
        "pipeline.shards.shard.make_shard",
        lambda shard, *rest: made.append(shard) or original(shard, *rest),
    )
    assert prepare_output(config, overwrite=False) == (config, 4)
    assert (run(clips, config), read_dataset(tmp_path / "out")) == first
    # Shards that lost a clip are made anew: whether it leaks depends on the others.
    assert sorted(made) == sorted(
        {stable_hash(track) % 4 for track in ("t1", "t2", "t5")}
    )
    # Without the test clip, t1 does not leak any more.
    made.clear()
    without = [clip for clip in clips if clip.track_id != "t0"]
    prepare_output(config, overwrite=False)
    rejects, _ = run(without, config)
    assert [reject.track_id for reject in rejects] == ["t2", "t5"]
    clean = make_config(tmp_path / "clean", num_shards=4)
    run(without, clean)
    assert read_dataset(tmp_path / "out") == read_dataset(tmp_path / "clean")


def test_changed_inputs_and_options_are_never_mixed_in(tmp_path):
    clips = [
        make_clip(write_tone(tmp_path / f"{i}.wav", 300 + i), f"t{i}") for i in range(3)
    ]
    config = make_config(tmp_path / "out", representations=("mel",))
    run(clips, config)
    changed = [dataclasses.replace(clips[0], modified=5.0), *clips[1:]]
    repeated = dataclasses.replace(config, clip=ClipConfig(mel_channels="repeat"))
    for shown, (rows, variant, kept) in enumerate(
        [
            (clips, config, 3),
            (changed, config, 2),
            (clips[1:], repeated, 0),
            (clips, dataclasses.replace(config, num_shards=2), 0),
        ]
    ):
        prepare_output(variant, overwrite=False)
        with test_pipeline() as pipeline:
            made_shards = begin(pipeline, rows) | MakeShards(config=variant)
            assert_that(
                made_shards.reports | beam.Map(lambda r: r.kept),
                lambda found, kept=kept: (
                    sum(found) == kept
                    or pytest.fail(f"Received: {found}, expected {kept}")
                ),
            )
        other = dataclasses.replace(variant, output=str(tmp_path / f"fresh-{shown}"))
        prepare_output(other, overwrite=True)
        run(rows, other)
        assert read_dataset(tmp_path / "out") == read_dataset(Path(other.output))


def test_records_do_not_depend_on_the_number_of_shards(tmp_path):
    clips = write_leaking_clips(tmp_path / "audio")
    found = []
    for num_shards in (1, 2, 5):
        output = tmp_path / f"out-{num_shards}"
        run(clips, make_config(output, num_shards=num_shards))
        records = set()
        for path in output.glob("*/*.tfrecord"):
            split = path.name.partition("-")[0]
            with path.open("rb") as file:
                records |= {(path.parent.name, split, r) for r in read_records(file)}
        found.append(records)
    assert len(found[0]) == 6 * (2 + 5)  # windows and mel images
    assert found[0] == found[1] == found[2]
