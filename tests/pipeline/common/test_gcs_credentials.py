import http.server
import threading
import time

import pytest

from pipeline import preprocess
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


def test_no_metadata_server_costs_seconds_at_most(monkeypatch):
    monkeypatch.delenv("NO_GCE_CHECK")
    # Reserved for documentation: no host answers.
    monkeypatch.setenv("GCE_METADATA_IP", "192.0.2.1")
    started = time.monotonic()
    assert not has_credentials()
    assert time.monotonic() - started < 5


def test_only_remote_paths_need_credentials():
    require_credentials(["/music/*.mp3", "relative", "/gcs/bucket/x", None, ""])
    with pytest.raises(UserError, match=r"^gs://b/x needs Google Cloud credentials"):
        require_credentials(["/music", "gs://b/x"])


@pytest.mark.parametrize(
    "remote",
    ["--audio=gs://b-1/*.mp3", "--metadata=gs://b-1/t.csv", "--output=gs://b-1/d"],
)
def test_the_pipeline_says_so_in_seconds(tmp_path, capsys, remote):
    (tmp_path / "t.csv").write_text("path,genre\na.wav,Rock\n")
    (tmp_path / "a.wav").write_bytes(b"")
    started = time.monotonic()
    code = preprocess.main(
        [
            f"--audio={tmp_path}/*.wav",
            f"--metadata={tmp_path}/t.csv",
            f"--output={tmp_path}/out",
            remote,
        ]
    )
    assert time.monotonic() - started < 5
    error = capsys.readouterr().err
    assert code == 2
    assert "gcloud auth application-default login" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "flag", ["--data", "--output", "--checkpoint_dir", "--weights"]
)
def test_the_trainer_says_so_in_seconds(tmp_path, capsys, flag):
    from trainer import task

    paths = {"--data": str(tmp_path), "--output": str(tmp_path / "m")}
    paths[flag] = "gs://bucket/folder"
    started = time.monotonic()
    code = task.main(
        ["--model=mel", *(f"{name}={path}" for name, path in paths.items())]
    )
    assert time.monotonic() - started < 5
    error = capsys.readouterr().err
    assert code == 2
    assert "gcloud auth application-default login" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("predict", ["--model=gs://bucket/m", "song.mp3"]),
        ("export", ["--model=gs://bucket/m"]),
        ("compare", ["--models=gs://bucket/m"]),
        ("baselines", ["--data=gs://bucket/d", "--output=models"]),
    ],
)
def test_so_does_the_rest_of_the_trainer(capsys, module, arguments):
    import importlib

    main = importlib.import_module(f"trainer.{module}.__main__").main
    started = time.monotonic()
    assert main(arguments) == 2
    assert time.monotonic() - started < 5
    assert "gcloud auth application-default login" in capsys.readouterr().err
