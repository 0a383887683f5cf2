import collections
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from pipeline import preprocess
from pipeline.inputs.splits import stable_hash
from pipeline.inspect import __main__ as inspect
from pipeline.inspect import reading
from pipeline.inspect.verify import verify_dataset
from pipeline.schema import Manifest, UserError, shard_file
from pipeline.schema.example import decode_example, encode_example
from pipeline.shards.tfrecord import read_records, write_record
from tests.support.corpora import write_csv, write_tone
from tests.support.manifest_fuzz import damage

ROOT = Path(__file__).resolve().parents[3]
SHARDS = 2
NAMES = ("windows", "mel", "features", "statistics")

Examples = list[dict]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A dataset of eight clips, with rejects, split by hash."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for index in range(9):
        write_tone(folder / "audio" / f"{index}.wav", 200 + 40 * index)
        rows.append(
            {
                "path": f"{index}.wav",
                "genre": ["High", "Low"][index % 2],
                "track_id": f"t{index}",
                "artist_id": f"a{index}",
            }
        )
    (folder / "audio" / "8.wav").write_bytes(b"<html>")
    write_tone(folder / "audio" / "stray.wav", 900)
    write_csv(folder / "tracks.csv", rows)
    arguments = ["--audio", f"{folder}/audio/*.wav", "--representations", *NAMES]
    arguments += ["--metadata", f"{folder}/tracks.csv", "--num_shards", str(SHARDS)]
    arguments += ["--split", "hash", "--split_percent", "50,25,25"]
    assert preprocess.main([*arguments, "--output", str(folder / "dataset")]) == 0
    return folder / "dataset"


@pytest.fixture
def dataset(whole, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "dataset"))


def verify(folder: Path) -> list[str]:
    manifest = reading.read_manifest(str(folder))
    return verify_dataset(str(folder), manifest, lambda text: None).problems


def run(*arguments: object) -> int:
    return inspect.main([str(argument) for argument in arguments])


def change_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_records(
    folder: Path, name: str, split: str, change: Callable[[Examples], Examples | None]
) -> str:
    """Rewrites the first shard file with a record, and what the manifest says.

    Everything about the file is then in order but what was changed.
    """
    manifest = reading.read_manifest(str(folder))
    schema = manifest.representations[name]
    for shard in range(SHARDS):
        file = shard_file(name, split, shard, SHARDS)
        with (folder / file).open("rb") as source:
            examples = [decode_example(schema.fields, r) for r in read_records(source)]
        if examples:
            break
    before = len(examples)
    changed = change(examples)
    examples = examples if changed is None else changed
    with (folder / file).open("wb") as target:
        for example in examples:
            write_record(target, encode_example(schema.fields, example))
    data = (folder / file).read_bytes()

    def update(content: dict) -> None:
        stated = content["files"][file]
        content["record_bytes"][name] += len(data) - stated["size"]
        content["records"][name][split] += len(examples) - before
        stated["records"] = len(examples)
        stated["size"] = len(data)
        stated["crc32c"] = f"{google_crc32c.value(data):08x}"

    change_manifest(folder, update)
    changed_manifest = reading.read_manifest(str(folder))
    for path, text in changed_manifest.reader_files().items():
        (folder / path).write_text(text)
    return file


# What is in it


def test_nothing_is_wrong_with_a_new_dataset(whole, capsys):
    assert verify(whole) == []
    assert run(whole, "--verify") == 0
    output, aside = capsys.readouterr()
    assert aside.endswith(f"Next: ./launch.sh train --data {whole}\n")
    assert "Nothing is wrong." in output
    files = len(NAMES) * 3 * SHARDS
    assert f"Verified: {files} files, {8 * 15} records checked." in output


def test_the_tables(whole, capsys):
    assert run(whole) == 0
    output = capsys.readouterr().out
    assert "10 inputs: 8 clips in the records, 2 rejects." in output
    assert "sha256 of the artist's id" in output
    lines = {line.split()[0]: line.split() for line in output.splitlines() if line}
    assert list(map(int, lines["High"][1:])) == [
        sum(1 for s in splits(whole, 0) if s == split)
        for split in ("training", "validation", "test")
    ]
    assert lines["mel"][1:3] == ["uint8", "224x224x3"]
    assert lines["undecodable"] == ["undecodable", "decode", "1"]
    assert lines["no_metadata"] == ["no_metadata", "join", "1"]
    assert lines["libsndfile"] == ["libsndfile", "8"]
    assert lines["length"] == ["length", "of", "the", "file", "(s)", *["6.0"] * 6]
    assert "In several splits, artists: none." in output
    assert "NOT COMPLETED" not in output


def splits(folder: Path, label: int) -> list[str]:
    manifest = reading.read_manifest(str(folder))
    found = []
    for split in ("training", "validation", "test"):
        for file in manifest.shard_files("mel", split):
            schema = manifest.representations["mel"]
            examples = reading.read_examples(str(folder / file), schema)
            found += [split for e in examples if (e["label"], e["index"]) == (label, 0)]
    return found


def test_a_job_that_did_not_finish_is_told(dataset, capsys):
    (dataset / "COMPLETED").unlink()
    assert run(dataset) == 0
    assert "NOT COMPLETED" in capsys.readouterr().out
    assert run(dataset, "--verify") == 1
    assert "COMPLETED is missing" in capsys.readouterr().out


def test_no_dataset(tmp_path, capsys):
    assert run(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "manifest.json cannot be read" in error


def test_not_less_than_one_clip_is_drawn(whole, capsys):
    assert run(whole, "--clips", 0) == 2
    assert "Received: 0" in capsys.readouterr().err


@pytest.mark.parametrize("clips", [1, 99])
def test_a_picture(whole, tmp_path, clips, capsys):
    path = tmp_path / "picture.png"
    assert run(whole, "--picture", path, "--clips", clips) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out


def test_a_genre_is_no_formula(dataset, tmp_path):
    for path in (dataset / "clips").iterdir():
        path.write_text(path.read_text().replace('"High"', r'"$\\x$"'))
    assert run(dataset, "--picture", tmp_path / "x.png") == 0


def test_clips_of_as_many_genres_as_can_be():
    clips = [
        {"genre": genre, "track_id": number, "split": "test"}
        for number, genre in enumerate("BBAAC")
    ]
    chosen = reading.choose_clips(clips, 4)
    assert [clip["track_id"] for clip in chosen] == [2, 0, 4, 3]
    common = {"track_id": "t", "split": "test"}
    several = [{"genres": ["A", "B"], **common}, {"genres": ["B"], **common}]
    assert reading.choose_clips(several, 9) == several
    damaged = [{"genre": "A", "split": "test"}, common]
    damaged += [{"genres": genres, **common} for genres in ([], 5, [None])]
    for clip in [*damaged, {"genre": None, **common}]:
        with pytest.raises(UserError, match="is no clip; copy the dataset again"):
            reading.choose_clips([clip], 1)


def test_values_of_chosen_clips(whole):
    manifest = reading.read_manifest(str(whole))
    two = reading.choose_clips(reading.read_clips(str(whole)), 2)
    assert [clip["genre"] for clip in two] == ["High", "Low"]
    shapes = {"windows": (8, 10_000), "mel": (5, 224, 224, 3), "statistics": (1, 518)}
    for name, shape in shapes.items():
        found = reading.read_chosen(str(whole), manifest, name, two)
        assert {track: values.shape for track, values in found.items()} == {
            clip["track_id"]: shape for clip in two
        }


def test_a_clip_without_records_cannot_be_drawn(dataset, tmp_path, capsys):
    for path in (dataset / "clips").iterdir():
        path.write_text(path.read_text().replace('"track_id": "t', '"track_id": "x'))
    assert run(dataset, "--picture", tmp_path / "x.png") == 2
    assert "has no features of clip x" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_a_damaged_file_cannot_be_drawn(dataset, tmp_path, capsys):
    for path in (dataset / "mel").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert run(dataset, "--picture", tmp_path / "x.png") == 2
    assert "inspect --verify says what is wrong" in capsys.readouterr().err


def test_it_starts_without_tensorflow_and_beam():
    code = (
        "import sys\nfrom pipeline.inspect import __main__, verify\n"
        "slow = {'tensorflow', 'apache_beam', 'librosa', 'matplotlib', 'soundfile'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# What can be wrong with it: each is seen, and nothing else.


def expect(problems: list[str], *sentences: str) -> None:
    assert len(problems) == len(sentences), problems
    for sentence in sentences:
        assert any(sentence in problem for problem in problems), problems


def test_a_flipped_bit(dataset):
    [path] = (dataset / "features").glob("training-00000*")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    problems = verify(dataset)
    assert any("bad record checksum" in problem for problem in problems)
    assert any("features has no record of clip" in problem for problem in problems)


@pytest.mark.parametrize("end", [-1, -100_000, 5])
def test_a_truncated_file(dataset, end):
    [path] = (dataset / "mel").glob("training-00000*")
    path.write_bytes(path.read_bytes()[:end])
    problems = verify(dataset)
    assert any("mel/training-00000" in problem for problem in problems)


def test_a_file_cut_between_two_records(dataset):
    file = "windows/training-00000-of-00002.tfrecord"
    data = (dataset / file).read_bytes()
    length = int.from_bytes(data[:8], "little") + 16
    (dataset / file).write_bytes(data[:-length])
    problems = verify(dataset)
    assert any(f"{file} has " in problem for problem in problems)
    assert any("training records; the manifest says" in p for p in problems)


def test_a_missing_file(dataset):
    (dataset / "mel" / "test-00001-of-00002.tfrecord").unlink()
    problems = verify(dataset)
    assert "mel/test-00001-of-00002.tfrecord is missing" in problems


def test_a_stray_file(dataset):
    shutil.copy(
        dataset / "mel" / "test-00001-of-00002.tfrecord",
        dataset / "mel" / "test-00001-of-00003.tfrecord",
    )
    expect(verify(dataset), "mel/test-00001-of-00003.tfrecord does not belong")


def test_the_split_is_checked_by_its_fields_and_not_by_a_sentence(dataset):
    change_manifest(dataset, lambda content: content.update(split_rule="mine"))
    assert verify(dataset) == []
    change_manifest(
        dataset, lambda content: content["split"].update(percent=[0, 0, 100])
    )
    assert any("its hash says test" in problem for problem in verify(dataset))


def test_a_manifest_that_does_not_give_the_split_is_said_to(dataset, capsys):
    change_manifest(dataset, lambda content: content.pop("split"))
    # As a version wrote it that knew neither the key nor the digest.
    first = (dataset / "COMPLETED").read_text().splitlines()[0]
    (dataset / "COMPLETED").write_text(f"{first}\n")
    assert run(dataset, "--verify") == 0
    assert "does not say how to work splits out" in capsys.readouterr().out


def test_a_shard_of_another_split(dataset):
    name = "training-00000-of-00002.tfrecord", "test-00000-of-00002.tfrecord"
    for folder in NAMES:
        first, second = (dataset / folder / n for n in name)
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    problems = verify(dataset)
    assert any("its hash says training" in problem for problem in problems)
    assert any("the manifest says" in problem for problem in problems)


def test_a_marker_of_another_job(dataset):
    (dataset / "COMPLETED").write_text("0123\n")
    expect(verify(dataset), "COMPLETED is that of another job")


def test_an_unknown_label(dataset):
    def change(examples):
        examples[0]["label"] = 7

    change_records(dataset, "mel", "training", change)
    problems = verify(dataset)
    assert any("has label 7, but there are 2 genres" in p for p in problems)
    assert any("another split, label, artist or decoder" in p for p in problems)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.nan, "no finite numbers"),
        (np.inf, "no finite numbers"),
        (9.0, "to 9"),
    ],
)
def test_absurd_values(dataset, value, sentence):
    def change(examples):
        samples = examples[0]["window"].copy()
        samples[17] = value
        examples[0]["window"] = samples

    change_records(dataset, "windows", "test", change)
    expect(verify(dataset), sentence)


def test_an_image_of_one_colour(dataset):
    def change(examples):
        examples[0]["image"] = np.full_like(examples[0]["image"], 3)

    change_records(dataset, "mel", "test", change)
    expect(verify(dataset), "has the one value 3 throughout")


def test_a_black_image_of_several_is_silence(dataset):
    def change(examples):
        examples[0]["image"] = np.zeros_like(examples[0]["image"])

    change_records(dataset, "mel", "test", change)
    assert not any("throughout" in problem for problem in verify(dataset))


def by_clip_descending(examples: Examples) -> Examples:
    return sorted(examples, key=lambda e: (-int(e["track_id"][1:]), e["index"]))


def test_records_out_of_order(dataset):
    file = change_records(dataset, "mel", "training", by_clip_descending)
    expect(verify(dataset), f"{file}: clip")


def test_a_window_twice(dataset):
    change_records(dataset, "windows", "test", lambda e: [e[0], *e])
    problems = verify(dataset)
    assert any("[0, 0, 1, 2, 3, 4, 5, 6, 7], not 0 to 7" in p for p in problems)


def test_a_clip_that_one_representation_lacks(dataset):
    change_records(dataset, "mel", "training", lambda e: e[5:])
    expect(verify(dataset), "mel has no record of clip t")


def test_a_clip_in_the_wrong_shard(dataset):
    def change(examples):
        for example in examples:
            example["track_id"] = other

    manifest = reading.read_manifest(str(dataset))
    file = next(
        f for f in manifest.shard_files("mel", "test") if (dataset / f).stat().st_size
    )
    shard = int(file.split("-")[1])
    other = next(f"x{i}" for i in range(99) if stable_hash(f"x{i}") % SHARDS != shard)
    change_records(dataset, "mel", "test", change)
    problems = verify(dataset)
    assert any("belongs in another shard" in problem for problem in problems)


def in_all(dataset: Path, split: str, change) -> None:
    for name in NAMES:
        change_records(dataset, name, split, change)


def test_an_artist_in_two_splits(dataset):
    def change(examples):
        for example in examples:
            example["artist_id"] = "same"

    in_all(dataset, "training", change)
    in_all(dataset, "test", change)
    problems = verify(dataset)
    assert "artist same is in training and test" in problems


@pytest.mark.parametrize("kind", ["artists", "audio"])
def test_leaks_that_only_the_manifest_has(dataset, kind):
    def change(content):
        content["integrity"][f"{kind}_in_several_splits"] = 1

    change_manifest(dataset, change)
    expect(verify(dataset), f"says {kind}_in_several_splits: 1; there are 0")


def test_the_same_audio_in_two_splits(dataset):
    kept: dict[str, list] = collections.defaultdict(list)

    def take(examples):
        for example in examples:
            [name] = {"window", "image", "features", "statistics"} & set(example)
            if example["track_id"] == examples[0]["track_id"]:
                kept[name].append(example[name])

    def give(examples):
        for example in examples:
            [name] = {"window", "image", "features", "statistics"} & set(example)
            if example["track_id"] == examples[0]["track_id"]:
                example[name] = kept[name][example["index"]]

    in_all(dataset, "validation", take)
    in_all(dataset, "test", give)
    problems = verify(dataset)
    expect(problems, "are the same audio, in validation and test")


def test_normalisation_of_other_records(dataset):
    def change(content):
        content["normalisation"]["features"]["mean"][3] += 1.0

    change_manifest(dataset, change)
    expect(verify(dataset), "features, mfcc")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("normalisation.features.variance", [], "of 37 segments"),
        ("normalisation.features.variance", [float("nan")] * 37, "NaN is no number"),
        ("normalisation.features.variance", [0.0] * 36, "of 37 segments"),
        ("clips.training.High", 99, "inputs must be"),
        ("records.mel.test", 99, "files of mel must be 99 records"),
        ("record_bytes.mel", 99, "files of mel must be 99 bytes"),
        ("inputs.clips", 99, "inputs must be"),
        ("rejects.silent", 99, "rejects must be as many"),
    ],
)
def test_a_manifest_that_contradicts_itself(dataset, capsys, key, value, sentence):
    def change(content):
        *parents, name = key.split(".")
        for parent in parents:
            content = content[parent]
        content[name] = value

    change_manifest(dataset, change)
    for flags in ([], ["--verify"]):
        assert run(dataset, *flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert sentence in error


def test_a_manifest_that_was_changed_afterwards(dataset, capsys):
    def swap(content):
        content["genres"].reverse()

    change_manifest(dataset, swap)
    assert run(dataset) == 2
    assert "was changed after the dataset was completed" in capsys.readouterr().err
    # Datasets from before the digest have the fingerprint alone.
    first = (dataset / "COMPLETED").read_text().splitlines()[0]
    (dataset / "COMPLETED").write_text(f"{first}\n")
    assert run(dataset) == 0


def change_list(dataset: Path, change: Callable[[dict], None]) -> None:
    """Changes the first clip of the list of clips."""
    path = next(p for p in sorted(dataset.glob("clips/*.jsonl")) if p.stat().st_size)
    first, *others = path.read_text().splitlines()
    clip = json.loads(first)
    change(clip)
    lines = [json.dumps(clip), *others] if clip else others
    path.write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda clip: clip.update(genre="Jazz"), "is listed with another split, genre"),
        (lambda clip: clip.update(artist_id="x"), "is listed with another split"),
        (lambda clip: clip.clear(), "is not listed in clips/"),
        (lambda clip: clip.pop("audio"), "the list of clips cannot be read"),
    ],
)
def test_a_list_of_clips_that_is_not_true(dataset, change, sentence):
    change_list(dataset, change)
    assert any(sentence in problem for problem in verify(dataset))


def test_the_same_audio_in_the_list(dataset):
    audio = {
        split: next(c["audio"] for c in clips if c["split"] == split)
        for clips in [list(reading.read_clips(str(dataset)))]
        for split in ("training", "test")
    }
    for path in dataset.glob("clips/*.jsonl"):
        text = path.read_text().replace(audio["test"], audio["training"])
        path.write_text(text)
    expect(verify(dataset), "is in training and test, by the list of clips")


def change_reject(dataset, **changes) -> None:
    [path] = dataset.glob("rejects-*.jsonl")
    first, *others = path.read_text().splitlines()
    lines = [json.dumps(json.loads(first) | changes), *others]
    path.write_text("".join(f"{line}\n" for line in lines))


def test_a_clip_in_records_and_rejects(dataset):
    clip = next(iter(reading.read_clips(str(dataset))))
    change_reject(dataset, path=clip["path"], reason="corrupt")
    sentence = f"clip {clip['track_id']} is in the records and in the rejects"
    assert any(sentence in problem for problem in verify(dataset))


def test_another_row_of_an_id_may_be_a_reject(dataset):
    clip = next(iter(reading.read_clips(str(dataset))))
    change_reject(dataset, track_id=clip["track_id"])
    assert verify(dataset) == []


def test_rejects_that_are_gone(dataset):
    [path] = dataset.glob("rejects-*.jsonl")
    path.unlink()
    problems = verify(dataset)
    assert any("the rejects are {}" in problem for problem in problems)


def test_rejects_that_cannot_be_read(dataset):
    [path] = dataset.glob("rejects-*.jsonl")
    path.write_text("{\n")
    assert any("rejects cannot be read" in problem for problem in verify(dataset))


def test_a_long_list_is_cut(dataset, capsys):
    for path in dataset.glob("*/*.tfrecord"):
        path.unlink()
    assert run(dataset, "--verify") == 1
    output = capsys.readouterr().out
    assert "... and 14 more of this kind (missing file)" in output


def test_a_manifest_of_another_version(dataset):
    change_manifest(dataset, lambda content: content.update(schema_version=0))
    with pytest.raises(UserError, match="schema version"):
        reading.read_manifest(str(dataset))
    assert run(dataset) == 2


def test_progress_is_told(whole):
    told = []
    manifest = reading.read_manifest(str(whole))
    verify_dataset(str(whole), manifest, told.append)
    assert told[-1] == f"24 of 24 files, {8 * 15} records"


def test_remote_datasets_are_read_through_beam(whole, monkeypatch):
    opened = []

    def open_for_reading(path):
        opened.append(path)
        return Path(path.replace("memory://", "/")).open("rb")

    monkeypatch.setattr("pipeline.common.storage.open_for_reading", open_for_reading)
    folder = f"memory://{str(whole).lstrip('/')}"
    manifest = reading.read_manifest(folder)
    assert isinstance(manifest, Manifest)
    assert dataclasses.asdict(manifest)["num_shards"] == SHARDS
    assert opened == [f"{folder}/manifest.json"]


def test_500_damaged_manifests_are_one_sentence_each(whole, tmp_path, capsys):
    text = (whole / "manifest.json").read_text()
    # Without the digest, as before there was one: else each would stop at that.
    first = (whole / "COMPLETED").read_text().splitlines()[0]
    (tmp_path / "COMPLETED").write_text(f"{first}\n")
    refused = 0
    for seed in range(500):
        (tmp_path / "manifest.json").write_bytes(damage(text, seed))
        started = time.process_time()
        code = run(tmp_path)
        assert time.process_time() - started < 1, seed
        error = capsys.readouterr().err
        assert code in (0, 2), seed
        lines = [line for line in error.splitlines() if "./launch.sh" not in line]
        assert len(lines) == (code == 2), (seed, error)
        assert len(error) < 1000, (seed, error)
        refused += code == 2
    assert refused > 400
