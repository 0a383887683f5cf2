"""The file system of a path, as `pipeline.common.ownership` needs it."""

from __future__ import annotations

import tensorflow as tf

from pipeline.common.files import Files, GFiles, LocalFiles


def files_of(path: str) -> Files:
    """Of this machine, or what TensorFlow reads for a path with a scheme."""
    if "://" in path:
        return GFiles(tf.io.gfile, tf.errors.OpError)
    return LocalFiles()
