"""What a job says about clips shorter than FMA's, and about genres without a test."""

import dataclasses
import re

from pipeline.job.report import make_report
from pipeline.launch.messages import make_table
from pipeline.launch.plan import note_command
from tests.support.shard_reports import make_config, make_shard_report


def test_clips_that_were_repeated_are_counted_and_named():
    shard = dataclasses.replace(make_shard_report(0), seconds=[12.0, 29.9, 29.98, 240])
    report = make_report([shard], [])
    assert report["repeated"] == 1
    assert report["seconds"]["count"] == 4
    assert f"1 of {report['clips']} clips are shorter than 30 s" in make_table(report)
    whole = make_report([dataclasses.replace(shard, seconds=[29.98])], [])
    assert "shorter than 30 s" not in make_table(whole)


def test_genres_without_a_test_clip_are_named():
    shard = make_shard_report(0)
    clips = {("training", "Folk"): 3, ("training", "Rock"): 3, ("test", "Rock"): 1}
    shard = dataclasses.replace(shard, clips=clips)
    table = make_table(make_report([shard], []))
    assert "No test clip of Folk: with so few clips" in table
    clips = {("training", "Folk"): 3, ("training", "Rock"): 3}
    shard = dataclasses.replace(shard, clips=clips)
    table = make_table(make_report([shard], []))
    assert "No test clip of any genre: with so few clips" in table


def test_genres_stay_on_their_line():
    shard = make_shard_report(0)
    for clips in (
        {("training", "a\x1b[2J\nb"): 3},
        {("test", "a\x1b[2J\nb"): 3, ("training", "Rock"): 3},
        {("training", "a\x1b[2J\nb"): 3, ("training", "Rock"): 3, ("test", "Rock"): 1},
    ):
        report = make_report([dataclasses.replace(shard, clips=clips)], [])
        table = make_table(report)
        assert "\x1b" not in table
        assert len(re.findall(r"a\\x1b\[2J\\nb", table)) == 2


def test_the_command_can_be_typed_again():
    noted = note_command(make_config("out"), ["--audio", "my music/**", "--output=out"])
    assert noted.command == (
        "./launch.sh preprocess --audio 'my music/**' --output=out"
    )
