"""ZIPs in a bucket, by the real clients of an emulator: the records of local files."""

import re

import pytest
import requests

from pipeline import preprocess
from pipeline.inputs.archives import directory
from pipeline.inputs.audio_files import match_audio
from pipeline.schema import UserError
from tests.support.cloud.environment import BUCKET, loopback_cloud
from tests.support.corpora import write_csv, write_plain_corpus
from tests.support.zips import METHODS, write_zip, zip_folder

PLACE = f"gs://{BUCKET}"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with loopback_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def corpus(cloud, tmp_path_factory):
    """Tones in a folder, in one ZIP and in one for each half, and their dataset."""
    folder = tmp_path_factory.mktemp("corpus")
    _, metadata = write_plain_corpus(folder)
    zip_folder(folder / "audio.zip", folder / "audio", METHODS)
    write_zip(folder / "meta.zip", {"meta/tracks.csv": metadata.read_bytes()})
    files = {path.name: path.read_bytes() for path in (folder / "audio").iterdir()}
    for part in range(2):
        half = {name: data for name, data in files.items() if int(name[0]) % 2 == part}
        write_zip(folder / f"part{part}.zip", half)
    for path in folder.glob("*.zip"):
        cloud.put(f"music/{path.name}", path.read_bytes())
    run([f"{folder}/audio"], metadata, folder / "dataset")
    return folder


def run(audio, metadata, output, code=0):
    arguments = [
        *("--audio", *audio, "--metadata", str(metadata), "--output", str(output)),
        *("--num_shards", "2", "--representations", "mel"),
        *("--direct_running_mode", "in_memory"),
    ]
    assert preprocess.main(arguments) == code


def read_shards(folder):
    files = sorted((folder / "mel").glob("*.tfrecord"))
    assert len(files) == 6
    return [file.read_bytes() for file in files]


@pytest.fixture
def ranges(monkeypatch):
    """The ranges of objects that are asked for: name, first byte and last."""
    asked = []
    send = requests.Session.send

    def note(session, request, **options):
        if "alt=media" in request.url:
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
            name = request.url.partition("?")[0].rpartition("/")[2]
            asked.append((name, *(map(int, found.groups()) if found else (0, None))))
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", note)
    monkeypatch.setattr(directory, "_archives", type(directory._archives)())
    return asked


@pytest.mark.parametrize(
    "audio",
    [
        [f"zip://{PLACE}/music/audio.zip!/audio/**.wav"],
        [f"{PLACE}/music/part*.zip", f"{PLACE}/music/part0.zip"],
    ],
    ids=["one", "several"],
)
def test_the_records_are_those_of_the_folder(corpus, ranges, tmp_path, audio):
    run(audio, f"{PLACE}/music/meta.zip", tmp_path / "dataset")
    assert read_shards(tmp_path / "dataset") == read_shards(corpus / "dataset")
    sounds = [each for each in ranges if each[0] != "meta.zip"]
    names = {name for name, *_ in sounds}
    # The end of each ZIP, once, and each member, once; the last in two parts.
    assert len(sounds) <= 2 * len(names) + 6
    for name in names:
        size = (corpus / name).stat().st_size
        starts = [first for each, first, _ in sounds if each == name]
        assert starts.count(size - (1 << 17)) == 1
        assert all(last is not None for _, _, last in sounds)
        assert max(last - first for each, first, last in sounds if each == name) < size


def test_what_is_no_archive_or_not_there_is_one_sentence(cloud, corpus, tmp_path):
    cloud.put("cut/a.zip", (corpus / "audio.zip").read_bytes()[:-30])
    for pattern, message in {
        "cut/a.zip": f"--audio: {PLACE}/cut/a.zip is no whole ZIP",
        "cut/*.zip!/**.wav": f"--audio: {PLACE}/cut/a.zip is no whole ZIP",
        "cut/b.zip": "--audio: the ZIP cannot be read",
        "cut/b*.zip": "--audio matches no ZIP: nothing below",
        "music/*.zip!/**.ogg": "nothing in these 4 ZIPs is named **.ogg",
    }.items():
        with pytest.raises(UserError) as caught:
            match_audio(f"{PLACE}/{pattern}")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    rows = [{"path": "0.wav", "genre": "Low"}]
    write_csv(tmp_path / "t.csv", rows)
    run([f"{PLACE}/cut/a.zip"], tmp_path / "t.csv", tmp_path / "dataset", code=2)
    assert not (tmp_path / "dataset").exists()
