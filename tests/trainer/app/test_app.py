"""The page for dropped songs: its server's answers, and a browser that uses it."""

import argparse
import contextlib
import dataclasses
import errno
import http.client
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline import preprocess, schema
from pipeline.decoding.isolation import IsolatedDecoder
from tests.support.corpora import write_plain_corpus
from tests.support.small_models import GENRES, write_models, write_tones
from tests.support.zips import damage, zip_folder
from trainer.app import listen, server
from trainer.app.__main__ import main, make_listener
from trainer.app.server import AppServer
from trainer.app.similar import SimilarClips
from trainer.predict import loading
from trainer.predict.audio import AudioPredictor
from trainer.predict.loading import load_audio_predictor, load_predictors

CLIPS = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    glob, metadata = write_plain_corpus(folder, CLIPS)
    code = preprocess.main(
        [
            f"--audio={glob}",
            f"--metadata={metadata}",
            f"--output={folder}/dataset",
            "--num_shards=1",
            "--windows_per_clip=2",
            "--representations",
            "windows",
        ]
    )
    assert code == 0
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("songs")
    [short] = write_tones(folder / "short", 1)
    [long] = write_tones(folder / "long", 1, 95.0)
    broken = folder / "broken <b>.mp3"
    broken.write_bytes(b"words " * 99)
    return {"short": short, "long": long, "broken": broken}


@pytest.fixture(scope="module")
def app(models, corpus):
    flags = argparse.Namespace(
        model=[str(models / "windows")],
        excerpts=10,
        data=str(corpus / "dataset"),
        audio=str(corpus / "audio"),
    )
    with IsolatedDecoder() as decoder:
        listener = make_listener(load_predictors(flags.model), decoder, flags)
        listener.similar.hear()
        with AppServer(listener, 0, model="windows", synthetic=True) as started:
            thread = threading.Thread(
                target=started.serve_forever, args=(0.01,), daemon=True
            )
            thread.start()
            yield started
            started.shutdown()
            thread.join()


def ask(app, method="GET", path="/", body=None, **headers):
    port = app.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    given = {
        name.replace("_", "-"): value.format(port=port)
        for name, value in headers.items()
    }
    # Who is refused may have been answered before all of the body is sent.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, path, body=body, headers=given)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def listen_to(app, path: Path, **headers):
    response, content = ask(app, "POST", "/listen", path.read_bytes(), **headers)
    return response.status, json.loads(content)


def test_a_song_is_answered_as_predict_does(app, models, songs):
    status, answer = listen_to(app, songs["long"])
    assert status == 200
    expected = load_audio_predictor([str(models / "windows")]).predict(
        str(songs["long"])
    )
    found = dict(zip(GENRES, answer["genres"], strict=True))
    assert found == pytest.approx(expected.genres, abs=1e-6)
    starts = [part["start"] for part in answer["excerpts"]]
    assert starts == pytest.approx([95 / 6 - 15, 32.5, 95 * 5 / 6 - 15], abs=0.01)
    mean = np.mean([part["genres"] for part in answer["excerpts"]], axis=0)
    assert answer["genres"] == pytest.approx(mean.tolist())
    assert all(
        part["mel"].startswith("data:image/png;base64,") for part in answer["excerpts"]
    )
    assert answer["seconds"] == pytest.approx(95)


@pytest.fixture
def several(app, songs, monkeypatch):
    """The app with a model of several genres a clip: the second and third are given."""
    _, answer = listen_to(app, songs["short"])
    found = answer["genres"]
    assert "given" not in answer
    network = app.listener.audio.predictor
    manifest = dataclasses.replace(
        network.manifest,
        task=schema.MULTI_LABEL,
        genre_paths={GENRES[2]: (GENRES[1], GENRES[2])},
    )
    thresholds = [min(1, found[0] + 0.01), found[1] / 2, found[2] / 2, 1.0]
    several = dataclasses.replace(network, manifest=manifest, thresholds=thresholds)
    monkeypatch.setattr(app.listener.audio, "predictor", several)
    return several


def test_genres_that_reach_their_thresholds_are_told(app, several, songs, monkeypatch):
    described = json.loads(ask(app, path="/model")[1])
    assert described["thresholds"] == several.thresholds
    assert described["paths"][2] == f"{GENRES[1]} > {GENRES[2]}"
    status, answer = listen_to(app, songs["short"])
    assert status == 200
    predictor = AudioPredictor(several)
    expected = predictor.predict(str(songs["short"])).given
    assert [described["paths"][index] for index in answer["given"]] == list(expected)
    assert sorted(answer["given"]) == [1, 2]
    assert [part["given"] for part in answer["excerpts"]] == [answer["given"]]
    none = dataclasses.replace(several, thresholds=[1.0] * len(GENRES))
    monkeypatch.setattr(app.listener.audio, "predictor", none)
    assert listen_to(app, songs["short"])[1]["given"] == []


def test_a_training_clip_is_most_like_itself(app, corpus):
    status, answer = listen_to(app, corpus / "audio" / "1.wav")
    assert status == 200
    first = answer["similar"][0]
    assert (first["track_id"], first["genre"]) == ("t1", "Low")
    assert first["similarity"] == pytest.approx(1, abs=1e-3)
    described = json.loads(ask(app, path="/model")[1])
    assert described["training_clips_heard"] == described["training_clips"] == 4


def test_what_cannot_be_decoded_is_a_sentence(app, songs, tmp_path):
    status, answer = listen_to(app, songs["broken"])
    assert status == 200
    expected = "It cannot be used: no decoder takes it for audio: libsndfile says"
    assert answer["error"].startswith(expected)
    (tmp_path / "empty.mp3").write_bytes(b"")
    status, answer = listen_to(app, tmp_path / "empty.mp3")
    assert (status, answer["error"]) == (422, "The file is empty.")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://127.0.0.1:{port}"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
    ],
)
def test_only_its_own_page_is_answered(app, songs, headers, status):
    assert listen_to(app, songs["short"], **headers)[0] == status


def test_links_from_elsewhere_lead_here_and_bring_nothing(app):
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    response, _ = ask(app, **link)
    assert response.status == 200
    policy = response.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert ask(app, "POST", "/listen", b"x", **link)[0].status == 403


def test_size_is_limited(app, monkeypatch):
    monkeypatch.setattr(server, "MAX_BYTES", 1000)
    response, content = ask(app, "POST", "/listen", b"x" * 1001)
    assert response.status == 413
    assert "up to 0 MB are taken" in json.loads(content)["error"]
    response, _ = ask(app, "POST", "/listen", None, Content_Length="many")
    assert response.status == 411


def test_time_is_limited(app, monkeypatch):
    assert server._Handler.timeout < server.UPLOAD_SECONDS
    receive = server._Handler._receive

    def receive_briefly(handler, file):
        handler.connection.settimeout(0.2)
        receive(handler, file)

    # The request itself may take its time.
    monkeypatch.setattr(server._Handler, "_receive", receive_briefly)
    with socket.create_connection(app.server_address[:2], timeout=240) as connection:
        host = f"127.0.0.1:{app.server_address[1]}"
        head = f"POST /listen HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n"
        connection.sendall(head.encode() + b"half")
        answer = connection.makefile("rb").read()
    assert b" 408 " in answer.splitlines()[0]


def test_the_number_at_once_is_limited(app, songs, monkeypatch):
    monkeypatch.setattr(app.listener, "_places", threading.BoundedSemaphore(1))
    with app.listener._waiting():
        status, answer = listen_to(app, songs["short"])
    assert (status, answer["error"][:14]) == (503, "Too many songs")
    assert listen_to(app, songs["short"])[0] == 200
    assert listen.MOST_WAITING > 1


@pytest.mark.parametrize(
    "path", ["/clip/t9", "/clip/../../etc/passwd", "/x", "/listen"]
)
def test_nothing_else_is_served(app, path):
    assert ask(app, path=path)[0].status == 404


def test_clips_are_served_whole_and_in_parts(app, corpus):
    whole = (corpus / "audio" / "1.wav").read_bytes()
    response, content = ask(app, path="/clip/t1")
    assert (response.status, content) == (200, whole)
    response, content = ask(app, path="/clip/t1", Range="bytes=10-19")
    assert (response.status, content) == (206, whole[10:20])
    assert response.getheader("Content-Range") == f"bytes 10-19/{len(whole)}"


def test_clips_that_lie_in_a_zip_are_served(app, corpus, tmp_path, monkeypatch):
    """As the dataset of a ZIP names them."""
    archive = zip_folder(tmp_path / "audio.zip", corpus / "audio")
    shutil.copytree(corpus / "dataset", tmp_path / "dataset")
    for path in (tmp_path / "dataset" / "clips").iterdir():
        text = path.read_text()
        path.write_text(text.replace(f"{corpus}/audio/", f"{archive}!/audio/"))
    embedder = app.listener.similar._embedder
    similar = SimilarClips(f"{tmp_path}/dataset", "windows", embedder)
    monkeypatch.setattr(app.listener, "similar", similar)
    response, content = ask(app, path="/clip/t1")
    assert response.status == 200
    assert content == (corpus / "audio" / "1.wav").read_bytes()
    damage(archive, "audio/1.wav")
    assert ask(app, path="/clip/t1")[0].status == 404


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--excerpts=0"], "--excerpts must be 1 or more"),
        (["--audio=x"], "--audio has the files of --data"),
        (["--port=99999"], "--port must be from 0"),
        (["--data=nowhere"], "completed dataset"),
    ],
)
def test_wrong_flags_are_one_sentence(models, capsys, flags, message):
    assert main([f"--model={models}/windows", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_taken_port_is_told_before_models_are_loaded(models, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([f"--model={models}/nowhere", f"--port={port}"]) == 2
    assert capsys.readouterr().err == (
        f"error: Port {port} cannot be used (Address already in use); give another "
        "--port.\n"
    )


def test_only_a_port_is_told_of_as_one(models, monkeypatch):
    def fail(folders):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loading, "load_predictors", fail)
    with pytest.raises(OSError, match="No space left"):
        main([f"--model={models}/windows", "--port=0"])


# In a browser


def wait(page, condition: str) -> None:
    """As `page.wait_for_function`, which the page's own policy forbids."""
    for _ in range(2_400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise TimeoutError(condition)


@pytest.mark.parametrize("width", [390, 1080])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_songs_are_chosen_in_a_browser(app, browser, songs, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    own = f"http://127.0.0.1:{app.server_address[1]}/"
    page.goto(own)
    page.set_input_files("#files", [songs["long"], songs["short"]])
    wait(page, "document.querySelectorAll('.lead:not(:empty)').length == 2")
    assert page.locator("#synthetic").is_visible()
    song = page.locator(".song").last
    assert "1:35 long; 3 parts" in song.locator(".outcome").inner_text()
    assert song.locator(".columns button").count() == 3
    wait(page, "[...document.images].every(i => i.complete)")
    broken = page.eval_on_selector_all(
        "img", "all => all.filter(i => !i.naturalWidth).length"
    )
    assert broken == 0
    # By keyboard: the second part plays, and the line of time follows.
    second = song.locator(".columns button").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    wait(page, "[...document.querySelectorAll('audio')].some(a => a.currentTime > 32)")
    wait(
        page,
        "parseFloat([...document.querySelectorAll('.playhead')].at(-1).style.left"
        ".slice(5)) > 30",
    )
    assert song.locator(".similar li").count() == 4
    song.locator("summary").click()
    assert song.locator("tbody tr").count() == len(GENRES)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/app-{width}-{scheme}.png", full_page=True)
    page.set_input_files("#files", [songs["broken"]])
    alert = page.locator("[role=alert]")
    alert.wait_for()
    assert "It cannot be used" in alert.inner_text()
    assert page.locator("h2", has_text="broken <b>.mp3").count() == 1
    assert complaints == []
    assert [
        url for url in requests if not url.startswith((own, "blob:", "data:"))
    ] == []
    context.close()


def test_given_genres_are_marked_in_a_browser(
    app, several, browser, songs, monkeypatch
):
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{app.server_address[1]}/")
    page.set_input_files("#files", [songs["short"]])
    wait(page, "document.querySelectorAll('.lead:not(:empty)').length == 1")
    assert "marked ✓" in page.locator("#about").inner_text()
    song = page.locator(".song")
    path = f"{GENRES[1]} > {GENRES[2]} "
    for told in (
        song.locator(".lead").inner_text(),
        page.locator("#status").inner_text(),
        song.locator(".columns button").get_attribute("aria-label"),
    ):
        assert path in told
        assert GENRES[0] not in told
        assert GENRES[3] not in told
    marked = song.locator(".legend li").all_inner_texts()
    assert sorted(text[:2] == "✓ " for text in marked) == [False, False, True, True]
    assert all(text[:2] == "✓ " for text in marked[:2])
    song.locator("summary").click()
    rows = [row.split("\t") for row in song.locator("tr").all_inner_texts()]
    assert rows[0][:3] == ["genre", "threshold", "song"]
    assert [cell[:1] for row in rows[1:3] for cell in row[2:]] == ["✓"] * 4
    assert not any("✓" in cell for row in rows[3:] for cell in row)
    assert "✓" in song.locator("caption").inner_text()
    none = dataclasses.replace(several, thresholds=[1.0] * len(GENRES))
    monkeypatch.setattr(app.listener.audio, "predictor", none)
    page.set_input_files("#files", [songs["short"]])
    wait(page, "document.querySelectorAll('.lead:not(:empty)').length == 2")
    told = page.locator(".lead").first.inner_text()
    assert told.startswith("No genre reaches its threshold; the most probable: ")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/app-several.png", full_page=True)
    assert complaints == []
    page.close()


def drop(page, *paths: Path) -> None:
    """As a file manager's window does."""
    session = page.context.new_cdp_session(page)
    dragged = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send(
            "Input.dispatchDragEvent", {"type": kind, "x": 9, "y": 9, "data": dragged}
        )


def test_what_a_dropped_folder_holds_is_heard(app, browser, songs, tmp_path):
    """What is audio by its name, in order; what else is in it is told."""
    (tmp_path / "album" / "b").mkdir(parents=True)
    for name in ("10.wav", "9.wav", "b/1.WAV"):
        shutil.copy(songs["short"], tmp_path / "album" / name)
    (tmp_path / "album" / "cover.jpg").write_bytes(b"picture")
    (tmp_path / "album" / "notes").write_text("words")
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{app.server_address[1]}/")
    drop(page, tmp_path / "album", songs["short"])
    wait(page, "document.querySelectorAll('.lead:not(:empty)').length == 4")
    names = page.locator("h2").all_inner_texts()
    last = songs["short"].name
    assert names == [last, "album/b/1.WAV", "album/10.wav", "album/9.wav"]
    taken = page.locator("#taken")
    assert taken.inner_text() == "Files left out, as no audio by their names: 2."
    (tmp_path / "empty").mkdir()
    drop(page, tmp_path / "empty")
    page.locator("#taken", has_text="No song was found").wait_for()
    assert complaints == []
    page.close()
