"""Records held against what librosa makes of the files."""

import json

import numpy as np
import pytest
import soundfile

from pipeline import preprocess
from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
from pipeline.decoding.waveform import Waveform, fit_clip
from pipeline.inspect import __main__ as inspect
from pipeline.inspect import reading, recompute
from pipeline.representations import compute_representations
from pipeline.representations.spectrum import Workspace
from tests.support.corpora import write_csv

NAMES = ("windows", "mel", "features", "statistics")


def make_music(seconds: float, hertz: float) -> np.ndarray:
    """Three notes with overtones, one after the other, and noise."""
    random = np.random.default_rng(int(hertz))
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    note = hertz * 2 ** (np.floor(time) % 3 / 4)
    waves = sum(np.sin(2 * np.pi * k * note * time) / k for k in (1, 2, 3, 5))
    return (0.2 * waves + random.normal(0, 0.01, len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of three clips, one of them from the middle of a long MP3."""
    folder = tmp_path_factory.mktemp("recompute")
    (folder / "audio").mkdir()
    rows = []
    for track, (seconds, kind) in enumerate(((30, "wav"), (8, "wav"), (60, "mp3"))):
        music = make_music(seconds, 200 + 30 * track)
        name = f"{track}.{kind}"
        soundfile.write(
            folder / "audio" / name,
            music,
            SAMPLE_RATE,
            # A constant bit rate: the middle is found without the rest.
            **({"bitrate_mode": "CONSTANT"} if kind == "mp3" else {}),
        )
        row = {"path": name, "genre": "AB"[track // 2], "track_id": track}
        rows.append(row | {"split": "training"})
    write_csv(folder / "tracks.csv", rows)
    flags = [f"--audio={folder}/audio", f"--metadata={folder}/tracks.csv"]
    flags += [f"--output={folder}/out", "--num_shards=1", "--representations", *NAMES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.shards.shard.WHOLE_FILE_BYTES", 200_000)
        assert preprocess.main(flags) == 0
        yield folder / "out", folder / "audio"


@pytest.fixture
def clips(made):
    """The list of clips, to be changed; it is put back."""
    [path] = (made[0] / "clips").iterdir()
    before = path.read_text()

    def change(**values):
        rows = [json.loads(line) | values for line in before.splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return rows

    yield change
    path.write_text(before)


@pytest.mark.parametrize("seconds", [2, 30])
@pytest.mark.parametrize("channels", ["statistics", "repeat"])
@pytest.mark.parametrize("images", [1, 3])
def test_librosa_makes_the_same(seconds, channels, images):
    samples, length = fit_clip(make_music(seconds, 220), SAMPLE_RATE)
    waveform = Waveform(
        samples=samples, length=length, decoder="none", seconds=length / SAMPLE_RATE
    )
    config = ClipConfig(mel_images_per_clip=images, mel_channels=channels)
    ours = compute_representations(
        samples, ["windows", "mel"], config, Workspace(), length=length
    )
    theirs = recompute.compute(waveform, ["windows", "mel"], config)
    np.testing.assert_array_equal(ours["windows"], theirs["windows"])
    difference = np.abs(ours["mel"].astype(int) - theirs["mel"])
    assert difference.max() <= 1
    assert np.mean(difference) < 0.01


def test_records_are_what_librosa_makes_of_the_files(made, capsys):
    assert inspect.main([str(made[0]), "--recompute", "3"]) == 0
    printed = capsys.readouterr().out
    assert "3 clips made anew from the audio." in printed
    table = printed.split("of librosa's")[1].splitlines()[2:]
    largest = {name: float(value) for name, _, _, value, *_ in map(str.split, table)}
    assert largest.keys() == set(NAMES)
    assert largest["windows"] == 0
    assert largest["mel"] <= 1
    assert max(largest["features"], largest["statistics"]) < 0.05


def test_a_clip_under_another_ones_label(made, clips, capsys):
    rows = clips()
    clips(path=rows[0]["path"], audio=rows[0]["audio"])
    assert inspect.main([str(made[0]), "--recompute", "3"]) == 1
    wrong = capsys.readouterr().out.split("Wrong:")[1]
    for row in rows[1:]:
        for name in NAMES:
            assert (
                f"{rows[0]['path']}: the {name} of clip {row['track_id']} are not what "
                "librosa makes of it"
            ) in wrong
    assert f"clip {rows[0]['track_id']} " not in wrong


def test_files_that_are_gone_or_others(made, clips, tmp_path, capsys):
    gone = tmp_path / "gone.wav"
    clips(path=str(gone))
    assert inspect.main([str(made[0]), "--recompute", "1"]) == 1
    assert f"{gone} cannot be read" in capsys.readouterr().out
    soundfile.write(gone, make_music(9, 700), SAMPLE_RATE)
    assert inspect.main([str(made[0]), "--recompute", "1"]) == 1
    assert f"{gone} does not hold the audio that clip" in capsys.readouterr().out


def test_a_clip_without_records(made, clips, capsys):
    clips(track_id="9")
    assert inspect.main([str(made[0]), "--recompute", "1"]) == 1
    wrong = capsys.readouterr().out.split("Wrong:")[1]
    assert "0.wav: the dataset has no features and no mel and no" in wrong


def test_records_that_are_no_numbers(made, monkeypatch, capsys):
    read = reading.read_chosen

    def spoil(folder, manifest, name, clips):
        values = read(folder, manifest, name, clips)
        if name != "mel":
            values = {track: value * np.nan for track, value in values.items()}
        return values

    monkeypatch.setattr(reading, "read_chosen", spoil)
    assert inspect.main([str(made[0]), "--recompute", "1"]) == 1
    wrong = capsys.readouterr().out.split("Wrong:")[1]
    for name in ("windows", "features", "statistics"):
        assert f"the {name} of clip 0 are not what librosa makes of it" in wrong


def test_a_number_below_one(made, capsys):
    assert inspect.main([str(made[0]), "--recompute", "0"]) == 2
    assert "--recompute must be 1 or more. Received: 0" in capsys.readouterr().err
