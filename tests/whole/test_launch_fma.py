"""`./launch.sh fma`: which commands it runs, with what runs them replaced."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "launch.sh"
#: Everything but the last line, which runs it; commands say what they are called with.
HARNESS = """
source <(sed '$d' "$0")
fma() { echo "$@"; }
python() { echo "$@"; }
python=echo
"""


def run(tmp_path, *arguments, code=0):
    done = subprocess.run(
        ["bash", "-c", HARNESS + 'run_fma "$@"', SCRIPT, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done


def commands(done):
    known = ("download", "preprocess", "train", "baselines", "compare")
    lines = done.stdout.splitlines()
    return [line for line in lines if line.startswith(known) and " --" in line]


PREPROCESS = (
    "preprocess --audio {0}/fma_small.zip --metadata {0}/fma_metadata.zip --subset "
    "small --num_shards 32 "
    "--description Free Music Archive, fma_small --output run/dataset"
)


def make_dataset(tmp_path):
    """What preprocessing leaves, as far as the script looks at it."""
    for name in ("windows", "mel", "features", "statistics"):
        (tmp_path / "run" / "dataset" / name).mkdir(parents=True)


def test_one_command_is_all_steps(tmp_path):
    make_dataset(tmp_path)
    done = run(tmp_path, "--subset", "small", "--output=run")
    assert commands(done) == [
        "download --subset small --output run --whole_run",
        PREPROCESS.format("run/download"),
        *(
            f"train --data run/dataset --model {name} --output run/models/{name}"
            for name in ("windows", "mel", "features", "statistics")
        ),
        "baselines --data run/dataset --output run/models --representation statistics "
        "features",
        "compare --models run/models --output run --data run/dataset --audio "
        "run/download/fma_small.zip",
    ]
    assert "== 4/4 FMA, small: compare" in done.stdout
    assert done.stdout.endswith(
        "\naudio    run/download/fma_small.zip\ndataset  run/dataset\n"
        "models   run/models\nreport   run/report.html (./launch.sh report run)\n\n"
        "Try a model:\n  ./launch.sh predict --model run/models "
        "some-song.mp3\n"
    )


def test_what_is_done_stays(tmp_path):
    models = tmp_path / "run" / "models"
    make_dataset(tmp_path)
    (tmp_path / "run" / "dataset" / "COMPLETED").touch()
    os.utime(tmp_path / "run" / "dataset" / "COMPLETED", (1, 1))
    (models / "mel").mkdir(parents=True)
    (models / "mel" / "report.json").touch()
    done = run(tmp_path, "--subset", "small", "--output", "run")
    assert "run/dataset is complete." in done.stdout
    assert "run/models/mel is trained." in done.stdout
    assert [line.split()[0] for line in commands(done)] == [
        *("download", "train", "train", "train", "baselines", "compare")
    ]


def test_a_step_alone_and_a_folder_of_zips(tmp_path):
    (tmp_path / "zips").mkdir()
    flags = ["--subset", "small", "--output", "run", "--mirror", "zips"]
    done = run(tmp_path, "preprocess", *flags)
    assert commands(done) == [PREPROCESS.format("zips")]
    assert "== 1/1 FMA, small: preprocess" in done.stdout
    [first, *_] = commands(run(tmp_path, *flags))
    assert first.endswith("--whole_run --mirror zips")
    done = run(tmp_path, "download", "--subset", "small", "--timeout", "9")
    assert done.stdout.endswith("download --subset small --timeout 9\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--subset must be small, medium, large or full. Received: \n"),
        (["--subset", "tiny"], "large or full. Received: tiny"),
        (["--subset"], "--subset needs a value"),
        (["upload", "--subset", "small"], "unknown option; see ./launch.sh. Rec"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, arguments, message):
    done = run(tmp_path, *arguments, code=2)
    assert message in done.stderr
    assert not commands(done)
