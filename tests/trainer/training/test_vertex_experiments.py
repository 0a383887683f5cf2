"""The real SDK tells fake services, which keep what they are told."""

import concurrent.futures
import importlib.util
import json
import threading

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform import initializer

from tests.support.cloud.experiments import BOARD
from tests.support.cloud.services import Services
from trainer import task
from trainer.config import TrainConfig
from trainer.evaluation.report_folder import read_report
from trainer.training.fit import PhaseFit
from trainer.training.tracking import vertex_experiments
from trainer.training.tracking.vertex_experiments import VertexService
from trainer.training.tracking.weights_and_biases import WandbService

pytestmark = pytest.mark.usefixtures("undrawn")
VARIABLES = ("CLOUD_ML_PROJECT_ID", "CLOUD_ML_REGION", "VERTEX_EXPERIMENT")
REFUSAL = (403, "Permission 'aiplatform.contexts.create' denied")


@pytest.fixture(scope="module")
def started():
    services = Services()
    yield services
    services.close()


@pytest.fixture
def services(started, monkeypatch):
    started.reset()
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "fma-project")
    monkeypatch.setenv("GOOGLE_CLOUD_REGION", "us-central1")
    monkeypatch.setenv("VERTEX_TENSORBOARD", BOARD)
    settings = dict.fromkeys(("project", "location", "api_transport"))
    settings["api_endpoint"] = f"http://127.0.0.1:{started.port}"
    settings["credentials"] = AnonymousCredentials()
    for name, value in settings.items():
        monkeypatch.setattr(initializer.global_config, f"_{name}", value)
    return started


def train(data, output, *flags) -> int:
    words = (f"--data={data}", f"--output={output}", "--epochs=4", "--track=vertex")
    return task.main([*words, "--model=statistics", *flags])


def history(output) -> dict[str, list[tuple[int, float]]]:
    [phase] = json.loads((output / "history.json").read_text())["phases"]
    return {
        name: list(enumerate(values, start=1))
        for name, values in phase["metrics"].items()
    }


@pytest.mark.parametrize("board", [True, False])
def test_a_run_is_told_from_parameters_to_scores(
    data, services, tmp_path, monkeypatch, capsys, board
):
    if not board:
        monkeypatch.delenv("VERTEX_TENSORBOARD")
        monkeypatch.setenv("VERTEX_EXPERIMENT", "shelf")
    output = tmp_path / "Models (2)" / "statistics"
    assert train(data, output, "--verbose") == 0
    [run] = services.experiments.runs()
    assert run["_state"] == "COMPLETE"
    parameters, metrics = run["_params"], run["_metrics"]
    assert (parameters["epochs"], parameters["model"]) == (4, "statistics")
    assert parameters["key"].startswith("statistics-")
    assert "dropout" not in parameters
    told = history(output)
    assert metrics["epochs"] == 4
    assert metrics["validation_loss"] == pytest.approx(told["validation_loss"][-1][1])
    report = read_report(str(output))
    assert metrics["test_accuracy"] == pytest.approx(report.test.accuracy)
    experiment = "fma-genre-classifiers" if board else "shelf"
    printed = capsys.readouterr().out
    assert f"/experiments/{experiment}/runs/{experiment}-models-2-statistics" in printed
    assert "Associating" not in printed
    series = services.experiments.series()
    assert series == (told if board else {})
    if not board:
        assert not any("tensorboards" in r.path for r in services.requests)


def test_a_continued_training_is_the_same_run(data, services, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PhaseFit, "_must_stop", lambda fit: fit._progress.epoch == 2)
        assert train(data, tmp_path / "model") == 75
    [run] = services.experiments.runs()
    assert run["_state"] == "CANCELLED"
    assert train(data, tmp_path / "model") == 0
    [run] = services.experiments.runs()
    assert run["_state"] == "COMPLETE"
    assert services.experiments.series() == history(tmp_path / "model")
    assert train(data, tmp_path / "another") == 0
    assert len(services.experiments.runs()) == 2


def test_a_run_that_fails_is_told_so(data, services, tmp_path):
    flags = ("--learning_rate=1e30", "--units=64", "--dropout=0.5")
    assert train(data, tmp_path / "model", *flags) == 2
    [run] = services.experiments.runs()
    assert run["_state"] == "FAILED"


def test_an_outage_costs_a_warning_and_no_training(
    data, services, tmp_path, monkeypatch, capsys
):
    answer = services.experiments.answer

    def fail(method: str, path: str, body: object) -> tuple[int, object]:
        if ":write" in path:
            services.failure = (503, "service unavailable")
        return answer(method, path, body)

    monkeypatch.setattr(services.experiments, "answer", fail)
    assert train(data, tmp_path / "model") == 0
    assert capsys.readouterr().err.count("cannot be told about the run (503") == 1
    assert (tmp_path / "model" / "model.keras").exists()


@pytest.mark.parametrize("epochs", [1, 9])
def test_what_cannot_be_sent_holds_nothing_up(services, monkeypatch, epochs):
    """With one epoch, the end is the first to notice."""
    config = TrainConfig(data="data", output="model", model="statistics")
    service = VertexService(config)
    service.begin("0a1b2c3d", "key")
    tried, all_logged, ended = [], threading.Event(), threading.Event()

    def fail(_values: object, epoch: int) -> None:
        (ended if tried else all_logged).wait(240)
        tried.append(epoch)
        raise OSError("no answer")

    monkeypatch.setattr(service._run, "log_time_series_metrics", fail)
    for epoch in range(epochs):
        service.log_epoch({"loss": 1.0}, epoch)
    all_logged.set()
    concurrent.futures.wait(service._sent[:1])
    with pytest.raises(OSError, match="no answer"):
        service.end("complete")
    ended.set()
    service._sender.shutdown(wait=True)  # As Python does at its end.
    assert tried in ([0], [0, 1])


def test_the_end_waits_once_for_all_that_is_not_sent(services, monkeypatch):
    waits, ended = [], threading.Event()

    def wait(futures: list[object], seconds: float, until: str) -> None:
        waits.append((len(futures), seconds, until))

    monkeypatch.setattr(vertex_experiments, "wait", wait)
    config = TrainConfig(data="data", output="model", model="statistics")
    service = VertexService(config)
    service.begin("0a1b2c3d", "key")
    slow = lambda *_: ended.wait(240)  # noqa: E731
    monkeypatch.setattr(service._run, "log_time_series_metrics", slow)
    for epoch in range(20):
        service.log_epoch({"loss": 1.0}, epoch)
    with pytest.raises(TimeoutError):
        service.end("complete")
    # The epochs, the last one's metrics and the state.
    assert waits == [(22, vertex_experiments.WAIT, concurrent.futures.FIRST_EXCEPTION)]
    assert not ended.is_set()
    ended.set()
    service._sender.shutdown(wait=True)


def test_a_run_that_is_not_taken_is_not_trained_unless_it_was_begun(
    data, services, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr(PhaseFit, "_must_stop", lambda fit: fit._progress.epoch == 2)
        assert train(data, tmp_path / "begun") == 75
    services.failure = REFUSAL
    capsys.readouterr()
    assert train(data, tmp_path / "new") == 2
    printed = capsys.readouterr().err
    assert "Vertex AI does not take the run (403" in printed
    assert "project fma-project (GOOGLE_CLOUD_PROJECT)" in printed
    assert not (tmp_path / "new" / "model.keras").exists()
    assert train(data, tmp_path / "begun") == 0
    assert capsys.readouterr().err.count("cannot be told about the run (403") == 1


@pytest.mark.parametrize(
    ("name", "in_a_job", "value"),
    [
        ("GOOGLE_CLOUD_PROJECT", "CLOUD_ML_PROJECT_ID", "fma-project"),
        ("GOOGLE_CLOUD_REGION", "CLOUD_ML_REGION", "us-central1"),
    ],
)
def test_a_missing_place_is_told_before_any_work(
    data, services, tmp_path, monkeypatch, capsys, name, in_a_job, value
):
    monkeypatch.delenv(name)
    assert train(data, tmp_path / "model") == 2
    assert f"{name}, which is not set" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    monkeypatch.setenv(in_a_job, value)
    assert train(data, tmp_path / "model", "--epochs=1") == 0


@pytest.mark.parametrize("parent", [True, False])
def test_without_the_sdk_a_sentence_says_what_installs_it(
    data, services, tmp_path, monkeypatch, capsys, parent
):
    def find(name: str) -> None:
        if not parent:
            raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert train(data, tmp_path / "model") == 2
    printed = capsys.readouterr().err
    assert "pip install 'fma-genre-classifiers[cloud]'" in printed


def test_both_services_are_told(data, services, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(WandbService, "begin", lambda *_: "")
    monkeypatch.setattr(WandbService, "log_epoch", lambda *_: None)
    monkeypatch.setattr(WandbService, "summarise", lambda *_: None)
    monkeypatch.setattr(WandbService, "end", lambda _, ending: ended.append(ending))
    assert train(data, tmp_path / "model", "--track=wandb,vertex") == 0
    assert services.experiments.runs()[0]["_state"] == "COMPLETE"
    assert ended == ["complete"]
