"""A slice of the campaign, and the campaign's own bookkeeping.

All of it: `python -m tests.whole.campaigns.fuzz --files 3000 --seed 1`.
"""

import collections
import dataclasses
import json
import sys

import numpy as np
import pytest

from pipeline.common.rejects import Reason
from tests.whole.campaigns import fuzz, mutations

#: Of another seed than the documented campaign.
SEED, FILES = 2, 60


@pytest.fixture(scope="module")
def tester(tmp_path_factory):
    return fuzz.Tester(SEED, tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def outcomes(tester):
    return [tester.test(number) for number in range(FILES)]


def test_every_file_is_good_or_has_a_reason(outcomes):
    accepted = {"good", "altered"}
    for outcome in outcomes:
        assert outcome.verdict in accepted | {reason.value for reason in Reason}
        assert (outcome.message == "") == (outcome.verdict in accepted)
    verdicts = collections.Counter(outcome.verdict for outcome in outcomes)
    # The slice shows both, and reasons of several kinds.
    assert verdicts["good"] > 5
    assert len(verdicts) > 4


def test_what_is_not_damaged_is_good(tester):
    for base, data in tester._bases.items():
        if not base.startswith("silent"):
            tester._file.write_bytes(data)
            assert tester._compare(base, tester._sounds[base]) == "good"


def test_where_there_are_checksums_no_damage_passes(outcomes):
    checked = ("mp3", "flac", "ogg")
    damages = ("make_hole", "flip_bits", "lose_bytes")
    for outcome in outcomes:
        # Of a longer file, only a part is used.
        unchecked = "bare" in outcome.base or "long" in outcome.base
        if outcome.base.startswith(checked) and not unchecked:
            assert outcome.mutation not in damages or outcome.verdict != "altered"


def test_a_file_can_be_made_again(tester):
    for number in range(20):
        one = mutations.choose(SEED, number, tester._bases)
        assert mutations.choose(SEED, number, tester._bases) == one
    different = mutations.choose(SEED + 1, 0, tester._bases)
    assert different[2] != mutations.choose(SEED, 0, tester._bases)[2]


def test_likeness_finds_a_shift_and_a_difference():
    rng = np.random.default_rng(0)
    sound = rng.standard_normal(50_000).astype(np.float32)
    assert fuzz.find_likeness(sound, sound) == pytest.approx(1)
    assert fuzz.find_likeness(sound[1_000:], sound[:-1_000]) > 0.97
    assert fuzz.find_likeness(sound, sound[::-1]) < 0.5
    assert fuzz.find_likeness(sound, np.zeros_like(sound)) == 0


WORKER = """
import json, os, signal, sys, time
for number in range({}, 6):
    print(json.dumps({{"begins": number}}), flush=True)
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 2:
        raise ZeroDivisionError
    if number == 4:
        time.sleep(600)
    print(json.dumps({{"number": number, "base": "b", "mutation": "m",
                       "verdict": "good", "seconds": 0.1, "memory": 5}}), flush=True)
"""


def test_workers_that_crash_or_hang_cost_a_file_each(monkeypatch):
    def make_command(seed, left):
        return [sys.executable, "-c", WORKER.format(left[0])]

    monkeypatch.setattr(fuzz, "make_command", make_command)
    monkeypatch.setattr(fuzz, "TIME_LIMIT", 3.0)
    outcomes = fuzz.run(seed=1, files=6, workers=1)
    verdicts = [outcome.verdict for outcome in outcomes]
    assert verdicts == ["good", "CRASH", "ERROR", "good", "HANG", "good"]
    assert "ZeroDivisionError" in outcomes[2].message
    text = fuzz.describe(outcomes)
    assert "6 files; 3 crashed, hung, raised an error or gave absurd records." in text


def test_the_command_fails_when_a_file_does(monkeypatch, tmp_path, capsys):
    outcome = fuzz.Outcome(number=0, base="b", mutation="m", verdict="good", memory=1)
    bad = dataclasses.replace(outcome, number=1, verdict="ABSURD")
    for outcomes, code in (([outcome], 0), ([outcome, bad], 1)):
        monkeypatch.setattr(fuzz, "run", lambda *_, found=outcomes: found)
        output = tmp_path / "outcomes"
        assert fuzz.main(["--files", "2", "--output", str(output)]) == code
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row["verdict"] for row in rows] == [o.verdict for o in outcomes]
    capsys.readouterr()
