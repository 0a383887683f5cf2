"""The project's commands by name: `./launch.sh NAME` and, installed, `fma-NAME`."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.child_process import (
    current_folder_kept_out,
    end_with,
    wait_for_turn,
)
from pipeline.common.plain_text import end_output, is_read, print_error
from pipeline.common.progress import WHOLE_RUN
from pipeline.common.progress.command_line import suggest
from pipeline.launch.environment import indexes

#: The module of each command, and the extra of the package that it needs.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "preprocess": ("pipeline.preprocess", "beam"),
    "inspect": ("pipeline.inspect", "beam"),
    "show": ("pipeline.show", ""),
    "local": ("pipeline.launch.walkthrough.demo", "beam"),
    "fma": ("pipeline.launch.walkthrough.fma", "beam"),
    "download": ("pipeline.launch.fma", ""),
    "demo": ("pipeline.demo", ""),
    "weights": ("pipeline.representations.weights", "beam"),
    "dataflow": ("pipeline.cloud.dataflow", "cloud"),
    "flink": ("pipeline.cloud.flink", "beam"),
    "train": ("trainer.task", ""),
    "baselines": ("trainer.baselines", ""),
    "folds": ("trainer.folds", ""),
    "compare": ("trainer.compare", ""),
    "report": ("trainer.compare.serve", ""),
    "predict": ("trainer.predict", ""),
    "label": ("trainer.predict.label", "beam"),
    "app": ("trainer.app", ""),
    "export": ("trainer.export", ""),
    "vertex": ("trainer.vertex", "cloud"),
}
#: What a flag makes of a command: another module of the same job's kind.
VARIANTS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("dataflow", "--label"): ("trainer.predict.label.dataflow", "cloud")
}
#: Extras that bring what a command imports only for some of its options.
EXTRAS = {
    "optuna": "tune",
    "tensorboard": "tensorboard",
    "google": "cloud",
    "wandb": "wandb",
    "ai_edge_litert": "litert",
    "tf2onnx": "onnx",
    "onnx": "onnx",
    "onnxruntime": "onnx",
}


def find_module(module: str) -> Any:
    """What `python -m` would run; it has `make_parser` and `main`.

    It is found by name: the trainer's commands stand above the pipeline's.

    Raises:
      ModuleNotFoundError: something that it imports is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        module += ".__main__"
    return importlib.import_module(module)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that this program is called by, or that comes first.

    Args:
      argv: program and arguments; None for those of this process.

    Returns:
      The command's exit code.
    """
    _open_standard_descriptors()
    program, *arguments = sys.argv if argv is None else argv
    name = Path(program).stem.removeprefix("fma-")
    if name not in COMMANDS:
        name, *arguments = arguments or [""]
    if name not in COMMANDS:
        names = ", ".join(COMMANDS)
        meant = suggest([name], COMMANDS)
        print_error(f"choose one of {names}. Received: {name!r}{meant}")
        return 2
    module, extra = COMMANDS[name]
    for (command, flag), variant in VARIANTS.items():
        if command == name and flag in arguments:
            arguments.remove(flag)
            module, extra = variant
    sys.argv = [f"fma-{name}", *arguments]
    launcher = os.environ.get(WHOLE_RUN, "")
    if launcher.isdecimal():
        end_with(int(launcher))
    if name == "weights":  # Fetched from where the set-up fetches.
        os.environ.update(indexes.pip_variables(os.environ))
    try:
        with current_folder_kept_out():
            command = find_module(module)
            if not wait_for_turn(getattr(command, "prepare", _do_nothing)):
                return 0
            code: int = command.main()
            return code
    except KeyboardInterrupt:
        print_error(f"{name} was interrupted.", label="stopped")
        return 130
    except BrokenPipeError:
        unread = [s for s in (sys.stdout, sys.stderr) if not is_read(s)]
        if not unread:
            raise
        end_output(*unread)
        return 141  # As a shell has it of what SIGPIPE ends.
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in ("pipeline", "trainer"):
            raise
        extra = EXTRAS.get(missing, extra)
        advice = f"'fma-genre-classifiers[{extra}]'" if extra else missing
        print_error(
            f"fma-{name} needs {error.name}, which is not installed; "
            f"pip install {advice}"
        )
        return 2


def _open_standard_descriptors() -> None:
    """Opens those of 0 to 2 that are closed.

    Else the next file or pipe takes their place, here or in a process that is started,
    and gets what is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
        name, mode = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))[descriptor]
        setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115
    os.close(descriptor)


def _do_nothing() -> None:
    """Stands for the imports of a command that has few."""


class Ending:
    """Ends this process when its exit handlers have run, and takes nothing apart.

    Taking Beam's and TensorFlow's modules apart takes a second or two and writes
    nothing: files are closed where they are written, and threads have been waited for.

    Attributes:
      code: of the exit; None after an exception, for Python to report.
    """

    def __init__(self) -> None:
        """To be made before other exit handlers, so as to come after them."""
        self.code: int | None = None
        atexit.register(self._end)

    def _end(self) -> None:
        if self.code is None:
            return
        logging.shutdown()
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(self.code)


if __name__ == "__main__":
    ending = Ending()
    ending.code = main()
    sys.exit(ending.code)
