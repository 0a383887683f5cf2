import time

import pytest

from pipeline.inputs.nearest import NearestFile

NAMES = [
    "rock/Bj\u00f6rk - Army of Me.mp3",
    "rock/queen.mp3",
    "jazz/01 - Take Five.wav",
]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("rock/bj\u00f6rk_army_of_me.mp3", NAMES[0]),
        ("rock/Bjork - Army of Me.mp3", NAMES[0]),
        ("rock/qeen.mp3", NAMES[1]),
        ("Queen.wav", NAMES[1]),
        ("jazz\\01 - take five", NAMES[2]),
        ("C:\\music\\queen.mp3", NAMES[1]),
        ("rock/nothing like it.mp3", None),
        ("pop/abba.mp3", None),
    ],
)
def test_finds_what_was_meant(row, name):
    assert NearestFile(NAMES).find(row) == name


def test_many_rows_and_files_take_little_time():
    nearest = NearestFile(f"all/{number:06d}.mp3" for number in range(50_000))
    started = time.process_time()
    for number in range(1000):
        nearest.find(f"all/x{number:06d}.mp3")
    assert time.process_time() - started < 20
