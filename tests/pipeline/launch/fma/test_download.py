"""Against a server on loopback; the real address is never asked."""

import dataclasses
import hashlib
import io
import json
import random
import shutil
import socket
import threading
from pathlib import Path

import pytest

from pipeline.launch.fma import __main__ as fma
from pipeline.launch.fma import archives, transfer
from pipeline.launch.fma.__main__ import download
from pipeline.launch.fma.published import AUDIO, BASE, METADATA, Published
from pipeline.launch.fma.transfer import Options
from pipeline.schema import UserError
from tests.support.archive_server import Behaviour, serve
from tests.support.zips import write_zip

QUICK = Options(attempts=4, pause=0.001)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """A ZIP of a megabyte."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    write_zip(path, {f"{k}.mp3": rng.randbytes(1 << 17) for k in range(8)}, (0,))
    return path.read_bytes()


@pytest.fixture
def archive(content):
    sha1 = hashlib.sha1(content).hexdigest()
    return Published(name="fma_small.zip", sha1=sha1, size=len(content))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


WHOLE = ["OWNER.json", "fma_small.zip", "verified.json"]


def test_it_goes_on_where_it_broke_off(tmp_path, content, archive):
    """Twenty times at random: the same bytes, and none of them twice."""
    rng = random.Random(1)
    cuts = [rng.randrange(1, len(content) // 12) for _ in range(20)]
    behaviour = Behaviour(
        content=content, cut=lambda number: dict(enumerate(cuts)).get(number)
    )
    with serve(behaviour) as base:
        download([archive], str(tmp_path), base, options=QUICK)
    assert (tmp_path / "fma_small.zip").read_bytes() == content
    assert names(tmp_path) == WHOLE
    assert len(behaviour.requests) == 21
    assert sum(count for _, count in behaviour.sent) == len(content)
    assert behaviour.requests[1] == f"bytes={cuts[0]}-"


def interrupt(folder, base, place):
    """Ends a download as a key does, when so many bytes are there."""

    def report(done, total):
        if done >= place:
            raise KeyboardInterrupt

    folder.mkdir(exist_ok=True)
    with pytest.raises(KeyboardInterrupt):
        transfer.fetch(f"{base}fma_small.zip", f"{folder}/fma_small.zip", report, QUICK)
    assert not list(Path().glob("[0-9]*.json"))


def test_another_process_goes_on_and_asks_for_no_more_than_a_block(
    tmp_path, content, archive, monkeypatch
):
    monkeypatch.setattr(transfer, "BLOCK_BYTES", 5000)
    archives.Downloads(str(tmp_path)).claim([archive])
    rng = random.Random(2)
    behaviour = Behaviour(content=content)
    places = sorted(rng.sample(range(6000, len(content)), 20))
    with serve(behaviour) as base:
        for place in places:
            interrupt(tmp_path, base, place)
            size = (tmp_path / "fma_small.zip.part").stat().st_size
            assert size >= place
            state = json.loads((tmp_path / "fma_small.zip.part.json").read_text())
            assert state["total"] == len(content)
            places[places.index(place)] = size
        download([archive], str(tmp_path), base, options=QUICK)
    assert (tmp_path / "fma_small.zip").read_bytes() == content
    asked = [int(r.removeprefix("bytes=")[:-1]) for r in behaviour.requests[1:]]
    assert asked == [size - 5000 for size in places]


def test_a_server_without_ranges_begins_anew(tmp_path, content, archive):
    behaviour = Behaviour(
        content=content, ranges=False, cut=lambda number: {0: 9000}.get(number)
    )
    with serve(behaviour) as base:
        download([archive], str(tmp_path), base, options=QUICK)
    assert (tmp_path / "fma_small.zip").read_bytes() == content
    behaviour.cut = lambda number: 500_000
    with (
        serve(behaviour) as base,
        pytest.raises(UserError, match="broke off at 500,00"),
    ):
        download([archive], str(tmp_path / "x"), base, options=QUICK)


def test_a_server_that_tells_no_length_is_believed_by_the_sha1(
    tmp_path, content, archive
):
    with serve(Behaviour(content=content, length=False, etag="")) as base:
        download([archive], str(tmp_path), base, options=QUICK)
    assert names(tmp_path) == WHOLE


def test_wrong_bytes_are_deleted(tmp_path, content, archive):
    wrong = bytearray(content)
    wrong[5000] ^= 1
    behaviour = Behaviour(content=bytes(wrong))
    with serve(behaviour) as base:
        with pytest.raises(UserError, match="is not what FMA published: its SHA-1 is"):
            download([archive], str(tmp_path), base, options=QUICK)
        assert names(tmp_path) == ["OWNER.json"]
        behaviour.content = content
        download([archive], str(tmp_path), base, options=QUICK)
    assert names(tmp_path) == WHOLE


@pytest.mark.parametrize("respects", [True, False])
def test_another_file_in_between_is_not_mixed_in(tmp_path, content, archive, respects):
    """Its ETag says so, whether the server looks at If-Range or not."""
    other = content[:4] + bytes(len(content) - 4)
    behaviour = Behaviour(
        content=content,
        respects_if_range=respects,
        cut=lambda number: 200_000 if number < 4 else None,
    )

    def change(number):
        behaviour.content = other if number in (1, 2) else content
        behaviour.etag = '"two"' if number in (1, 2) else '"one"'

    behaviour.before = change
    with serve(behaviour) as base:
        download([archive], str(tmp_path), base, options=QUICK)
    assert (tmp_path / "fma_small.zip").read_bytes() == content


def test_a_file_that_changes_all_the_time_is_given_up(tmp_path, content, archive):
    behaviour = Behaviour(content=content, cut=lambda number: 200_000)
    behaviour.before = lambda number: setattr(behaviour, "etag", f'"{number}"')
    with serve(behaviour) as base, pytest.raises(UserError, match="server changes, as"):
        download([archive], str(tmp_path), base, options=QUICK)


def test_another_mirror_goes_on(tmp_path, content, archive):
    downloads = archives.Downloads(str(tmp_path))
    downloads.claim([archive])
    with serve(Behaviour(content=content)) as base:
        interrupt(tmp_path, base, 300_000)
    size = (tmp_path / "fma_small.zip.part").stat().st_size
    behaviour = Behaviour(content=content, etag='"other"')
    with serve(behaviour) as base:
        download([archive], str(tmp_path), base, options=QUICK)
    assert behaviour.requests == [f"bytes={size - transfer.BLOCK_BYTES}-"]
    assert names(tmp_path) == WHOLE


def test_a_stalled_connection_is_given_up_and_taken_up(tmp_path, content, archive):
    behaviour = Behaviour(
        content=content, stall=True, cut=lambda number: 100_000 if number < 2 else None
    )
    options = dataclasses.replace(QUICK, timeout=0.5)
    with serve(behaviour) as base:
        download([archive], str(tmp_path), base, options=options)
    assert (tmp_path / "fma_small.zip").read_bytes() == content
    assert len(behaviour.requests) >= 3


def test_a_slow_server_is_waited_for(tmp_path, content, archive):
    """For longer in all than it may be silent."""
    behaviour = Behaviour(content=content, chunk=1 << 17, pause=0.45)
    options = dataclasses.replace(QUICK, timeout=3.5)
    with serve(behaviour) as base:
        download([archive], str(tmp_path), base, options=options)
    assert len(behaviour.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_status_that_may_pass_is_asked_again(tmp_path, content, archive, status):
    behaviour = Behaviour(
        content=content, status=lambda number: status if number < 3 else 0
    )
    with serve(behaviour) as base:
        download([archive], str(tmp_path), base, options=QUICK)
    assert names(tmp_path) == WHOLE


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_status_that_stays_is_one_sentence(tmp_path, content, archive, status):
    behaviour = Behaviour(content=content, status=lambda number: status)
    message = f"the server answers {status} .* --mirror"
    with serve(behaviour) as base, pytest.raises(UserError, match=message):
        download([archive], str(tmp_path), base, options=QUICK)


def test_nobody_there_is_one_sentence(tmp_path, archive):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # Nobody else gets the port, or listens to it.
        base = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(UserError, match=r"be reached \(Connection refused\)"):
            download([archive], str(tmp_path), base, options=QUICK)


def test_a_page_in_place_of_the_file_is_told_at_once(tmp_path, archive):
    page = b"<html>Please log in to use this network" + bytes(1_000_000)
    behaviour = Behaviour(content=page)
    with (
        serve(behaviour) as base,
        pytest.raises(UserError, match="is no ZIP: it begins"),
    ):
        download([archive], str(tmp_path), base, options=QUICK)
    assert len(behaviour.requests) == 1


def test_what_is_there_and_right_is_not_fetched(
    tmp_path, content, archive, monkeypatch
):
    (tmp_path / "fma_small.zip").write_bytes(content)
    with serve(Behaviour(content=b"")) as base:
        download([archive], str(tmp_path), base, options=QUICK)
        # Nor read again.
        monkeypatch.setattr(transfer, "digest", None)
        download([archive], str(tmp_path), base, options=QUICK)
    assert names(tmp_path) == WHOLE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fma_small.zip", "fma_small.zip is not what FMA published: its SHA-1 is"),
        ("fma_small.zip.part", "holds fma_small.zip.part, which this program did not"),
        ("verified.json", "holds verified.json, which this program did not write"),
    ],
)
def test_what_is_somebodys_stays(tmp_path, content, archive, name, message):
    (tmp_path / name).write_bytes(b"mine")
    behaviour = Behaviour(content=content)
    with serve(behaviour) as base, pytest.raises(UserError, match=message):
        download([archive], str(tmp_path), base, options=QUICK)
    assert (tmp_path / name).read_bytes() == b"mine"
    assert not (tmp_path / "fma_small.zip").exists() or name == "fma_small.zip"


def test_a_full_disk_is_said_before_and_during(tmp_path, content, archive, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=archives.SPARE_BYTES + 100)
    with serve(Behaviour(content=content)) as base:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage)
            with pytest.raises(
                UserError, match=r"has 1.1 GB free, and 1 MB are needed"
            ):
                download([archive], str(tmp_path), base, options=QUICK)
            with pytest.raises(UserError, match=r"50.0 GB are needed"):
                download([], str(tmp_path), base, more=50 * 10**9)

        class Full(io.FileIO):
            def write(self, data):
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(transfer.os, "fdopen", lambda fd, *_, **__: Full(fd, "r+b"))
        with pytest.raises(
            UserError, match=r"No space left on device; make room, then"
        ):
            download([archive], str(tmp_path / "x"), base, options=QUICK)


def test_two_at_once_do_not_mix(tmp_path, content, archive):
    asked, refused = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        asked.set()
        refused.wait()

    with serve(Behaviour(content=content, before=hold)) as base:
        first = threading.Thread(target=download, args=([archive], str(tmp_path), base))
        first.start()
        asked.wait()
        try:
            with pytest.raises(UserError, match="Another process is fetching"):
                download([archive], str(tmp_path), base, options=QUICK)
        finally:
            refused.set()
            first.join()
    assert (tmp_path / "fma_small.zip").read_bytes() == content


def run(audio, *arguments):
    return fma.main(["--subset=small", *map(str, arguments)], {"small": audio}, audio)


def test_a_local_folder_is_used_as_it_is(tmp_path, content, archive, capsys):
    mirror = tmp_path / "zips"
    mirror.mkdir()
    flags = [f"--output={tmp_path}/out", f"--mirror={mirror}"]
    assert run(archive, *flags) == 2
    assert "--mirror lacks fma_small.zip" in capsys.readouterr().err
    (mirror / "fma_small.zip").write_bytes(content)
    assert run(archive, *flags) == 0
    assert names(mirror) == ["fma_small.zip"]
    assert names(tmp_path / "out" / "download") == ["OWNER.json", "verified.json"]
    (mirror / "fma_small.zip").write_bytes(content[:-1])
    assert run(archive, *flags) == 2
    assert "it was cut off or changed" in capsys.readouterr().err


@pytest.mark.parametrize("mirror", ["no/where", "ftp://x/", "gs://bucket", "file:///x"])
def test_a_mirror_is_an_address_or_a_folder(tmp_path, archive, capsys, mirror):
    assert run(archive, f"--output={tmp_path}", f"--mirror={mirror}") == 2
    assert "--mirror must be an address" in capsys.readouterr().err


def test_the_command_says_what_it_does(tmp_path, content, archive, capsys):
    with serve(Behaviour(content=content)) as base:
        assert run(archive, f"--output={tmp_path}", f"--mirror={base}") == 0
    out = capsys.readouterr().out
    assert f"Fetching {base}fma_small.zip, about 1 MB." in out
    made, after = out.splitlines()[-2:]
    folder = f"{tmp_path}/download"
    assert made == (
        f"fma_small.zip and fma_small.zip are there, and what FMA published: {folder}"
    )
    assert after.startswith(f"Next: ./launch.sh preprocess --audio {folder}/fma_sm")
    verified = json.loads((tmp_path / "download" / "verified.json").read_text())
    assert [value[-1] for value in verified.values()] == [archive.sha1]


def test_the_archives_are_those_of_the_readme():
    assert BASE == "https://os.unil.cloud.switch.ch/fma/"
    assert all(len(a.sha1) == 40 for a in (METADATA, *AUDIO.values()))
    assert [a.name for a in AUDIO.values()] == [f"fma_{s}.zip" for s in AUDIO]
