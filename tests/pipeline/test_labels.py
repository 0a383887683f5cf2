"""Audio, rows and labels from the command line to the dataset and its inspection."""

import json
import shutil

import pytest

from pipeline import preprocess
from pipeline.inspect import __main__ as inspect
from tests.support.corpora import write_tone

ONE_PROCESS = ("--direct_running_mode=in_memory", "--direct_num_workers=1")


def run(*arguments: object) -> int:
    options = ["--representations", "mel", "--num_shards", "1", *ONE_PROCESS]
    return preprocess.main([*map(str, arguments), *options])


def read_lines(folder, pattern: str) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(folder.glob(pattern))
        for line in path.read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Contradictions of all kinds, a link to nothing, and files that are no audio."""
    folder = tmp_path_factory.mktemp("corpus")
    music = folder / "music"
    for name, hertz in (("disco.wav", 300), ("rock.wav", 400), ("x.wav", 500)):
        write_tone(music / name, hertz)
    shutil.copy(music / "disco.wav", music / "pop.wav")
    shutil.copy(music / "disco.wav", music / "tested.wav")
    write_tone(folder / "store" / "linked.wav", 600)
    (music / "folder").symlink_to("../store")
    (music / "gone.wav").symlink_to("../gone.wav")
    (music / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    rows = (
        "disco.wav,disco,training pop.wav,pop,training tested.wav,techno,test "
        "rock.wav,rock,validation folder/linked.wav,pop,training gone.wav,rock,test "
        "x.wav,nan,training x.wav,nan,training misssing.wav,rock,test "
        "rock.wav,pop,validation"
    )
    text = "path,genre,split\n" + rows.replace(" ", "\n") + "\n"
    (folder / "t.csv").write_text(text)
    return folder


def test_what_contradicts_is_told_and_the_job_goes_on(corpus, capsys, monkeypatch):
    monkeypatch.chdir(corpus)
    assert run("--audio", "music", "--metadata", "t.csv", "--output", "out") == 0
    out = capsys.readouterr().out
    for line in (
        "7 audio files (and 1 other), 10 wanted tracks; 5 clips to process",
        "1 tracks find no file; they will be rejected.",
        "2 tracks have a genre such as nan, which stands for nothing; they will be "
        "rejected.",
        "The metadata gives several genres to the same file: rock.wav (pop, rock); one "
        "row of each is used.",
        "No training clip of techno: a model cannot learn what it never hears.",
        "No test clip of pop: with so few clips",
        "The same recording is there under several genres: disco (disco), pop (pop), "
        "tested (techno).",
        "8 files are 3 clips, ",
        "0 unwanted files; 1 more are no audio.",
        "No clip of disco, rock could be used: see the rejects.",
    ):
        assert line in out, line
    manifest = json.loads((corpus / "out" / "manifest.json").read_text())
    assert manifest["inputs"]["files_not_audio"] == 1
    assert manifest["integrity"]["audio_with_several_genres"] == 1
    rejects = {
        (reject["reason"], reject["path"])
        for reject in read_lines(corpus / "out", "rejects*.jsonl")
    }
    assert rejects == {
        ("duplicate_audio", "music/disco.wav"),
        ("duplicate_audio", "music/pop.wav"),
        ("duplicate_row", "rock.wav"),
        ("duplicate_row", "x.wav"),
        ("missing", "misssing.wav"),
        ("no_genre", "music/x.wav"),
        ("unreadable", "music/gone.wav"),
    }


def test_verification_names_labels_that_contradict(corpus, capsys, monkeypatch):
    monkeypatch.chdir(corpus)
    rows = "disco.wav,disco\npop.wav,pop\nrock.wav,rock\n"
    (corpus / "two.csv").write_text("path,genre\n" + rows)
    arguments = "--audio", "music/*.wav", "--metadata", "two.csv", "--output", "two"
    assert run(*arguments, "--split", "hash", "--split_percent", "100,0,0") == 0
    assert inspect.main(["two", "--verify"]) == 0
    out = capsys.readouterr().out
    assert (
        "The same recording is there under several genres: disco (disco), pop (pop)."
    ) in out.partition("Verified: ")[2]


def test_one_genre_and_an_unquoted_glob_are_sentences(corpus, capsys, monkeypatch):
    monkeypatch.chdir(corpus)
    (corpus / "one.csv").write_text("path,genre\nrock.wav,rock\nx.wav,rock\n")
    flags = "--metadata", "one.csv", "--output", "one"
    assert run("--audio", "music", *flags, "music/x.wav", "music/rock.wav") == 2
    error = capsys.readouterr().err
    assert "only --audio takes several files; put a glob for another" in error
    assert "Received: music/x.wav music/rock.wav" in error
    split = "--split", "hash", "--split_percent", "100,0,0"
    assert run("--audio", f"{corpus}/music/**.WAV", *flags, *split) == 0
    assert "All clips are of one genre, rock: " in capsys.readouterr().out


def test_kept_wavs_of_one_stem_do_not_meet(corpus, tmp_path, capsys):
    """And a later run finds them by the same rows, with the same ids."""
    write_tone(tmp_path / "music" / "a.flac", 300)
    write_tone(tmp_path / "music" / "a.wav", 700)
    write_tone(tmp_path / "music" / "b.flac", 800)
    (tmp_path / "t.csv").write_text("path,genre\na.flac,R\na.wav,J\nb.flac,J\n")
    flags = "--metadata", tmp_path / "t.csv", "--split", "hash"
    flags += "--split_percent", "100,0,0"
    wavs = tmp_path / "wavs"
    audio = "--audio", tmp_path / "music"
    assert run(*audio, "--output", tmp_path / "1", "--wav_output", wavs, *flags) == 0
    names = sorted(path.name for path in wavs.glob("*.wav"))
    assert names == ["a.flac.wav", "a.wav.wav", "b.wav"]
    assert run("--audio", wavs, "--output", tmp_path / "2", *flags) == 0
    first, second = (
        [(c["track_id"], c["genre"], c["audio"]) for c in read_lines(folder, "clips/*")]
        for folder in (tmp_path / "1", tmp_path / "2")
    )
    assert first == second
    assert [row[:2] for row in first] == [("a.flac", "R"), ("a.wav", "J"), ("b", "J")]
