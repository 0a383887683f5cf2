"""Runs of several steps: which commands they are, with what runs them replaced."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.launch.fma.published import BASE
from pipeline.launch.walkthrough import demo, fma, steps
from tests.support.jobs import ROOT, wait_for

FETCH = f"--subset small --output run --mirror {BASE} --timeout 60"
PREPROCESS = (
    "preprocess --audio {0}/fma_small.zip --output run/dataset --metadata "
    "{0}/fma_metadata.zip --subset small --num_shards 32 "
    "--description 'Free Music Archive, fma_small'"
)
TRAIN = (
    "train --data run/dataset --output run/models --report run --audio "
    "run/download/fma_small.zip"
)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands that were run, and what is the exit code of one."""
    monkeypatch.chdir(tmp_path)
    ran, codes = [], {}

    def run_step(step, successor=None):
        words = step.words if isinstance(step, steps.Successor) else step
        ran.append(shlex.join(words))
        if words[0] in codes:
            raise steps.StepError(codes[words[0]])
        if words[0] in ("train", "compare"):
            models = Path(
                words[
                    words.index("--models" if words[0] == "compare" else "--output") + 1
                ]
            )
            (models / "mel").mkdir(parents=True, exist_ok=True)
            (models / "mel" / "manifest.json").touch()
            found = {"models": [{"name": "not-kept"}, {"name": "mel"}]}
            (models.parent / "report.json").write_text(json.dumps(found))

    for module in (fma, demo):
        monkeypatch.setattr(module, "run_step", run_step)
    return ran, codes


def complete(command: str) -> None:
    """What preprocessing leaves, as far as it is looked at."""
    os.makedirs("run/dataset")
    Path("run/dataset/COMPLETED").touch()
    content = json.dumps({"command": f"./launch.sh {command}"})
    Path("run/dataset/report.json").write_text(content)


def test_one_command_is_all_steps(commands, capsys):
    ran, _ = commands
    assert fma.main(["--subset", "small", "--output=run/"]) == 0
    room = 8_000 * 830_000 + (1 << 30)
    assert ran == [
        f"download {FETCH} --room {room}",
        "weights --optional",
        PREPROCESS.format("run/download"),
        TRAIN,
    ]
    out = capsys.readouterr().out
    assert "\n== 3/3 FMA, small: train\n" in out
    assert out.endswith(
        "\naudio    run/download/fma_small.zip\ndataset  run/dataset\n"
        "models   run/models\n"
        "Next: ./launch.sh report run\n"
        "      ./launch.sh predict --model run/models/mel some-song.mp3\n"
    )
    Path("run/models/ensemble").mkdir()
    assert fma.main(["compare", "--subset", "small", "--output=run"]) == 0
    assert "predict --model run/models some-song.mp3" in capsys.readouterr().out


def test_options_go_to_the_commands_that_know_them(commands):
    ran, _ = commands
    flags = "--subset small --labels all --output run --min_tracks=9 --epochs 3"
    flags += " --model mel baselines --representations mel statistics --quiet"
    assert fma.main(flags.split()) == 0
    assert ran[2:] == [
        PREPROCESS.format("run/download")
        + " --labels all --min_tracks=9 --representations mel statistics --quiet",
        f"{TRAIN} --epochs 3 --model mel baselines --quiet",
    ]
    assert ran[0].endswith(" --quiet --room " + ran[0].split()[-1])
    ran.clear()
    flags = "--subset small --direct_num_workers 2 --output run --experiments=a"
    assert fma.main([*flags.split(), "--epochs", "3"]) == 0
    assert ran[2:] == [
        f"{PREPROCESS.format('run/download')} --direct_num_workers 2 --experiments=a",
        f"{TRAIN} --epochs 3",
    ]
    ran.clear()
    # More clips of these can be used.
    assert fma.main(["--subset=large", "--labels=leaf"]) == 0
    assert int(ran[0].split()[-1]) > 104_000 * 830_000


def test_a_complete_dataset_stays_if_it_is_the_one_asked_for(commands, capsys):
    ran, _ = commands
    made = PREPROCESS.format("/elsewhere") + " --labels=all --verbose"
    complete(made + " --overwrite --direct_num_workers=3")
    assert fma.main(["--subset", "small", "--output", "run", "--labels", "all"]) == 0
    assert [line.split()[0] for line in ran] == ["download", "train"]
    assert "run/dataset is complete." in capsys.readouterr().out
    assert fma.main(["--subset", "small", "--output", "run"]) == 2
    err = capsys.readouterr().err
    assert "run/dataset was made with other options; give another --output" in err
    assert "It was made by: preprocess --audio /elsewhere" in err
    others = (f"{made} --bitrate 9", f"{made} --leaks shown", "dataflow --bucket b", "")
    for command in others:
        content = json.dumps({"command": f"./launch.sh {command}"})
        Path("run/dataset/report.json").write_text(content)
        flags = ["--subset", "small", "--output", "run", "--labels", "all"]
        assert fma.main(flags) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: run/dataset was made with other options")
    Path("run/dataset/report.json").write_text("{}")
    assert fma.main(["--subset", "small", "--output", "run"]) == 2
    assert "does not tell how the dataset was made" in capsys.readouterr().err


def test_a_step_alone_and_a_folder_of_zips(commands, capsys):
    ran, _ = commands
    Path("zips").mkdir()
    flags = ["--subset", "small", "--output", "run", "--mirror", "zips"]
    assert fma.main(["preprocess", *flags]) == 0
    assert ran[1] == PREPROCESS.format("zips")
    assert "== 1/1 FMA, small: preprocess" in capsys.readouterr().out
    assert fma.main(["download", *flags, "--timeout", "9"]) == 0
    assert ran[2] == ("download --subset small --output run --mirror zips --timeout 9")
    assert fma.main(["compare", *flags]) == 0
    assert ran[3] == (
        "compare --models run/models --data run/dataset --output run --audio "
        "zips/fma_small.zip"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: --subset"),
        ("--subset tiny", "invalid choice: 'tiny'"),
        ("--subset", "--subset: expected one argument"),
        ("upload --subset small", "STEP: invalid choice: 'upload'"),
        ("preproces --subset small", "did you mean preprocess?"),
        ("--subset small --label all", "did you mean --labels?"),
        ("--subset small --epoch 3", "did you mean --epochs?"),
        ("--subset small --direct_num_worker=3", "did you mean --direct_num_workers?"),
        ("--subset small --direct_num_workers=-3", "direct_num_workers"),
        ("--subset small --dropout 2", "--dropout must be 0 or more and under 1"),
        ("--subset small --labels every", "invalid choice: 'every'"),
        ("--subset small --audio x", "--audio is for a step by itself"),
        ("--subset small --output gs://b/x", "must be a folder of this machine"),
    ],
)
def test_wrong_options_are_one_sentence_before_any_step(
    commands, capsys, arguments, message
):
    try:
        code = fma.main(arguments.split())
    except SystemExit as end:
        code = end.code
    assert code == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert commands[0] == []


@pytest.mark.parametrize(("code", "given"), [(2, 2), (75, 75), (-15, 143), (130, 130)])
def test_a_step_that_ends_badly_ends_all(commands, capsys, code, given):
    ran, codes = commands
    codes["preprocess"] = code
    assert fma.main(["--subset", "small"]) == given
    assert len(ran) == 3
    told = "stopped: the same command goes on from there." in capsys.readouterr().err
    assert told is (code != 2)


def test_local_is_corpus_dataset_models_and_report(commands, capsys):
    ran, codes = commands
    assert demo.main(["--output", "run", "--quiet"]) == 0
    assert [line.split()[0] for line in ran] == [
        *("weights", "demo", "preprocess", "train")
    ]
    assert all(line.endswith(" --quiet") for line in ran[1:])
    assert capsys.readouterr().out.startswith("All of it: run (")
    assert demo.main([]) == 0
    opening, *_, last = capsys.readouterr().out.splitlines()
    assert opening.startswith("Everything once, on music that is computed: 193 clips")
    assert last == (
        "      ./launch.sh predict --model demo-run/models "
        "demo-run/corpus/fma_demo/000/000002.mp3"
    )
    codes["demo"] = 2
    assert demo.main([]) == 2


#: A run whose one step says when it began, waits, and says how it was ended.
RUN = """
import signal, sys
from pipeline.launch.walkthrough import steps
from pipeline.common.child_process import python_command
steps.python_command = lambda *_: [sys.executable, "-c", '''
import signal, sys, time
def stop(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("begun", flush=True)
time.sleep(60)
''']
try:
    steps.run_step(["x"])
except steps.StepError as error:
    sys.exit(error.code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_step_which_is_waited_for(number):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "begun\n"
    if number == signal.SIGINT:  # As a terminal does it: to all that it shows.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    out, _ = process.communicate()
    assert (out, process.returncode) == ("saved\n", 75)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_very_end_of_a_step_stops_before_the_next(number, monkeypatch):
    code = f"import os, signal; signal.signal({number:d}, signal.SIG_IGN); "
    code += f"os.kill(os.getppid(), {number:d})"
    monkeypatch.setattr(
        steps, "python_command", lambda *_: [sys.executable, "-c", code]
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(steps.StepError) as caught:
            steps.run_step(["x"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (caught.value.code, caught.value.stopped) == (128 + number, True)


def test_a_signal_while_a_step_is_started_ends_it(monkeypatch):
    """Also before it is known which process to tell."""

    def start(*arguments, **options):
        process = popen(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return process

    popen = subprocess.Popen
    monkeypatch.setattr(steps.subprocess, "Popen", start)
    code = "import time; time.sleep(600)"
    monkeypatch.setattr(
        steps, "python_command", lambda *_: [sys.executable, "-c", code]
    )
    with pytest.raises(steps.StepError) as caught:
        steps.run_step(["x"])
    assert (caught.value.code, caught.value.stopped) == (128 + signal.SIGTERM, True)


def test_a_signal_that_is_ignored_is_ignored_in_a_step_too(monkeypatch):
    code = "import signal; assert signal.getsignal(2) == signal.SIG_IGN"
    monkeypatch.setattr(
        steps, "python_command", lambda *_: [sys.executable, "-c", code]
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        steps.run_step(["x"])
    finally:
        signal.signal(signal.SIGINT, before)


#: A step that comes to its end, or is interrupted, when its successor is ready.
FIRST = """
import pathlib, signal, sys, time
from pipeline.common.child_process import tell_cores_free
interrupted = []
signal.signal(signal.SIGINT, lambda *_: interrupted.append(1))
tell_cores_free()
wanted = (lambda: interrupted) if {interrupted} else pathlib.Path("ready").exists
while not wanted():
    time.sleep(0.01)
print("first", flush=True)
sys.exit(130 if interrupted else {code})
"""
SECOND = """
import pathlib
from pipeline.common.child_process import wait_for_turn
if wait_for_turn(pathlib.Path("ready").touch):
    print("second", flush=True)
"""
BOTH = """
import sys
from pipeline.launch.walkthrough import steps
codes = dict(zip(("first", "second"), sys.argv[1:]))
steps.python_command = lambda _, name: [sys.executable, "-c", codes[name]]
try:
    with steps.Successor(["second"]) as successor:
        steps.run_step(["first"], successor)
        print("between", flush=True)
        steps.run_step(successor)
except steps.StepError as error:
    sys.exit(error.code)
"""


def run_both(folder, first: str, second: str = SECOND) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BOTH, first, second],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_step_gets_ready_before_the_one_before_ends(tmp_path):
    run = run_both(tmp_path, FIRST.format(interrupted=False, code=0))
    out, _ = run.communicate(timeout=240)
    assert (out, run.returncode) == ("first\nbetween\nsecond\n", 0)


def test_what_has_got_ready_does_not_begin_after_a_failure(tmp_path):
    run = run_both(tmp_path, FIRST.format(interrupted=False, code=3))
    out, _ = run.communicate(timeout=240)  # All that write have ended.
    assert (out, run.returncode) == ("first\n", 3)


def test_an_interrupt_is_for_the_step_whose_turn_it_is(tmp_path):
    run = run_both(tmp_path, FIRST.format(interrupted=True, code=0))
    wait_for((tmp_path / "ready").exists)
    os.killpg(run.pid, signal.SIGINT)
    out, _ = run.communicate(timeout=240)
    assert (out, run.returncode) == ("first\n", 130)


def get_ready(successor: steps.Successor) -> None:
    """As when the command before has told that cores are free."""
    reader, writer = os.pipe()
    os.write(writer, b".")
    os.close(writer)
    # A thread, whose signals are blocked.
    thread = threading.Thread(target=successor.start, args=(reader,))
    thread.start()
    thread.join()


@pytest.fixture
def ready(monkeypatch) -> Callable[[str], steps.Successor]:
    """Starts some code as a successor."""

    def start(code: str) -> steps.Successor:
        monkeypatch.setattr(
            steps, "python_command", lambda *_: [sys.executable, "-c", code]
        )
        successor = steps.Successor(["x"])
        get_ready(successor)
        return successor

    return start


def test_what_died_before_its_turn_is_started_again(ready):
    with ready("import os, sys; sys.exit('FMA_TURN' in os.environ)") as successor:
        assert successor._process.wait(240) == 1
        steps.run_step(successor)


def test_what_ends_right_after_its_turn_has_had_it(ready, monkeypatch):
    def write(*arguments):
        written = os_write(*arguments)
        process.wait(240)
        return written

    code = "import os; os.read(int(os.environ['FMA_TURN']), 1); print('once')"
    with ready(code) as successor:
        process, os_write = successor._process, os.write
        monkeypatch.setattr(steps.os, "write", write)
        assert successor.take_turn() is process


def find_pipe(descriptor: int | str) -> str:
    """The same name for both ends."""
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return ""


def test_what_cannot_be_started_before_its_turn_is_started_then(ready, monkeypatch):
    started = []

    def start(*arguments, **options):
        started.append([find_pipe(each) for each in options["pass_fds"]])
        if len(started) == 1:
            raise BlockingIOError("too many processes")
        return popen(*arguments, **options)

    popen = subprocess.Popen
    monkeypatch.setattr(steps.subprocess, "Popen", start)
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    with ready("pass") as successor:
        [[turn]] = started
        assert turn not in map(find_pipe, os.listdir("/proc/self/fd"))
        steps.run_step(successor)
    assert len(started) == 2
    assert failures == []


def test_two_steps_that_have_cores_to_spare_start_one_successor(ready):
    with ready("import os; os.read(int(os.environ['FMA_TURN']), 1)") as successor:
        first = successor._process
        get_ready(successor)
        assert successor._process is first


def test_a_step_ends_with_a_launcher_that_is_killed(tmp_path):
    corpus = tmp_path / "corpus"
    words = ["demo", "--output", str(corpus), "--workers", "2"]
    code = f"from pipeline.launch.walkthrough import steps; steps.run_step({words!r})"
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for(lambda: any(corpus.rglob("*.mp3")))
    started = psutil.Process(launcher.pid).children(recursive=True)
    assert len(started) > 2  # The step, and who works for it.
    launcher.kill()
    launcher.wait()
    _, alive = psutil.wait_procs(started, timeout=120)
    for process in alive:
        process.kill()
    assert not alive, alive
