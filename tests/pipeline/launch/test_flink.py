"""What is said and done on a Flink cluster, against a REST interface on loopback."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.launch.flink import follow, rest, worker
from pipeline.launch.flink.follow import Follower, Reached
from pipeline.launch.flink.job_server import JobServer, complete_flags
from pipeline.launch.flink.look import Looker, _wrap_command, claimed
from pipeline.launch.flink.worker import (
    FILE,
    HERE,
    SEEN,
    Look,
    LookError,
    LookFn,
    answer_workers,
    begin_look,
    check_worker,
    count_ready,
    let_go,
)
from pipeline.schema import UserError
from tests.support.jobs import ROOT, wait_for
from tests.support.shard_reports import make_config

CLUSTER = rest.Cluster(
    url="http://127.0.0.1:1",
    version="1.19",
    slots=4,
    free_slots=4,
    slots_a_worker=2,
    keeps_workers=True,
    reason="",
)


class Flink:
    """Answers paths with JSON; those that it does not know with 404."""

    def __init__(self) -> None:
        self.answers = {
            "/overview": {"flink-version": "1.19.3", "slots-total": 4},
            "/taskmanagers": {"taskmanagers": [{"slotsNumber": 1}, {"slotsNumber": 3}]},
            "/jobmanager/config": [
                {"key": "classloader.resolve-order", "value": "parent-first"}
            ],
            "/jobmanager/environment": {"classpath": ["lib/beam-runners-flink.jar"]},
        }
        self.asked: list[str] = []
        flink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                flink.asked.append(f"{self.command} {self.path}")
                answer = flink.answers.get(self.path)
                if isinstance(answer, list) and answer and isinstance(answer[0], tuple):
                    answer = answer.pop(0)[0] if len(answer) > 1 else answer[0][0]
                self.send_response(404 if answer is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            do_PATCH = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.master = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.master}"

    def find(self) -> rest.Cluster:
        return rest.find_cluster(PipelineOptions([f"--flink_master={self.master}"]))

    def set_job(self, *states: tuple[str, int]) -> None:
        """A job's states and numbers of finished stages, one look each."""
        self.answers["/jobs/j"] = [
            (
                {
                    "state": state,
                    "vertices": [
                        {
                            "name": f"MapPartition at [{n}]X",
                            "status": "FINISHED" if n <= finished else "RUNNING",
                        }
                        for n in (1, 2, 3)
                    ]
                    + [{"name": "FlatMap at ExtractOutput[0]", "status": "RUNNING"}],
                },
            )
            for state, finished in states
        ]


@pytest.fixture
def flink():
    flink = Flink()
    yield flink
    flink.server.shutdown()
    flink.server.server_close()


def test_a_cluster_says_what_it_is(flink):
    cluster = flink.find()
    assert (cluster.version, cluster.slots, cluster.slots_a_worker) == ("1.19", 4, 3)
    assert cluster.keeps_workers


def test_it_is_said_why_workers_do_not_outlive_a_stage(flink):
    flink.answers["/jobmanager/environment"] = {"classpath": ["lib/flink-dist.jar"]}
    assert flink.find().reason == "Beam's job server is not in lib/"
    flink.answers["/jobmanager/config"] = []
    cluster = flink.find()
    assert not cluster.keeps_workers
    assert cluster.reason == "classloader.resolve-order is child-first"


@pytest.mark.parametrize(
    ("overview", "message"),
    [
        ({"flink-version": "1.17.2", "slots-total": 1}, "it does 1.19, 1.20, 2.0"),
        ({"flink-version": "1.19.3", "slots-total": 0}, "start a TaskManager"),
        ({"hello": "world"}, "no Flink cluster answers there"),
        (None, "no Flink cluster answers there"),
    ],
)
def test_other_clusters_are_refused(flink, overview, message):
    flink.answers["/overview"] = overview
    with pytest.raises(UserError, match=message) as raised:
        flink.find()
    assert flink.master in str(raised.value)


@pytest.mark.parametrize("master", ["nowhere", "ftp://x:1", "host:port"])
def test_an_address_must_be_one(master):
    with pytest.raises(UserError, match=f"HOST:PORT.*Received: {master}"):
        rest.make_url(master)


def test_what_makes_the_job_fast_is_the_default():
    flags = complete_flags(["--parallelism=3"], CLUSTER, 4)
    assert flags[0] == "--parallelism=3"
    assert "--parallelism=4" not in flags
    assert "--flink_version=1.19" in flags
    assert "--sdk_worker_parallelism=2" in flags
    assert "--environment_cache_millis=600000" in flags


def test_a_job_is_followed_through_an_outage(flink, tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(follow, "LINE_SECONDS", (0.0, 0.0))
    flink.set_job(("RUNNING", 0), ("RUNNING", 2), ("RESTARTING", 2), ("FAILED", 1))
    flink.answers["/jobs/j/exceptions?maxExceptions=5"] = {
        "root-exception": "x.Y: outer\nCaused by: x.Z: it is the disk\n"
    }
    said: list[str] = []
    follower = Follower(flink.url, make_config(tmp_path).dataset, 7)
    ask, outages = rest.ask, [True, False, True]

    def ask_badly(*arguments, **options):
        if outages and outages.pop():
            raise rest.OutageError("timed out")
        return ask(*arguments, **options)

    monkeypatch.setattr(rest, "ask", ask_badly)
    state, failed = follower.follow("j", said.append)
    assert state == "FAILED"
    assert rest.find_cause([failed]) == "it is the disk"
    assert said[0].startswith("The cluster does not answer (timed out)")
    assert "The cluster answers again." in said
    assert "stage 3 of 3; clips: 0 of 7" in said
    assert "Flink starts a part of the job again: it is the disk" in said
    assert follower.reached == Reached(shards=0, stages=2)


def test_the_look_is_no_stage_and_done_when_all_that_have_a_slot_wait(flink):
    flink.set_job(("RUNNING", 1))
    look = "CHAIN MapPartition (MapPartition at [1]LookAtWorkers/Look) -> FlatMap"
    vertex = {"name": look, "status": "RUNNING", "tasks": {"RUNNING": 2}}
    flink.answers["/jobs/j"][0][0]["vertices"].append(vertex)
    state = rest.read_job(flink.url, "j")
    assert (state.stages, state.finished) == (3, 1)
    looker = Looker(server=None, cluster=CLUSTER, flags=[], slots=3, say=print)
    # The fourth of four subtasks gets no slot.
    assert not looker._have_looked(state.looking, 2)
    assert not looker._have_looked({"RUNNING": 3, "SCHEDULED": 1}, 2)
    assert looker._have_looked({"RUNNING": 3, "SCHEDULED": 1}, 3)
    assert looker._have_looked({"RUNNING": 2, "FINISHED": 1}, 2)
    assert not looker._have_looked({}, 3)


def test_a_worker_waits_for_the_job_to_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "HEAVY_MODULES", ())
    look = make_look(tmp_path)
    begin_look(look.folders)
    thread = threading.Thread(target=LookFn(look).finish_bundle)
    thread.start()
    while count_ready(str(tmp_path)) < 1:
        list(answer_workers(look.folders))
    assert thread.is_alive()
    let_go(str(tmp_path))
    thread.join()
    # One that is started again looks at nothing: nobody would answer.
    LookFn(make_look(tmp_path, python="3.0")).finish_bundle()


def test_a_worker_does_not_wait_for_a_command_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "GO_SECONDS", 0.1)
    begin_look({"--output": str(tmp_path)})
    with pytest.raises(LookError, match="has ended before it"):
        worker._await_go(str(tmp_path))
    monkeypatch.setattr(worker, "GO_SECONDS", 60)
    (tmp_path / HERE).unlink()
    with pytest.raises(LookError, match="has ended before it"):
        worker._await_go(str(tmp_path))


def test_a_job_that_the_cluster_has_forgotten_is_lost(flink, tmp_path):
    follower = Follower(flink.url, make_config(tmp_path).dataset, 7)
    assert follower.follow("j", print)[0] == "LOST"


def test_a_job_server_ends_with_the_command(tmp_path):
    started = tmp_path / "started"
    command = ["sh", "-c", 'echo $$ >"$0"; exec sleep 600', str(started)]
    code = (
        "import subprocess, sys, time\n"
        "from pipeline.launch.flink.job_server import _END_WITH_PIPE\n"
        "subprocess.Popen(['sh', '-c', _END_WITH_PIPE, 'sh', *sys.argv[1:]],"
        " stdin=subprocess.PIPE, start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, *command], cwd=ROOT)
    wait_for(lambda: started.exists() and started.read_text().endswith("\n"))
    server = psutil.Process(int(started.read_text()))
    launcher.kill()
    launcher.wait()
    server.wait(120)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--job_server_java_launcher=no-java"], "no-java, which Beam's job server"),
        (["--flink_job_server_jar=/nowhere.jar"], "Received: /nowhere.jar"),
    ],
)
def test_a_job_server_that_cannot_start_is_a_sentence(tmp_path, flags, message):
    jar = tmp_path / "server.jar"
    jar.touch()
    options = PipelineOptions([f"--flink_job_server_jar={jar}", *flags])
    with pytest.raises(UserError, match=message):
        JobServer(options, CLUSTER, str(tmp_path))


def test_further_means_more_shards_before_more_stages():
    assert Reached(shards=2, stages=0) > Reached(shards=1, stages=5)
    assert not Reached(shards=1, stages=5) > Reached(shards=1, stages=5)


def test_cancelling_waits_for_the_end(flink):
    flink.answers["/jobs/j?mode=cancel"] = {}
    flink.set_job(("CANCELLING", 1), ("CANCELED", 1))
    assert rest.cancel(flink.url, "j", 10) == "CANCELED"
    assert flink.asked.count("PATCH /jobs/j?mode=cancel") == 1


def make_look(folder: Path, **changes) -> Look:
    (folder / HERE).touch()
    values = {
        "python": "3.11",
        "versions": {},
        "read": {},
        "folders": {"--output": str(folder)},
    }
    return Look(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"python": "3.9"}, "run Python 3.11, this machine 3.9"),
        ({"versions": {"numpy": "0.1"}}, "have numpy .*, this machine 0.1"),
        ({"versions": {"nothing-such": "1"}}, "lack the package nothing-such"),
        ({"read": {"--audio": "/nowhere/a.mp3"}}, "cannot read /nowhere/a.mp3 .--aud"),
        ({"folders": {"--output": "/nowhere"}}, "do not see what this machine writes"),
    ],
)
def test_a_worker_says_what_it_lacks(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(worker, "HEAVY_MODULES", ())
    with pytest.raises(LookError, match=message):
        check_worker(make_look(tmp_path, **changes))


def test_a_module_that_does_not_import_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "MODULES", ("nothing_such",))
    with pytest.raises(LookError, match="cannot import nothing_such"):
        check_worker(make_look(tmp_path))


def test_what_a_worker_writes_must_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "SEEN_SECONDS", 0.3)
    look = make_look(tmp_path)
    with pytest.raises(LookError, match="is not seen on this machine"):
        check_worker(look)
    assert [path.name for path in tmp_path.iterdir()] == [HERE]


def test_a_worker_that_sees_and_is_seen_leaves_nothing(tmp_path):
    look = make_look(tmp_path)
    thread = threading.Thread(target=check_worker, args=(look,))
    thread.start()
    answered: list[str] = []
    while thread.is_alive():
        answered += answer_workers(look.folders)
    thread.join()
    assert len(answered) == 1
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {HERE, SEEN + answered[0].removeprefix(FILE)}


@pytest.mark.parametrize(
    ("failed", "said", "message"),
    [
        (
            "RuntimeError: pipeline.launch.flink.worker.LookError: workers on a have "
            "none. [while running 'Look']\n",
            {},
            "^workers on a have none.$",
        ),
        ("", {"a": "No module named 'apache_beam'\n"}, "on a lack apache_beam"),
        ("No module named 'pipeline'", {}, "lack the staged package"),
        (
            'Cannot run program "/out/_temporary/look-1/worker": error=2, No such file',
            {},
            "TaskManagers do not see --output.*Received: /out$",
        ),
        ("Insufficient number of network buffers", {}, "network.min: 256mb"),
        ("x\nCaused by: a.B: it burns\n", {}, "do not start.*The last words: it burns"),
        ("", {"a": "one\nlast line\n"}, "no worker .* came up .*words: last line"),
    ],
)
def test_failures_of_a_look_are_sentences(failed, said, message):
    looker = Looker(server=None, cluster=CLUSTER, flags=[], slots=1, say=print)
    with pytest.raises(UserError, match=message):
        raise UserError(looker._explain(failed, said, "/out/_temporary/look-1"))


def test_a_failed_look_leaves_the_output_as_it_was(tmp_path):
    output = tmp_path / "new" / "out"

    def fail() -> None:
        assert (output / "OWNER.json").exists()
        raise UserError("no")

    with pytest.raises(UserError, match="no"), claimed(str(output)):
        fail()
    assert list(tmp_path.iterdir()) == []
    with claimed(str(output)):
        pass
    with pytest.raises(UserError, match="no"), claimed(str(output)):
        fail()
    assert [path.name for path in output.iterdir()] == ["OWNER.json"]


def test_the_words_of_a_worker_are_kept(tmp_path):
    config = json.dumps({"command": "/a b/start", "env": {"X": "1"}})
    flags = ["--environment_type=PROCESS", f"--environment_config={config}"]
    [flag] = _wrap_command(flags, str(tmp_path))
    wrapped = json.loads(flag.partition("=")[2])
    assert wrapped == {"command": str(tmp_path / "worker"), "env": {"X": "1"}}
    assert "exec '/a b/start'" in (tmp_path / "worker").read_text()
    assert _wrap_command(["--environment_type=EXTERNAL"], str(tmp_path)) == []
