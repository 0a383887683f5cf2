"""What the benchmarks make of their measurements; and that they run."""

import json
from pathlib import Path

import pytest

from benchmarks import input as input_benchmark
from benchmarks import paths, run
from benchmarks.jobs import JobTimes
from pipeline.demo.layout import plan_layout

MIB = 2**20


def make_times(clips: int, wall: float, cpu: float, peak: int = 1_000) -> JobTimes:
    return JobTimes(
        clips=clips, wall=wall, cpu=cpu, runner_cpu=1.0, peak_rss=[peak * MIB, MIB]
    )


def make_jobs(mode: str, *, wall: float, cpu: float) -> dict[str, list[JobTimes]]:
    """Two rounds of 100 and 300 clips, after ten seconds of start-up."""
    return {
        f"{mode}, {size}": [
            make_times(clips, 10 + clips * wall / 1000, 10 + clips * cpu / 1000)
            for _ in range(2)
        ]
        for size, clips in (("small", 100), ("large", 300))
    }


def test_start_up_is_subtracted_from_a_job():
    jobs = make_jobs("2 workers", wall=40, cpu=76)
    cost = run.summarise_jobs(jobs, "2 workers")
    assert cost.wall == pytest.approx(40)
    assert cost.cpu == pytest.approx(76)
    assert cost.busy_cores == pytest.approx(1.9)
    assert cost.large_to_small == pytest.approx(22 / 14)
    assert cost.peaks == (1_000 * MIB, 1_000 * MIB)


@pytest.mark.parametrize(("slower", "reached"), [(1.0, {"yes"}), (10.0, {"yes", "NO"})])
def test_goals(slower, reached):
    ways = {
        "pipeline: three representations": 60.0 * slower,
        "pipeline: statistics": 200.0 * slower,
        "notebook: five loads": 500.0,
        "librosa: one load, one STFT": 210.0,
        "librosa: 518 statistics": 900.0,
        "floor: decode and one FFT pass": 40.0,
    }
    jobs = (
        make_jobs("one process", wall=70 * slower, cpu=70 * slower)
        | make_jobs("2 workers", wall=38, cpu=74 * slower)
        | make_jobs(run.STORE, wall=40, cpu=76)
    )
    costs = {"a clip's records": 65.0, "tft analysis": 1.0}
    rows = {row[0]: row[1:] for row in run.make_rows(ways, jobs, costs)}
    assert {row[-1] for row in rows.values()} == reached
    if slower == 1:
        assert rows["three representations / floor"] == ["<= 1.6", "1.50", "yes"]
        assert rows["one process / 2 workers, wall"] == [">= 1.8", "1.84", "yes"]
    assert len(run.make_rows(ways, {}, {})) == 4


def test_times_are_medians_over_rounds_that_alternate():
    order = []
    calls = {name: (lambda n=name: order.append(n)) for name in "ab"}
    found = run.time_interleaved(calls, 3)
    assert order == list("ab" * 4)  # The first calls warm up.
    assert set(found) == {"a", "b"}


def test_the_functions_are_measured_and_drawn(tmp_path, music_mp3, capsys):
    (tmp_path / "clip.mp3").write_bytes(music_mp3)
    arguments = ["--audio", str(tmp_path / "clip.mp3"), "--rounds", "1"]
    arguments += ["--clips", "1", "2", "--no_jobs", "--scratch", str(tmp_path)]
    assert run.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert "notebook / three representations" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert all(value > 0 for value in results["ways"].values())
    assert all(value > 0 for value in results["stages"].values())
    for name in ("ways.png", "stages.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp3", "out"]


def test_the_demo_lends_a_clip_of_each_genre(tmp_path, monkeypatch):
    assert run.find_sources(tmp_path, ["a.mp3"]) == [Path("a.mp3")]
    found = []
    monkeypatch.setattr(run, "make_corpus", lambda c: found.extend(plan_layout(c)))
    run.find_sources(tmp_path, [])
    assert len({track.artist.genre for track in found}) == len(found) == 8


def test_the_rates_of_the_input_as_tables():
    found = {
        "limit": 1_000.0,
        "today": 1.0,
        "serial": 300.0,
        "ours, in order": 600.0,
        "ours, shuffled": 400.0,
        "serial, slow store": 20.0,
        "ours, in order, slow store": 300.0,
        "ours, shuffled, slow store": 250.0,
    }
    text = input_benchmark.make_tables({"mel": found}, {"mel": 800.0})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "mel: ours / today >= 300 400.00 yes" in lines
    assert "mel: ours in order / limit >= 0.5 0.60 yes" in lines
    assert "mel 400 800 50%" in lines


@pytest.mark.parametrize("labels", ["top", "all"])
def test_paths_without_audio_are_all_accounted_for(tmp_path, monkeypatch, labels):
    monkeypatch.setattr("pipeline.shards.shard.fetch_audio", paths.fetch_nothing)
    monkeypatch.setattr("pipeline.shards.shard.make_records", paths.make_tiny_records)
    monkeypatch.setattr("pipeline.job.make_shards.IsolatedDecoder", paths.NoDecoder)
    rows = paths.measure(1000, 4, tmp_path, labels=labels)
    assert [row[0] for row in rows] == ["imports and CSV", "plan", "job"]
