import gzip
from types import SimpleNamespace

import pytest

from pipeline.inputs.audio_files import locate_audio
from pipeline.inputs.genres import LabelRule
from pipeline.inputs.metadata import MetadataConfig
from pipeline.inputs.splits import SplitConfig
from pipeline.inputs.survey import Inputs, find_several, find_similar, inspect_inputs
from pipeline.launch.messages import describe_inputs
from pipeline.schema import UserError
from tests.support.corpora import write_csv, write_plain_corpus


def inspect(glob, metadata, **changes):
    config = MetadataConfig(path=str(metadata), folder=locate_audio(glob), **changes)
    return inspect_inputs([glob], config)


def test_counts_what_a_job_will_process(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=4)
    (tmp_path / "audio" / "3.wav").unlink()
    (tmp_path / "audio" / "stray.wav").write_bytes(b"")
    inputs = inspect(glob, metadata)
    assert inputs.genres == ("High", "Low")
    assert inputs.tracks == 4
    assert inputs.files == 4
    assert [clip.path[-5:] for clip in inputs.clips] == ["0.wav", "1.wav", "2.wav"]
    assert inputs.layout.kind == "plain"


def test_genres_select_and_order(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=4)
    assert inspect(glob, metadata, genres=("Low", "High")).genres == ("Low", "High")
    only = inspect(glob, metadata, genres=("Low",))
    assert only.tracks == len(only.clips) == 2


def test_refuses_a_glob_without_files(tmp_path):
    _, metadata = write_plain_corpus(tmp_path, clips=1)
    with pytest.raises(UserError, match=r"matches no file.*Received: .*\*\.ogg"):
        inspect(f"{tmp_path}/*.ogg", metadata)


def test_refuses_an_unknown_file_system(tmp_path):
    _, metadata = write_plain_corpus(tmp_path, clips=1)
    with pytest.raises(UserError, match=r"--audio cannot be matched.*nowhere://x"):
        inspect("nowhere://x/*.mp3", metadata)


def test_refuses_missing_and_binary_metadata(tmp_path):
    glob, _ = write_plain_corpus(tmp_path, clips=1)
    with pytest.raises(UserError, match="--metadata cannot be read"):
        inspect(glob, tmp_path / "no.csv")
    with pytest.raises(UserError, match="must be UTF-8"):
        inspect(glob, next((tmp_path / "audio").iterdir()))
    packed = tmp_path / "tracks.csv.gz"
    packed.write_bytes(gzip.compress(b"path,genre\n"))
    with pytest.raises(UserError, match="unpack it if it is compressed"):
        inspect(glob, packed)


def test_refuses_genres_nobody_has(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=2)
    with pytest.raises(UserError, match="unknown genre 'Polka'"):
        inspect(glob, metadata, genres=("Low", "Polka"))
    write_csv(metadata, [{"path": "0.wav", "genre": ""}])
    with pytest.raises(UserError, match="no track with a genre"):
        inspect(glob, metadata)


def test_artists_in_several_splits_are_counted(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=4)
    assert inspect(glob, metadata).leaking_artists == 0
    rows = [
        {"path": f"{i}.wav", "genre": "Low", "artist_id": artist, "split": split}
        for i, (artist, split) in enumerate(
            [("a", "training"), ("a", "test"), ("", "training"), ("", "test")]
        )
    ]
    write_csv(metadata, rows)
    assert inspect(glob, metadata).leaking_artists == 1


def survey(folder, rows: str, files: str, glob: str = "music", **changes) -> Inputs:
    """Surveys files without content; both in words, separated by blanks."""
    for name in files.split():
        path = folder / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "t.csv").write_text("path,genre\n" + rows.replace(" ", "\n") + "\n")
    return inspect(glob, "t.csv", **changes)


def test_counts_audio_and_what_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = survey(tmp_path, "a.wav,R b,J", "a.wav b a.jpg c.lrc d.wav")
    assert (inputs.files, inputs.other_files) == (5, 2)
    assert [clip.path for clip in inputs.clips] == ["music/a.wav", "music/b"]
    assert inputs.missing == 0


@pytest.mark.parametrize("genres", [(), ("J",)])
def test_ids_do_not_depend_on_what_is_wanted(tmp_path, monkeypatch, genres):
    monkeypatch.chdir(tmp_path)
    rows = "a.mp3,R a.wav,J b.mp3,J b.mp3,R music/c.wav,J c.wav,J"
    inputs = survey(tmp_path, rows, "x.wav", genres=genres)
    assert inputs.metadata.shared_keys == {"a", "c"}
    alone = survey(tmp_path, "a.mp3,R ./a.mp3,R music/b.wav,J", "x.wav")
    assert alone.metadata.shared_keys == frozenset()


def test_rows_without_a_file_are_counted_and_told_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "x/songg.wav,R Other.MP3,J none.wav,J there.wav,J"
    inputs = survey(tmp_path, rows, "x/song.wav y/other.mp3 there.wav")
    assert inputs.missing == 3
    assert inputs.nearest == {
        "x/songg.wav": "music/x/song.wav",
        "Other.MP3": "music/y/other.mp3",
    }


def test_what_the_metadata_can_hardly_mean_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "a.wav,nan b.wav,NaN c.wav, d.wav,R d.wav,J e.wav,R e.wav,R"
    inputs = survey(tmp_path, rows, "a.wav d.wav")
    assert inputs.without_genre == 2
    assert inputs.contradictions == ("d.wav (J, R)",)
    assert inputs.genres == ("J", "R")
    with pytest.raises(UserError, match=r"no track with a genre .*\(nan stands for no"):
        survey(tmp_path, "a.wav,nan", "a.wav")


def test_genres_that_differ_in_case_or_punctuation_are_named():
    genres = ("Hip Hop", "Hip-Hop", "Rock", "rock", "Jazz", "+", "-")
    assert find_similar(genres) == ("Hip Hop, Hip-Hop", "Rock, rock")


@pytest.mark.parametrize(
    ("genres", "expected"),
    [
        (("Jazz", "Rock;Pop"), ("Rock;Pop", ";")),
        (("Pop", "Rock|Pop"), ("Rock|Pop", "|")),
        (("Folk / Jazz", "Jazz/ rock"), ("Folk / Jazz", "/")),
        (("jazz", "Soul, Jazz"), ("Soul, Jazz", ",")),
        # Parts that are no genres elsewhere: one name.
        (("Folk, World", "Old-Time / Historic", "AC/DC", "|", "Rock|"), None),
    ],
)
def test_genres_that_name_several(genres, expected):
    assert find_several(genres, LabelRule()) == expected
    # Genres that were taken apart.
    if expected is None:
        assert find_several(genres, LabelRule(kind="all", separator="|")) is None


def test_a_separator_that_was_not_given_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = survey(tmp_path, "a.wav,Rock|Pop b.wav,Pop", "a.wav b.wav")
    job = SimpleNamespace(split=SplitConfig())
    assert describe_inputs(inputs, job).splitlines()[-1] == (
        "A genre names several (Rock|Pop); it counts as one: --labels all "
        "--genre_separator '|' takes them apart."
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"a.wav,{'R' * 1_001} b.wav,J", "A genre of --metadata has 1,001 letters"),
        (
            " ".join(f"a.wav,G{number}" for number in range(10_001)),
            "--metadata has 10,001 genres",
        ),
    ],
)
def test_genres_that_no_manifest_holds_are_refused(
    tmp_path, monkeypatch, rows, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        survey(tmp_path, rows, "a.wav b.wav")
