import pytest

from pipeline import preprocess, show
from pipeline.inputs.join import AudioFile
from pipeline.launch import estimate
from pipeline.representations import NAMES
from tests.support.corpora import write_csv, write_plain_corpus, write_tone

SAMPLE = estimate.Sample(
    clips=3,
    rejects=1,
    cpu_seconds=0.1,
    embedding_seconds=0.0,
    record_bytes={"mel": 150_000.0},
)


def test_extrapolates_time_size_and_price():
    files = [AudioFile(f"{i}.mp3", 1000) for i in range(400)]
    prices = estimate.Prices()
    found = estimate.extrapolate(files, SAMPLE, prices)
    assert found.clips == 400
    assert found.bytes_in == 400_000
    assert found.bytes_out == {"mel": pytest.approx(300 * 150_000)}
    assert found.cpu_seconds == pytest.approx(40 * estimate.JOB_OVERHEAD)
    one, two, *_ = found.runs
    assert (one.workers, two.workers) == (1, 2)
    half = (one.local_seconds - estimate.LOCAL_START) / 2
    assert two.local_seconds == pytest.approx(half + estimate.LOCAL_START)
    hours = two.dataflow_seconds / 3600
    assert two.dollars == pytest.approx(2 * hours * prices.worker_hour)


THREE = ("windows", "mel", "features")
FOUR = (*THREE, "statistics")
FIVE = (*FOUR, "embeddings")
GIB = 1 << 30


@pytest.mark.parametrize(
    ("names", "cores", "few", "many"),
    [
        # What costs little is made in one process for longer.
        (THREE, 2, 1000, 2500),
        (FOUR, 2, 150, 300),
        (FIVE, 2, 80, 193),
        # Many cores make up for the start of workers soon.
        (THREE, 16, 100, 250),
        (FIVE, 16, 40, 80),
    ],
)
def test_workers_are_worth_their_start(names, cores, few, many):
    def choose(clips, memory=64 * GIB, cores=cores):
        return estimate.choose_workers(clips, names, cores, memory)

    assert choose(few) == 1
    assert choose(many) == cores
    assert choose(1_000_000, cores=1) == 1


@pytest.mark.parametrize(
    ("names", "memory", "expected"),
    [
        (FOUR, 1 * GIB, 1),
        (FOUR, 2 * GIB, 4),
        # A network a worker.
        (FIVE, 2 * GIB, 2),
        (FIVE, 1.5 * GIB, 1),
        (FIVE, 64 * GIB, 16),
        (FIVE, 0, 1),
        (FIVE, -1 * GIB, 1),
    ],
)
def test_workers_find_memory(names, memory, expected):
    assert estimate.choose_workers(100_000, names, 16, int(memory)) == expected


def test_every_representation_has_its_time():
    assert set(estimate.COMPUTING_SECONDS) == set(NAMES)


def test_spreads_over_all_files():
    files = [AudioFile(str(i), i) for i in range(100)]
    assert [file.size for file in estimate.spread(files, 4)] == [0, 25, 50, 75]
    assert estimate.spread(files[:2], 4) == files[:2]


def test_estimate_measures_and_writes_nothing(tmp_path, capsys):
    glob, metadata = write_plain_corpus(tmp_path, clips=3)
    (tmp_path / "audio" / "1.wav").write_bytes(b"not audio")
    before = sorted(tmp_path.rglob("*"))
    code = preprocess.main([f"--audio={glob}", f"--metadata={metadata}", "--estimate"])
    assert code == 0
    assert sorted(tmp_path.rglob("*")) == before
    text = capsys.readouterr().out
    assert "2 clips measured" in text
    assert "1 file not usable" in text
    assert "features to write" in text
    assert "US$ per 1,000 clips" in text


def test_estimate_refuses_audio_without_tracks(tmp_path, capsys):
    write_tone(tmp_path / "a.wav", 440)
    write_csv(tmp_path / "t.csv", [{"path": "other.wav", "genre": "Low"}])
    arguments = [f"--audio={tmp_path}/*.wav", f"--metadata={tmp_path}/t.csv"]
    assert preprocess.main([*arguments, "--estimate"]) == 2
    assert "No file of --audio belongs to a wanted track" in capsys.readouterr().err


def test_show_draws_a_picture(tmp_path):
    tone = write_tone(tmp_path / "a.wav", 440)
    picture = tmp_path / "clip.png"
    assert show.main([str(tone), f"--output={picture}"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", [None, b"not audio"])
def test_show_refuses_what_is_no_audio(tmp_path, capsys, content):
    path = tmp_path / "a.mp3"
    if content is not None:
        path.write_bytes(content)
    assert show.main([str(path), f"--output={tmp_path}/clip.png"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "Traceback" not in error
