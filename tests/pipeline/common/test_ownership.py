import json
import os

import pytest

from pipeline.common import ownership
from pipeline.common.files import LocalFiles, temporary_name
from pipeline.common.owned_kinds import (
    CHECKPOINTS,
    DATASET,
    DEMO,
    EXPORT,
    MARK_FILE,
    MODEL,
    PICTURE,
    TRIALS,
    WAVS,
)
from pipeline.schema import UserError

FILES = LocalFiles()
KINDS = [CHECKPOINTS, DATASET, DEMO, EXPORT, MODEL, TRIALS]
#: For each kind, a name that we give.
OURS = {
    "checkpoints": "mel-abc/head/000000000010.checkpoint",
    "dataset": "windows/training-00000-of-00002.tfrecord",
    "demo corpus": "fma_demo/000/000001.mp3",
    "export": "variables/variables.index",
    "model": "model.keras",
    "trials": "0001.json",
}


def write_files(folder, names, text="mine") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read_files(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_new_or_empty_folder_is_ours(kind, tmp_path):
    for folder in (tmp_path, tmp_path / "new"):
        ownership.check_folder(FILES, str(folder), kind)
        assert not read_files(tmp_path)
    ownership.claim(FILES, str(tmp_path / "new"), kind)
    mark = json.loads((tmp_path / "new" / MARK_FILE).read_text())
    assert mark == {"kind": kind.name, "owner": ownership.OWNER}
    ownership.claim(FILES, str(tmp_path / "new"), kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/best.ckpt", "ours"])
def test_a_folder_without_our_mark_is_somebody_elses(kind, name, tmp_path):
    write_files(tmp_path, [OURS[kind.name] if name == "ours" else name])
    before = read_files(tmp_path)
    for action in (ownership.check_folder, ownership.claim):
        with pytest.raises(UserError, match=r"nothing was changed.*Received: "):
            action(FILES, str(tmp_path), kind)
    with pytest.raises(UserError, match="nothing was deleted"):
        ownership.remove(FILES, str(tmp_path), kind)
    assert read_files(tmp_path) == before


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_strange_file_in_our_folder_is_named_and_stays(kind, tmp_path):
    ownership.claim(FILES, str(tmp_path), kind)
    write_files(tmp_path, [OURS[kind.name], "clips/song.mp3"])
    with pytest.raises(UserError, match=r"holds clips/song\.mp3"):
        ownership.check_folder(FILES, str(tmp_path), kind)
    assert ownership.remove(FILES, str(tmp_path), kind) == ["clips/song.mp3"]
    assert set(read_files(tmp_path)) == {MARK_FILE, "clips/song.mp3"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_ours_goes_with_its_folders(kind, tmp_path):
    folder = tmp_path / "ours"
    ownership.claim(FILES, str(folder), kind)
    write_files(folder, [OURS[kind.name], temporary_name("model.keras")])
    ownership.check_folder(FILES, str(folder), kind)
    assert ownership.remove(FILES, str(folder), kind) == []
    assert not read_files(tmp_path)


def test_a_mark_is_for_one_kind(tmp_path):
    ownership.claim(FILES, str(tmp_path), MODEL)
    with pytest.raises(UserError, match=MARK_FILE):
        ownership.check_folder(FILES, str(tmp_path), DATASET)


@pytest.mark.parametrize(
    "mark", ["", "[]", "{}", "[" * 100_000, '{"owner": 3}', "\xff"]
)
def test_a_damaged_mark_marks_nothing(mark, tmp_path):
    (tmp_path / MARK_FILE).write_bytes(mark.encode("latin-1"))
    write_files(tmp_path, ["model.keras"])
    with pytest.raises(UserError):
        ownership.claim(FILES, str(tmp_path), MODEL)


def test_folders_from_before_there_were_marks_prove_whose_they_are(tmp_path):
    names = ["windows/test-00000-of-00001.tfrecord", "COMPLETED"]
    write_files(tmp_path, names)
    (tmp_path / "manifest.json").write_text('{"genres": []}')
    with pytest.raises(UserError):
        ownership.check_folder(FILES, str(tmp_path), DATASET)
    ours = dict.fromkeys(
        ["schema_version", "fingerprint", "genres", "representations"], 1
    )
    (tmp_path / "manifest.json").write_text(json.dumps(ours))
    ownership.check_folder(FILES, str(tmp_path), DATASET)
    write_files(tmp_path, ["thesis.txt"])
    with pytest.raises(UserError, match=r"thesis\.txt"):
        ownership.check_folder(FILES, str(tmp_path), DATASET)


def test_links_and_pipes_are_never_ours(tmp_path):
    ownership.claim(FILES, str(tmp_path / "out"), DATASET)
    write_files(tmp_path, ["music/training-00000-of-00001.tfrecord"])
    (tmp_path / "out" / "windows").symlink_to(tmp_path / "music")
    with pytest.raises(UserError, match="holds windows,"):
        ownership.check_folder(FILES, str(tmp_path / "out"), DATASET)
    ownership.remove(FILES, str(tmp_path / "out"), DATASET)
    assert len(read_files(tmp_path / "music")) == 1
    (tmp_path / "out" / "windows").unlink()
    os.mkfifo(tmp_path / "out" / "report.json")
    with pytest.raises(UserError, match=r"holds report\.json"):
        ownership.check_folder(FILES, str(tmp_path / "out"), DATASET)


def test_a_folder_of_somebody_else_is_not_searched_through(tmp_path):
    write_files(tmp_path, ["a.txt", *(f"{i}/x" for i in range(3))])

    class Counting(LocalFiles):
        seen = 0

        def walk(self, folder):
            for found in super().walk(folder):
                self.seen += 1
                yield found

    files = Counting()
    with pytest.raises(UserError):
        ownership.check_folder(files, str(tmp_path), DATASET)
    assert files.seen == 1


def test_files_are_no_folders(tmp_path):
    write_files(tmp_path, ["x"])
    for path in ("x", "x/y"):
        with pytest.raises(UserError, match="--output"):
            ownership.claim(FILES, str(tmp_path / path), MODEL)


def test_wavs_lie_beside_other_files_but_replace_only_their_own(tmp_path):
    folder = str(tmp_path)
    write_files(tmp_path, ["a.wav", "sub/notes.txt"])
    flag = "--wav_output"
    with pytest.raises(UserError, match=r"^--wav_output holds a\.wav"):
        ownership.claim(FILES, folder, WAVS, names=["a.wav", "b.wav"], flag=flag)
    ownership.claim(FILES, folder, WAVS, names=["sub/b.wav"], flag=flag)
    write_files(tmp_path, ["sub/b.wav"])
    with pytest.raises(UserError, match=r"^--wav_output holds sub/b\.wav"):
        ownership.claim(FILES, folder, WAVS, names=["sub/b.wav"], flag=flag)
    (tmp_path / "sub" / "b.wav").write_bytes(b"RIFF" + WAVS.sign)
    ownership.claim(FILES, folder, WAVS, names=["sub/b.wav", "c.wav"], flag=flag)
    mark = json.loads((tmp_path / MARK_FILE).read_text())
    assert mark["files"] == ["c.wav", "sub/b.wav"]
    ownership.remove(FILES, folder, WAVS)
    assert {"a.wav", "sub/notes.txt"} <= set(read_files(tmp_path))
    assert "sub/b.wav" not in read_files(tmp_path)


def test_single_files_replace_only_what_is_like_them(tmp_path):
    path = str(tmp_path / "a.png")
    data = b"\x89PNG" + PICTURE.sign
    ownership.replace_file(FILES, path, data, PICTURE, flag="--picture")
    ownership.replace_file(FILES, path, data + b"2", PICTURE, flag="--picture")
    (tmp_path / "b.png").write_bytes(b"\x89PNG of somebody")
    (tmp_path / "x.mp3").write_bytes(b"music")
    for name, message in [
        ("b.png", "did not write"),
        ("x.mp3", r"must end with \.png"),
        ("a.png/c.png", "cannot be written"),
    ]:
        before = read_files(tmp_path)
        with pytest.raises(UserError, match=f"^--picture .*{message}"):
            ownership.replace_file(
                FILES, f"{tmp_path}/{name}", data, PICTURE, flag="--picture"
            )
        assert read_files(tmp_path) == before
    with pytest.raises(ValueError, match="Expected"):
        ownership.replace_file(FILES, path, b"x", PICTURE, flag="--picture")


class Meanwhile(LocalFiles):
    """Before a folder is walked through, another job does something there."""

    def __init__(self, act) -> None:
        self._act = act

    def walk(self, folder):
        self._act()
        return super().walk(folder)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_job_that_begins_while_one_looks_is_none_of_somebody_else(kind, tmp_path):
    def begin() -> None:
        ownership.claim(FILES, str(tmp_path), kind)
        write_files(tmp_path, [OURS[kind.name]])

    for act in (ownership.check_folder, ownership.claim):
        act(Meanwhile(begin), str(tmp_path), kind)
        ownership.remove(FILES, str(tmp_path), kind)
    assert not read_files(tmp_path)
    # Nor does another's mark make anything ours.
    mark = json.dumps({"owner": ownership.OWNER, "kind": "another"})
    with pytest.raises(UserError, match=r"holds OWNER\.json, which is no part of"):
        ownership.check_folder(
            Meanwhile(lambda: write_files(tmp_path, [MARK_FILE], mark)),
            str(tmp_path),
            kind,
        )


def test_two_jobs_may_begin_to_write_the_same_wavs(tmp_path):
    done = []

    def begin() -> None:
        # Between the look and the comparison of names.
        done.append(1)
        if len(done) == 2:
            ownership.claim(FILES, str(tmp_path), WAVS, names=["a.wav", "b.wav"])
            (tmp_path / "a.wav").write_bytes(b"RIFF" + WAVS.sign)

    ownership.claim(Meanwhile(begin), str(tmp_path), WAVS, names=["a.wav"])
    mark = json.loads((tmp_path / MARK_FILE).read_text())
    assert mark["files"] == ["a.wav", "b.wav"]


@pytest.mark.parametrize("way", ["{}/new/..", "{}/new/../", "{}/new/../sub/../."])
def test_a_way_back_from_a_missing_folder_leads_to_what_is_there(tmp_path, way):
    """The folder is made later, and then that is where the way leads."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "report.json").write_text("mine")
    folder = way.format(tmp_path)
    for act in (ownership.check_folder, ownership.claim):
        with pytest.raises(UserError, match=f"from {tmp_path}/new, which is no folder"):
            act(LocalFiles(), folder, DATASET)
    picture = tmp_path / "photo.png"
    picture.write_bytes(b"mine")
    path = f"{tmp_path}/new/../photo.png"
    with pytest.raises(UserError, match=f"Give {picture}, if that is meant"):
        ownership.replace_file(
            LocalFiles(), path, PICTURE.sign, PICTURE, flag="--output"
        )
    assert picture.read_bytes() == b"mine"
    assert not (tmp_path / "new").exists()


def test_a_way_back_from_a_folder_is_one(tmp_path):
    (tmp_path / "old").mkdir()
    ownership.claim(LocalFiles(), f"{tmp_path}/old/../new", DATASET)
    assert (tmp_path / "new" / "OWNER.json").exists()


@pytest.mark.parametrize("mark", ["kind", "mine", "{}"])
def test_wavs_replace_no_mark_of_another_folder(tmp_path, mark):
    path = tmp_path / MARK_FILE
    (tmp_path / "song.mp3").write_text("music")
    if mark == "kind":
        ownership.claim(FILES, f"{tmp_path}/new", DATASET)
        (tmp_path / "new" / MARK_FILE).rename(path)
    else:
        path.write_text(mark)
    before = read_files(tmp_path)
    for act in (ownership.check_folder, ownership.claim):
        with pytest.raises(UserError, match=f"--wav_output holds {MARK_FILE}"):
            act(FILES, str(tmp_path), WAVS, flag="--wav_output")
    assert read_files(tmp_path) == before
