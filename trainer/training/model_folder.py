"""Writes a model folder."""

from __future__ import annotations

import os
import tempfile

import keras
import tensorflow as tf

from pipeline.schema import MANIFEST_FILE, Manifest, UserError
from trainer.evaluation import history, report
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import HISTORY_FILE, MODEL_FILE, REPORT_FILE
from trainer.evaluation.report_folder import write_report
from trainer.runtime.checkpoint import CheckpointFolder
from trainer.training.run import Trained

HISTORY_PLOT = "history.png"
CHECKPOINTS = "checkpoints"
#: What an unfinished run leaves in a model folder.
UNFINISHED = frozenset({CHECKPOINTS, "trials"})


def check_output(folder: str) -> None:
    """Checks that writing a model into a folder destroys nothing else.

    Raises:
      UserError: it is a file, or a folder with something other than a model.
    """
    if not tf.io.gfile.exists(folder):
        return
    advice = "give --output a new folder, or that of a model to replace."
    if not tf.io.gfile.isdir(folder):
        raise UserError(f"--output {folder} is a file; {advice}")
    names = {name.rstrip("/") for name in tf.io.gfile.listdir(folder)}
    names = {name for name in names if not name.startswith(".")} - UNFINISHED
    if names and not {MODEL_FILE, REPORT_FILE} & names:
        raise UserError(f"--output {folder} is not empty and holds no model; {advice}")


def write_model_folder(
    folder: str,
    trained: Trained,
    manifest: Manifest,
    result: report.Report | None,
    test: ClipPredictions | None,
) -> None:
    """Writes all files of a model folder, the report last.

    They are made in a temporary folder and then moved one by one, so that a crash
    leaves no half file, and a report only beside the model that it is about.

    Args:
      folder: local or remote; files of an earlier model are replaced.
      trained: what to write.
      manifest: the dataset's; prediction takes its settings from here.
      result: the report, if there is one.
      test: the predictions that the report is about.
    """
    with tempfile.TemporaryDirectory() as local:
        # Without the optimizer's state the file is a third as large.
        model = trained.model
        bare = keras.Model(model.input, model.output, name=model.name)
        bare.save(os.path.join(local, MODEL_FILE))
        title = "loss and accuracy, record by record"
        contents = {
            MANIFEST_FILE: manifest.to_json().encode(),
            HISTORY_FILE: history.history_json(trained.phases).encode(),
            HISTORY_PLOT: history.history_png(trained.phases, title),
        }
        for name, content in contents.items():
            with open(os.path.join(local, name), "wb") as file:
                file.write(content)
        if result is not None and test is not None:
            write_report(local, result, test, manifest.genres)
        _move(local, folder)


def remove_checkpoints(checkpoints: CheckpointFolder | None, folder: str) -> None:
    """Removes what a run that is done needed for a restart.

    Args:
      checkpoints: of the run; others of a folder that runs share stay.
      folder: the model folder; all checkpoints in it are removed.
    """
    if checkpoints is not None:
        checkpoints.remove()
    inside = f"{folder.rstrip('/')}/{CHECKPOINTS}"
    if tf.io.gfile.isdir(inside):
        tf.io.gfile.rmtree(inside)


def _move(local: str, folder: str) -> None:
    folder = folder.rstrip("/")
    tf.io.gfile.makedirs(folder)
    outdated = f"{folder}/{REPORT_FILE}"
    if tf.io.gfile.exists(outdated):
        tf.io.gfile.remove(outdated)
    for name in sorted(os.listdir(local), key=lambda name: name == REPORT_FILE):
        part = f"{folder}/.{name}.part"
        tf.io.gfile.copy(os.path.join(local, name), part, overwrite=True)
        tf.io.gfile.rename(part, f"{folder}/{name}", overwrite=True)
