"""The real SDK submits to a fake job service, which runs nothing."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pipeline.schema import UserError
from tests.support.cloud.environment import BUCKET, loopback_cloud
from tests.support.cloud.services import CUSTOM_JOB
from trainer.vertex import __main__ as vertex
from trainer.vertex import job

ACCOUNT = "trainer@fma-project.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory):
    with loopback_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> str:
    from tests.support.trainer_fixtures import write_dataset

    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, representations=("mel",))
    return (folder / "manifest.json").read_text()


@pytest.fixture
def cloud(shared_cloud, manifest, monkeypatch):
    shared_cloud.clear()
    shared_cloud.put("dataset/manifest.json", manifest.encode())
    marker = f"{json.loads(manifest)['fingerprint']}\n"
    shared_cloud.put("dataset/COMPLETED", marker.encode())
    shared_cloud.services.states = ["QUEUED", "RUNNING", "SUCCEEDED"]
    monkeypatch.setattr(job, "POLL_SECONDS", 0.01)
    return shared_cloud


def arguments(cloud, *extra: str) -> list[str]:
    return [
        "--project=fma-project",
        "--region=us-central1",
        f"--bucket={BUCKET}",
        f"--data=gs://{BUCKET}/dataset",
        "--model=mel",
        f"--endpoint={cloud.endpoint}",
        *extra,
    ]


def created(cloud):
    (request,) = cloud.services.sent("POST", "/customJobs")
    return request


def test_submits_and_follows_to_success(cloud, capsys):
    code = vertex.main(
        arguments(
            cloud,
            "--job_name=fma-mel",
            "--accelerator=NVIDIA_L4",
            "--replicas=3",
            "--spot",
            f"--service_account={ACCOUNT}",
            "--tensorboard=projects/fma-project/locations/us-central1/tensorboards/7",
            "--network=projects/1/global/networks/music",
            "--timeout_hours=2",
            "--wait",
            "--epochs=5",
            "--weights=gs://fma-test/weights.h5",
        )
    )
    output = capsys.readouterr()
    assert code == 0
    assert output.err == ""
    for expected in (
        "3 x g2-standard-8 with 1 NVIDIA_L4 each, spot",
        f"Submitted: {CUSTOM_JOB}",
        "https://console.cloud.google.com/vertex-ai/locations/us-central1/training/456",
        "job 456: queued",
        "job 456: succeeded",
        f"Model: gs://{BUCKET}/vertex/fma-mel/model\n"
        f"Next: ./launch.sh predict --model gs://{BUCKET}/vertex/fma-mel/model FILE\n",
    ):
        assert expected in output.out
    request = created(cloud)
    assert request.path.partition("?")[0] == (
        "/v1/projects/fma-project/locations/us-central1/customJobs"
    )
    assert request.authorization.startswith("Bearer ")
    check_request(request.body)


def check_request(body) -> None:
    assert body["displayName"] == "fma-mel"
    assert body["labels"] == {"application": "fma-genre-classifiers"}
    spec = body["jobSpec"]
    assert spec["baseOutputDirectory"] == {
        "outputUriPrefix": f"gs://{BUCKET}/vertex/fma-mel"
    }
    assert spec["serviceAccount"] == ACCOUNT
    assert spec["tensorboard"].endswith("/tensorboards/7")
    assert spec["network"] == "projects/1/global/networks/music"
    assert spec["scheduling"]["timeout"] == "7200s"
    assert spec["scheduling"]["restartJobOnWorkerRestart"] is True
    assert spec["scheduling"]["strategy"] in ("SPOT", 4)
    chief, others = spec["workerPoolSpecs"]
    assert int(chief["replicaCount"]) == 1
    assert int(others["replicaCount"]) == 2
    for pool in (chief, others):
        machine = pool["machineSpec"]
        assert machine["machineType"] == "g2-standard-8"
        assert machine["acceleratorType"] in ("NVIDIA_L4", 11)
        assert machine["acceleratorCount"] == 1
        container = pool["containerSpec"]
        assert container["imageUri"] == (
            "us-central1-docker.pkg.dev/fma-project/fma/trainer:latest"
        )
        assert container["command"] == ["python", "-m", "trainer.task"]
        assert container["args"] == [
            f"--data=gs://{BUCKET}/dataset",
            "--model=mel",
            "--epochs=5",
            "--weights=gs://fma-test/weights.h5",
        ]
        assert "env" not in container


def normalise(body):
    """Numbers of enums, as REST sends them, and their names, as people read them."""
    text = json.dumps(body, sort_keys=True)
    for number, name in ((4, "SPOT"), (11, "NVIDIA_L4")):
        text = text.replace(f'"{name}"', str(number))
    return json.loads(text)


def test_a_dry_run_prints_the_request_that_would_be_sent(cloud, capsys):
    options = arguments(cloud, "--job_name=a", "--accelerator=NVIDIA_L4", "--spot")
    before = cloud.list("")
    assert vertex.main([*options, "--dry_run"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert not cloud.services.sent("POST", "/customJobs")
    assert cloud.list("") == before
    assert vertex.main(options) == 0
    assert stringify(normalise(printed)) == stringify(normalise(created(cloud).body))


def stringify(value):
    """64-bit numbers are text in JSON, in one of the two."""
    if isinstance(value, dict):
        return {key: stringify(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stringify(item) for item in value]
    return str(value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("FAILED", "ended as failed (The replica workerpool0-0 exited with 1)"),
        ("CANCELLED", "ended as cancelled"),
        ("EXPIRED", "ended as expired"),
    ],
)
def test_an_unhappy_end_is_the_exit_code(cloud, capsys, state, message):
    cloud.services.states = ["RUNNING", state]
    cloud.services.error = "The replica workerpool0-0 exited with 1"
    assert vertex.main(arguments(cloud, "--wait")) == 1
    assert message in capsys.readouterr().err


def test_interrupting_the_follower_does_not_cancel_the_job(cloud, capsys, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    # For the follower alone, and for no other thread.
    clock = SimpleNamespace(sleep=interrupt, monotonic=time.monotonic)
    monkeypatch.setattr(job, "time", clock)
    assert vertex.main(arguments(cloud, "--wait")) == 130
    error = capsys.readouterr().err
    assert "The job goes on: https://console" in error
    assert f"gcloud ai custom-jobs cancel {CUSTOM_JOB}" in error
    assert not [r for r in cloud.services.requests if ":cancel" in r.path]


def test_the_follower_waits_out_an_outage(cloud, monkeypatch):
    from google.api_core.exceptions import ServiceUnavailable

    client = Flaky(ServiceUnavailable("gone"))
    lines: list[str] = []
    assert job.follow(client, CUSTOM_JOB, lines.append) == ("SUCCEEDED", "")
    assert [line for line in lines if "it goes on" in line]


class Flaky:
    """Fails once, then has succeeded."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def get_custom_job(self, name, timeout):
        from google.cloud import aiplatform_v1

        error, self._error = self._error, None
        if error:
            raise error
        return aiplatform_v1.CustomJob(state="JOB_STATE_SUCCEEDED")


def test_a_tpu_gets_its_machine_and_environment(cloud):
    options = arguments(cloud, "--tpu=v5e", "--accelerator_count=4")
    assert vertex.main(options) == 0
    (pool,) = created(cloud).body["jobSpec"]["workerPoolSpecs"]
    machine = pool["machineSpec"]
    assert machine["machineType"] == "ct5lp-hightpu-4t"
    assert machine["tpuTopology"] == "2x2"
    assert "acceleratorType" not in machine
    environment = {v["name"]: v["value"] for v in pool["containerSpec"]["env"]}
    assert environment == job.TPU_ENVIRONMENT


@pytest.mark.parametrize("tensorboard", [True, False])
def test_a_job_that_is_tracked_knows_where(cloud, monkeypatch, tensorboard):
    board = "projects/fma-project/locations/us-central1/tensorboards/7"
    flags = [f"--tensorboard={board}", f"--service_account={ACCOUNT}"]
    expected = {"VERTEX_TENSORBOARD": board} if tensorboard else {}
    monkeypatch.setenv("VERTEX_EXPERIMENT", "shelf")
    flags = [*(flags if tensorboard else []), "--track=vertex"]
    assert vertex.main(arguments(cloud, *flags)) == 0
    (pool,) = created(cloud).body["jobSpec"]["workerPoolSpecs"]
    container = pool["containerSpec"]
    assert "--track=vertex" in container["args"]
    assert {v["name"]: v["value"] for v in container["env"]} == expected | {
        "GOOGLE_CLOUD_PROJECT": "fma-project",
        "GOOGLE_CLOUD_REGION": "us-central1",
        "VERTEX_EXPERIMENT": "shelf",
    }


def test_a_job_tells_weights_and_biases_from_an_own_image_only(cloud, capsys):
    assert vertex.main(arguments(cloud, "--track", "wandb,vertex")) == 2
    assert "use --track vertex, or an image of your own" in capsys.readouterr().err
    assert not cloud.services.sent("POST", "/customJobs")
    options = arguments(cloud, "--track=wandb", "--container=registry/mine:1")
    assert vertex.main(options) == 0
    (pool,) = created(cloud).body["jobSpec"]["workerPoolSpecs"]
    assert "env" not in pool["containerSpec"]


def test_a_mounted_bucket_is_checked_as_itself(cloud, capsys):
    mounted = f"--data=/gcs/{BUCKET}/dataset"
    assert vertex.main(arguments(cloud, mounted)) == 0
    (pool,) = created(cloud).body["jobSpec"]["workerPoolSpecs"]
    assert pool["containerSpec"]["args"][0] == mounted


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--region=here"], "--region must be a region"),
        (["--region=europe-west1-b"], "not a zone: europe-west1"),
        (["--project=My project"], "must be a project's id"),
        (["--service_account=me"], "--service_account must be an e-mail address"),
        (["--bucket=b"], "--bucket must name a bucket"),
        (["--job_name=My job"], "--job_name must have at most 63"),
        (["--replicas=0"], "--replicas must be 1 or more. Received: 0"),
        (["--timeout_hours=0"], "--timeout_hours must be over 0"),
        (["--tpu=v6e"], "no longer supports TensorFlow"),
        (["--tpu=v3"], "--tpu must be one of v5e. Received: 'v3'"),
        (["--tpu=v5e", "--replicas=2"], "--tpu goes with one machine"),
        (["--accelerator_count=2"], "needs --accelerator or --tpu"),
        (
            ["--accelerator=NVIDIA_L4", "--accelerator_count=3"],
            "must be one of 1, 2, 4, 8. Received: 3",
        ),
        (["--tpu=v5e", "--accelerator_count=0"], "one of 1, 4, 8. Received: 0"),
        (["--tensorboard=7"], "--tensorboard must be projects/P"),
        (
            ["--tensorboard=projects/p/locations/r/tensorboards/7"],
            "--tensorboard needs --service_account",
        ),
        (["--data=/data"], "--data must be on gs:// or /gcs/BUCKET"),
        (["--weights=w.h5"], "--weights must be on gs://"),
        (["--report=r"], "--report must be on gs://"),
        (["--epochs=0"], "--epochs must be 1 or more. Received: 0"),
        (["--tune=-1"], "--tune must be 0 or more. Received: -1"),
        (["--model=features", "--fine_tune_layers=2"], "are for --model mel"),
        (["--replicas=2", "--tune=3"], "--tune is for one machine. Received: --rep"),
        (
            [
                *("--replicas=2", "--accelerator=NVIDIA_L4"),
                *("--accelerator_count=2", "--batch_size=34"),
            ],
            "--batch_size must be a multiple of 4, the devices that share it. Rec",
        ),
        (
            [
                *("--replicas=2", "--accelerator=NVIDIA_L4", "--strategy=mirrored"),
                *("--accelerator_count=2", "--batch_size=33"),
            ],
            "--batch_size must be a multiple of 2, the devices that share it. Rec",
        ),
        (["--output=models/mel"], "--output must be on gs://"),
        (["--checkpoint_dir=/tmp/c"], "--checkpoint_dir must be on gs://"),
        ([f"--data=gs://{BUCKET}/nothing"], "it has no manifest.json"),
        (["--data=gs://fma-nowhere/x"], "There is no bucket gs://fma-nowhere"),
        (["--model=features"], "--data has no features records, only mel"),
    ],
)
def test_refuses_before_anything_is_sent(cloud, capsys, extra, message):
    assert vertex.main(arguments(cloud, *extra)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not cloud.services.sent("POST", "/customJobs")


@pytest.mark.parametrize(("strategy", "size"), [("mirrored", 34), ("single", 33)])
def test_machines_that_train_by_themselves_share_no_batch(
    cloud, capsys, strategy, size
):
    flags = ["--replicas=2", "--accelerator=NVIDIA_L4", "--accelerator_count=2"]
    flags += [f"--strategy={strategy}", f"--batch_size={size}"]
    assert vertex.main(arguments(cloud, *flags)) == 0
    assert "each of the 2 machines trains the whole model" in capsys.readouterr().err


def test_unknown_flags_end_here_and_not_there(cloud, capsys):
    with pytest.raises(SystemExit) as error:
        vertex.main(arguments(cloud, "--colour=red"))
    assert error.value.code == 2
    assert "unknown option: --colour=red" in capsys.readouterr().err
    assert not cloud.services.sent("POST", "/customJobs")


def test_an_unfinished_dataset_is_refused(cloud, manifest, capsys):
    cloud.clear()
    cloud.put("dataset/manifest.json", manifest.encode())
    assert vertex.main(arguments(cloud)) == 2
    assert "it has no COMPLETED; preprocess it first" in capsys.readouterr().err


def test_a_service_that_refuses_is_one_sentence(cloud, capsys):
    cloud.services.failure = (403, "Vertex AI API has not been used in project")
    cloud.services.requests.clear()
    assert vertex.main(arguments(cloud)) == 2
    # Asked once: Google's client would ask again for minutes.
    assert len(cloud.services.sent("POST", "/customJobs")) == 1
    error = capsys.readouterr().err
    assert "Vertex AI API has not been used in project" in error
    assert error.count("\n") == 1


def test_without_credentials_nobody_looks_for_them_for_long(
    cloud, capsys, monkeypatch, tmp_path
):
    def look(*_: object, **__: object) -> None:
        pytest.fail("Google's library looks for half a minute")

    monkeypatch.setattr("google.auth.default", look)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    assert vertex.main(arguments(cloud)) == 2
    assert "gcloud auth application-default login" in capsys.readouterr().err


@pytest.mark.parametrize("gpu", sorted(job.GPU_MACHINES))
def test_every_gpu_has_a_machine_with_one(gpu):
    assert job.GPU_MACHINES[gpu][1]


def test_defaults_name_the_job_after_model_and_time(cloud):
    import datetime

    flags = vertex.make_parser().parse_args(arguments(cloud))
    now = datetime.datetime(2026, 11, 22, 10, 30, 0)
    config = vertex.make_config(flags, [], now)
    assert config.job_name == "fma-mel-20261122-103000"
    assert config.machine_spec() == {"machine_type": job.CPU_MACHINE}
    with pytest.raises(UserError, match="--region"):
        vertex.make_config(vertex.make_parser().parse_args(
            [*arguments(cloud), "--region=x"]), [], now)  # fmt: skip


def test_the_trainer_does_not_import_it():
    code = "import sys, trainer.task; print([m for m in sys.modules if 'vertex' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_dry_run_without_credentials_prints_the_request_all_the_same(
    cloud, capsys, monkeypatch
):
    options = arguments(cloud, "--job_name=a", "--accelerator=NVIDIA_L4", "--dry_run")
    assert vertex.main(options) == 0
    known = json.loads(capsys.readouterr().out)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert vertex.main(options) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == known
    assert "Not checked: that gs://" in printed.err
    assert vertex.main(options[:-1]) == 2
    assert "credentials" in capsys.readouterr().err
