import os
import subprocess
import sys
import textwrap

import apache_beam as beam
import psutil
import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipeline.common.progress import Reporter
from pipeline.launch import local
from pipeline.launch.plan import run_steps


def mode(arguments: list[str], workers: int) -> tuple[str, int]:
    options = PipelineOptions(arguments)
    local.choose_mode(options, arguments, workers)
    direct = options.view_as(DirectOptions)
    return direct.direct_running_mode, direct.direct_num_workers


def test_one_worker_is_this_process():
    assert mode([], workers=1) == ("in_memory", 1)
    assert mode([], workers=8) == ("multi_processing", 8)


def test_memory_is_what_the_container_has(monkeypatch, tmp_path):
    files = [tmp_path / name for name in ("missing", "max", "limit")]
    files[1].write_text("max\n")
    monkeypatch.setattr(local, "_MEMORY_LIMITS", files[:2])
    free = local.find_memory()
    assert 0 < free < psutil.virtual_memory().total
    used = psutil.Process().memory_info().rss
    files[2].write_text(f"{used + (1 << 20)}\n")
    monkeypatch.setattr(local, "_MEMORY_LIMITS", files)
    assert local.find_memory() < min(free, 64 << 20)


def test_the_user_decides():
    threads = ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]
    assert mode(threads, workers=8) == ("multi_threading", 3)
    # Also for what Beam takes by default.
    here = ["--direct_running_mode=in_memory"]
    assert mode(here, workers=8) == ("in_memory", 1)
    assert mode(["--direct_num_workers", "1"], workers=8)[1] == 1


@pytest.mark.parametrize(
    ("arguments", "clips", "cores", "expected"),
    [
        ([], 3, 2, True),
        ([], 3, 1, False),
        (["--direct_running_mode=multi_threading", "--direct_num_workers=1"], 3, 2, 1),
        (["--direct_running_mode=multi_threading", "--direct_num_workers=2"], 3, 2, 0),
    ],
)
def test_steps_hear_of_cores_that_are_left_over(
    monkeypatch, arguments, clips, cores, expected
):
    monkeypatch.setattr(local, "count_cores", lambda: cores)
    heard = []

    def add_steps(pipeline, here):
        heard.append(here)
        _ = pipeline | beam.Create([1])

    run_steps(add_steps, clips, arguments)
    [here] = heard
    assert here.spare_cores == expected
    assert here.launcher == os.getpid()
    assert here.progress_file


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], True),
        (["--runner=DirectRunner"], True),
        (["--runner=FnApiRunner"], True),
        (["--runner=DataflowRunner"], False),
    ],
)
def test_recognises_local_runners(arguments, expected):
    assert local.is_local(PipelineOptions(arguments)) is expected


def test_progress_counts_bytes():
    counts = []

    class Recorder(Reporter):
        def _show(self, stage):
            counts.append((stage.done, stage.total))

    with local.show_progress(3, Recorder()) as path:
        for _ in range(3):
            with open(path, "ab") as file:
                file.write(b".")
    assert counts[-1] == (3, 3)


def test_a_dead_worker_ends_the_job():
    script = textwrap.dedent(
        """
        import os
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from pipeline.common.quiet import silence_beam
        from pipeline.launch import local

        silence_beam()
        options = PipelineOptions(
            ["--direct_running_mode=multi_processing", "--direct_num_workers=1"]
        )
        pipeline = beam.Pipeline(runner=local.make_runner(options), options=options)
        _ = pipeline | beam.Create([1]) | beam.Map(lambda _: os._exit(7))
        local.run(pipeline)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "a worker process died (exit code 7" in done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_a_dead_worker_ends_the_job_where_nobody_can_be_told():
    script = textwrap.dedent(
        """
        import os
        import threading
        from pipeline.launch import local

        class Pipeline:
            def run(self):
                return self

            def wait_until_finish(self):
                thread = threading.Thread(target=self.fail)
                thread.start()
                thread.join()

            def fail(self):
                raise RuntimeError(
                    "Worker subprocess exited with return code 7"
                )

        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        local.run(Pipeline())
        print("goes on")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize(
    ("arguments", "cores", "gib", "expected"),
    [
        ([], 2, 2, ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]),
        (
            [],
            64,
            2,
            ["--direct_running_mode=multi_threading", "--direct_num_workers=3"],
        ),
        ([], 64, 1.5, ["--direct_running_mode=in_memory"]),
        ([], 64, -1, ["--direct_running_mode=in_memory"]),
        ([], 1, 2, []),
        (["--direct_num_workers=3"], 2, 1, []),
        (["--direct_running_mode=in_memory"], 2, 2, []),
        (["--runner=FlinkRunner"], 2, 2, []),
    ],
)
def test_threads_are_asked_for_where_the_user_asks_for_nothing(
    monkeypatch, arguments, cores, gib, expected
):
    monkeypatch.setattr(local, "count_cores", lambda: cores)
    monkeypatch.setattr(local, "find_memory", lambda: int(gib * 2**30))
    options = PipelineOptions(arguments)
    assert local.ask_for_threads(options, arguments) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("in_memory", 1), ("multi_threading", 3), ("multi_processing", 1)],
)
def test_threads_of_this_process_are_counted(mode, expected):
    arguments = [f"--direct_running_mode={mode}", "--direct_num_workers=3"]
    assert local.count_threads(PipelineOptions(arguments)) == expected
