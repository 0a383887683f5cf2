"""The real DataflowRunner submits to a fake service and stages to an emulator."""

import io
import json
import re
import tarfile

import apache_beam as beam
import pytest
from apache_beam.runners.dataflow.internal import apiclient
from google.api_core.exceptions import ServiceUnavailable
from google.cloud import dataflow as api
from google.protobuf import json_format

from pipeline import preprocess
from pipeline.cloud import dataflow, dry_run, follow, submission
from pipeline.common.credentials import UnreachableError
from pipeline.job.graph import build
from pipeline.launch.plan import parse_beam_options
from pipeline.schema import UserError
from tests.support.cloud.environment import BUCKET, loopback_cloud
from tests.support.cloud.services import JOB_ID
from tests.support.corpora import write_plain_corpus

CONTAINER = "europe-west1-docker.pkg.dev/fma-project/fma/dataflow:1"


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory):
    with loopback_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_plain_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(corpus):
    """What the job would have made, made here."""
    arguments = [
        f"--audio={corpus}/audio/*.wav",
        f"--metadata={corpus}/tracks.csv",
        f"--output={corpus}/dataset",
        "--representations=mel",
    ]
    assert preprocess.main(arguments) == 0
    return corpus / "dataset"


@pytest.fixture
def cloud(shared_cloud, corpus, monkeypatch):
    shared_cloud.clear()
    shared_cloud.upload(corpus / "audio", "corpus/audio")
    shared_cloud.put("corpus/tracks.csv", (corpus / "tracks.csv").read_bytes())
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(follow, "LAST_WORDS_SECONDS", 0.1)
    return shared_cloud


def arguments(cloud, *extra: str) -> list[str]:
    return [
        "--project=fma-project",
        "--region=europe-west1",
        f"--bucket={BUCKET}",
        f"--audio=gs://{BUCKET}/corpus/audio/*.wav",
        f"--metadata=gs://{BUCKET}/corpus/tracks.csv",
        f"--output=gs://{BUCKET}/dataset",
        "--representations=mel",
        f"--dataflow_endpoint={cloud.endpoint}",
        *extra,
    ]


def test_submits_and_follows_to_the_end(cloud, dataset, capsys):
    cloud.services.messages = [
        ("DEBUG", "not for people"),
        ("BASIC", "Starting 2 workers in europe-west1-b."),
        ("WARNING", "A worker is slow."),
    ]
    cloud.services.clips_read = 4
    cloud.services.on_state["DONE"] = lambda: cloud.upload(dataset, "dataset")
    options = arguments(
        cloud,
        "--job_name=fma-job",
        "--max_workers=3",
        "--machine_type=n2-standard-2",
        f"--container={CONTAINER}",
        "--service_account=worker@fma-project.iam.gserviceaccount.com",
        "--network=music",
        "--subnetwork=regions/europe-west1/subnetworks/music",
        "--wait",
        "--no_use_public_ips",
    )
    assert dataflow.main(options) == 0
    output = capsys.readouterr()
    assert output.err == ""
    check_output(output.out)
    (created,) = cloud.services.sent("POST", "/jobs")
    assert created.path.partition("?")[0] == (
        "/v1b3/projects/fma-project/locations/europe-west1/jobs"
    )
    assert created.authorization.startswith("Bearer ")
    request = read_request(created.body)
    check_request(request)
    check_staged(cloud, created.body)


def read_request(body) -> dict:
    """A job as people read it: enums by name, as the dry run prints them."""
    message = json_format.ParseDict(body, api.Job.pb(api.Job()))
    return json_format.MessageToDict(message)


def check_output(text: str) -> None:
    for expected in (
        "6 audio files, 6 wanted tracks",
        "hours on 3 x n2-standard-2 (6 vCPUs), US$ ",
        f"Submitted: {JOB_ID}",
        "https://console.cloud.google.com/dataflow/jobs/europe-west1/"
        f"{JOB_ID}?project=fma-project",
        f"job {JOB_ID}: pending",
        f"job {JOB_ID}: done",
        "10:00:01 Starting 2 workers",
        "10:00:02 warning: A worker is slow.",
        "clips: 4 of 6",
        "Every input is in one place",
        f"Dataset: gs://{BUCKET}/dataset\n"
        f"Next: ./launch.sh train --data gs://{BUCKET}/dataset\n",
    ):
        assert expected in text
    assert "not for people" not in text
    # Seen once, though asked for at every look.
    assert text.count("A worker is slow") == 1


def check_request(body) -> None:
    assert body["name"] == "fma-job"
    assert body["type"] == "JOB_TYPE_BATCH"
    assert body["labels"] == {"application": "fma-genre-classifiers"}
    environment = body["environment"]
    assert environment["serviceAccountEmail"].startswith("worker@fma-project")
    assert environment["tempStoragePrefix"].startswith(
        f"storage.googleapis.com/{BUCKET}/dataflow/temp/fma-job"
    )
    assert set(environment["experiments"]) >= {
        "use_runner_v2",
        "use_unified_worker",
        "beam_fn_api",
        "disable_logging_submission_environment",
    }
    (pool,) = environment["workerPools"]
    assert pool["machineType"] == "n2-standard-2"
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 3
    assert pool["numThreadsPerWorker"] == 1
    assert pool["diskSizeGb"] == submission.DISK_GB
    assert pool["network"] == "music"
    assert pool["subnetwork"] == "regions/europe-west1/subnetworks/music"
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert [package["name"] for package in pool["packages"]] == ["workflow.tar.gz"]
    assert pool["packages"][0]["location"].startswith(
        f"storage.googleapis.com/{BUCKET}/dataflow/staging/fma-job"
    )
    images = {image["containerImage"] for image in pool["sdkHarnessContainerImages"]}
    assert images == {CONTAINER}
    options = environment["sdkPipelineOptions"]["options"]
    assert options["save_main_session"] is False
    assert options["sdk_location"] == "container"
    assert options["region"] == "europe-west1"


def check_staged(cloud, body) -> None:
    names = cloud.list("dataflow/staging/fma-job")
    assert sorted(name.rpartition("/")[2] for name in names) == [
        "pipeline.pb",
        "workflow.tar.gz",
    ]
    package = next(name for name in names if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(cloud.get(package))) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pipeline/shards/shard.py", "trainer/task.py", "setup.py"} <= files
    assert not [name for name in files if name.startswith("tests")]
    # Neither the request nor the graph holds anything of the key.
    graph = cloud.get(next(name for name in names if name.endswith(".pb")))
    for text in (json.dumps(body).encode(), graph):
        for secret in (cloud.key["private_key"][100:160], cloud.key["client_email"]):
            assert secret.encode() not in text


def normalise(request) -> dict:
    """A request without what is new each time: times and random ids."""
    text = json.dumps(request, sort_keys=True)
    text = re.sub(r"fma-job\.\d+\.\d+", "fma-job.TIME", text)
    normal = json.loads(text)
    normal.pop("clientRequestId")
    options = normal["environment"]["sdkPipelineOptions"]
    for name in ("dry_run", "pipelineProtoHash"):
        options["options"].pop(name, None)
    options.pop("display_data")
    for image in normal["environment"]["workerPools"][0]["sdkHarnessContainerImages"]:
        image.pop("environmentId")
    return normal


def test_a_dry_run_prints_the_request_that_would_be_sent(cloud, capsys):
    options = arguments(cloud, "--job_name=fma-job", "--max_workers=2")
    before = cloud.list("")
    assert dataflow.main([*options, "--dry_run"]) == 0
    printed = capsys.readouterr()
    assert "US$" in printed.err
    assert cloud.list("") == before
    assert not cloud.services.sent("POST", "/jobs")
    assert dataflow.main(options) == 0
    (created,) = cloud.services.sent("POST", "/jobs")
    request = read_request(created.body)
    assert normalise(json.loads(printed.out)) == normalise(request)
    # Without --container, workers install what is locked.
    (pool,) = request["environment"]["workerPools"]
    packages = {package["name"] for package in pool["packages"]}
    assert packages == {"workflow.tar.gz", "requirements.txt"}
    assert pool["sdkHarnessContainerImages"][0]["containerImage"] == (
        f"gcr.io/cloud-dataflow/v1beta3/beam_python3.11_sdk:{beam.__version__}"
    )
    (staged,) = [name for name in cloud.list("dataflow") if "requirements" in name]
    lock = submission.ROOT / "requirements.lock"
    assert cloud.get(staged) == lock.read_bytes()


def test_estimates_without_submitting(cloud, capsys):
    before = cloud.list("")
    assert dataflow.main(arguments(cloud, "--estimate")) == 0
    assert "US$" in capsys.readouterr().out
    assert cloud.list("") == before
    assert not cloud.services.sent("POST", "/jobs")


def test_a_template_passes_the_validation_of_production(cloud, tmp_path, monkeypatch):
    # Beam checks paths, project and region only where the endpoint is Google's.
    flags = dataflow.make_parser().parse_args(arguments(cloud)[:-2])
    config = dataflow.make_config(flags)
    data = dataflow.make_data_flags(flags, BUCKET)
    parsed = preprocess.make_parser().parse_args([*data, "--representations=mel"])
    job, _ = dataflow.check(parsed, [], config, dry_run=False)
    template = tmp_path / "template.json"
    options = parse_beam_options(
        submission.make_options(config, [f"--template_location={template}"])
    )
    pipeline = beam.Pipeline(options=options)
    build(pipeline, job)
    pipeline.run()
    request = json.loads(template.read_text())
    (pool,) = request["environment"]["workerPools"]
    assert pool["kind"] == "harness"
    assert (
        request["environment"]["sdkPipelineOptions"]["options"]["save_main_session"]
        is False
    )
    staged = cloud.list("dataflow/staging")
    assert not [name for name in staged if "main_session" in name]
    assert not cloud.services.sent("POST", "/jobs")


def test_a_failed_job_says_why(cloud, capsys):
    cloud.services.states = ["RUNNING", "FAILED"]
    cloud.services.messages = [("ERROR", "ValueError: no more music")]
    flags = dataflow.make_parser().parse_known_args(arguments(cloud))[0]
    config = dataflow.make_config(flags)
    options = submission.make_options(config, [f"--dataflow_endpoint={cloud.endpoint}"])
    client = apiclient.DataflowApplicationClient(parse_beam_options(options))
    follower = follow.Follower(client, JOB_ID, 6, print)
    assert dataflow.wait(follower, config, JOB_ID, "gs://b/o") == 1
    output = capsys.readouterr()
    assert "error: ValueError: no more music" in output.out
    assert "ended as failed; see https://console" in output.err
    assert "sent again, keeps the shards" in output.err


def test_interrupting_the_follower_does_not_cancel_the_job(cloud, capsys):
    def interrupt():
        raise KeyboardInterrupt

    config = dataflow.make_config(
        dataflow.make_parser().parse_args(arguments(cloud)[:-2])
    )
    follower = follow.Follower(Interrupting(), JOB_ID, 6, print)
    assert dataflow.wait(follower, config, JOB_ID, "gs://b/o") == 130
    output = capsys.readouterr()
    assert "The job goes on: https://console" in output.err
    assert f"gcloud dataflow jobs cancel {JOB_ID}" in output.err
    assert not cloud.services.sent("PUT", JOB_ID)


class Interrupting:
    def get_job(self, job_id):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--region=europe-west1-b"], "takes a region, not a zone: europe-west1"),
        (["--region=Europe"], "must be a region such as europe-west1"),
        (["--project=123456"], "must be a project's id"),
        (["--bucket=b"], "--bucket must name a bucket"),
        (["--bucket=fma-nowhere"], "There is no bucket gs://fma-nowhere"),
        (["--max_workers=0"], "--max_workers must be 1 to 4000. Received: 0"),
        (["--machine_type=huge"], "--machine_type must be a machine type such as"),
        (["--machine_type=n1-highcpu-4"], "has 3.6 GiB; 4 worker processes"),
        (["--container=fma"], "--container must be an image with its registry"),
        (["--service_account=me"], "--service_account must be an e-mail address"),
        (["--job_name=My job"], "--job_name must have at most 63 lower-case"),
        (["--audio=/music/*.mp3"], "--audio must be on gs://"),
        (["--output=dataset"], "--output must be on gs://"),
        (["--wav_output=wavs"], "--wav_output must be on gs://"),
        (["--no_use_public_ips"], "give --container an image that has them"),
        (["--colour=red"], "unknown option; see --help. Received: --colour=red"),
        ([f"--audio=gs://{BUCKET}/nothing/*.mp3"], "--audio matches no file"),
    ],
)
def test_refuses_before_anything_is_sent(cloud, capsys, extra, message):
    assert dataflow.main(arguments(cloud, *extra)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not cloud.services.sent("POST", "/jobs")
    assert not cloud.list("dataset")


def test_refuses_a_completed_output(cloud, capsys):
    cloud.put("dataset/COMPLETED", b"x")
    assert dataflow.main(arguments(cloud)) == 2
    assert "no part of a dataset that this program made" in capsys.readouterr().err
    mark = {"owner": "fma-genre-classifiers", "kind": "dataset"}
    cloud.put("dataset/OWNER.json", json.dumps(mark).encode())
    assert dataflow.main(arguments(cloud)) == 2
    assert "already holds a completed dataset" in capsys.readouterr().err
    assert cloud.get("dataset/COMPLETED") == b"x"


def test_a_service_that_refuses_is_one_sentence(cloud, capsys):
    cloud.services.failure = (403, "Dataflow API has not been used in project")
    assert dataflow.main(arguments(cloud)) == 2
    assert len(cloud.services.sent("GET", "/jobs")) == 1
    error = capsys.readouterr().err
    assert "Dataflow API has not been used in project" in error
    assert "gcloud services enable dataflow.googleapis.com" in error
    assert error.count("\n") == 1


def test_without_credentials_nobody_is_asked(cloud, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    cloud.services.reset()
    assert dataflow.main(arguments(cloud)) == 2
    assert cloud.services.requests == []
    assert "gcloud auth application-default login" in capsys.readouterr().err


def test_defaults_follow_the_layout_of_a_bucket():
    flags = dataflow.make_parser().parse_args(
        ["--project=p", "--region=r", "--bucket=b", "--subset=medium"]
    )
    assert dataflow.make_data_flags(flags, "music") == [
        "--audio=gs://music/fma_medium/**.mp3",
        "--metadata=gs://music/fma_metadata/tracks.csv",
        "--output=gs://music/dataset_medium",
        "--subset=medium",
    ]


@pytest.mark.parametrize(
    ("clips", "shards"), [(1, 16), (1024, 16), (8000, 128), (106_574, 2048)]
)
def test_shards_follow_the_number_of_clips(clips, shards):
    assert dataflow.suggest_shards(clips) == shards


def test_the_follower_waits_out_an_outage(monkeypatch):
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(follow, "LAST_WORDS_SECONDS", 0.0)
    lines: list[str] = []
    client = Flaky(ServiceUnavailable("gone"))
    assert follow.Follower(client, "1", 6, lines.append).follow() == "CANCELLED"
    assert [line for line in lines if "it goes on" in line]
    assert lines[-1] == "job 1: cancelled"


class Flaky:
    """Fails at the second look; the job is cancelled at the third."""

    def __init__(self, error: Exception) -> None:
        self._answers = [
            api.Job(current_state="JOB_STATE_RUNNING"),
            error,
            api.Job(current_state="JOB_STATE_CANCELLED"),
        ]

    def get_job(self, job_id):
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list_messages(self, job_id, start_time, page_token):
        return [], None

    def get_job_metrics(self, job_id):
        return api.JobMetrics()


def test_the_dask_runner_is_refused():
    from pipeline.launch.runners import check_flags

    for name in ("DaskRunner", "apache_beam.runners.dask.dask_runner.DaskRunner"):
        with pytest.raises(UserError, match="silently computes"):
            check_flags(beam.options.pipeline_options.PipelineOptions(runner=name))
    for name in (None, "DirectRunner", "FlinkRunner", "DataflowRunner"):
        check_flags(beam.options.pipeline_options.PipelineOptions(runner=name))


def test_a_dry_run_without_credentials_prints_the_request_all_the_same(
    cloud, capsys, monkeypatch
):
    options = arguments(cloud, "--job_name=fma-job", "--max_workers=2", "--dry_run")
    assert dataflow.main(options) == 0
    known = json.loads(capsys.readouterr().out)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    # Nobody is asked: nothing would answer.
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert dataflow.main(options) == 0
    printed = capsys.readouterr()
    assert normalise(json.loads(printed.out)) == normalise(known)
    assert "Not checked: gs://" in printed.err
    assert "needs Google Cloud credentials" in printed.err
    assert dry_run.UNKNOWN_GENRE in printed.err
    assert "--num_shards" in printed.err
    # A job is not sent like that.
    assert dataflow.main(options[:-1]) == 2
    assert "credentials" in capsys.readouterr().err


def test_flags_say_what_only_the_bucket_knows(cloud, capsys):
    flags = dataflow.make_parser().parse_known_args(arguments(cloud))[0]
    data = [*dataflow.make_data_flags(flags, BUCKET), "--genres=Rock, Folk"]
    parsed = preprocess.make_parser().parse_args([*data, "--num_shards=64"])
    dataset = dry_run.assume_job(parsed).dataset
    assert dataset.genres == ("Rock", "Folk")
    assert dataset.num_shards == 64
    text = dry_run.describe_unchecked(
        parsed, ["--num_shards=64"], UnreachableError("no network")
    )
    assert dry_run.UNKNOWN_GENRE not in text
    assert "shards" not in text
