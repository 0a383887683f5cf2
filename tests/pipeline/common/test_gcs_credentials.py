import http.server
import importlib
import socket
import threading

import pytest

from pipeline import preprocess
from pipeline.common import credentials
from pipeline.common.credentials import has_credentials, require_credentials
from pipeline.schema import UserError


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch, tmp_path):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def metadata_server():
    class Handler(http.server.BaseHTTPRequestHandler):
        flavor = "Google"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Metadata-Flavor", self.flavor)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_key_file_is_enough(monkeypatch, tmp_path):
    (tmp_path / "key.json").write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert has_credentials()


def test_a_key_file_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(UserError, match=r"does not exist.*Received: /nowhere/key"):
        has_credentials()


def test_what_gcloud_leaves_is_enough(tmp_path):
    (tmp_path / "gcloud").mkdir()
    assert not has_credentials()
    (tmp_path / "gcloud" / "application_default_credentials.json").write_text("{}")
    assert has_credentials()


def test_a_machine_of_google_is_enough(monkeypatch, metadata_server):
    monkeypatch.delenv("NO_GCE_CHECK")
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{metadata_server.server_port}")
    assert has_credentials()
    metadata_server.RequestHandlerClass.flavor = "Other"
    assert not has_credentials()


def test_a_metadata_server_that_is_silent_is_not_waited_for(monkeypatch):
    monkeypatch.delenv("NO_GCE_CHECK")
    assert credentials.METADATA_TIMEOUT < 5
    monkeypatch.setattr(credentials, "METADATA_TIMEOUT", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # Connections are taken and not answered.
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{silent.getsockname()[1]}")
        assert not has_credentials()


@pytest.fixture
def refused(monkeypatch, capsys):
    """Checks that a command says what it needs, and asks no host for minutes first."""
    hosts = []

    def look(host, *_, **__):
        hosts.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr(
        socket, "create_connection", lambda address, *_, **__: look(*address)
    )

    def check(main, arguments):
        assert main(arguments) == 2
        assert hosts == []
        error = capsys.readouterr().err
        assert "gcloud auth application-default login" in error
        assert error.count("\n") == 1

    return check


def test_only_remote_paths_need_credentials():
    require_credentials(["/music/*.mp3", "relative", "/gcs/bucket/x", None, ""])
    with pytest.raises(UserError, match=r"^gs://b/x needs Google Cloud credentials"):
        require_credentials(["/music", "gs://b/x"])


@pytest.mark.parametrize(
    "remote",
    ["--audio=gs://b-1/*.mp3", "--metadata=gs://b-1/t.csv", "--output=gs://b-1/d"],
)
def test_the_pipeline_says_so_at_once(tmp_path, remote, refused):
    (tmp_path / "t.csv").write_text("path,genre\na.wav,Rock\n")
    (tmp_path / "a.wav").write_bytes(b"")
    arguments = [
        f"--audio={tmp_path}/*.wav",
        f"--metadata={tmp_path}/t.csv",
        f"--output={tmp_path}/out",
    ]
    refused(preprocess.main, [*arguments, remote])


@pytest.mark.parametrize(
    "flag", ["--data", "--output", "--checkpoint_dir", "--weights"]
)
def test_the_trainer_says_so_at_once(tmp_path, flag, refused):
    from trainer import task

    paths = {"--data": str(tmp_path), "--output": str(tmp_path / "m")}
    paths[flag] = "gs://bucket/folder"
    refused(task.main, ["--model=mel", *(f"{name}={p}" for name, p in paths.items())])


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("predict", ["--model=gs://bucket/m", "song.mp3"]),
        ("export", ["--model=gs://bucket/m"]),
        ("compare", ["--models=gs://bucket/m"]),
        ("baselines", ["--data=gs://bucket/d", "--output=models"]),
    ],
)
def test_so_does_the_rest_of_the_trainer(module, arguments, refused):
    refused(importlib.import_module(f"trainer.{module}.__main__").main, arguments)
