"""Weights of the music models: from their published wheel into the user's cache.

The wheel is fetched from the index that pip is configured for and taken by its pinned
SHA-256. The TensorFlow 1 checkpoints in it become plain arrays, which are held against
the digests in `music_model`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.files import LocalFiles
from pipeline.common.plain_text import one_line, print_error
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.common.quiet import filter_stderr
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

WHEEL = "musicnn==0.1.0"
WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
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
        from pipeline.common import storage  # Imports Beam.

        try:
            content = storage.read_bytes(wanted)
        except storage.STORE_ERRORS as error:
            raise UserError(
                f"--music_model must be one of {', '.join(MODELS)}, or a file of "
                f"weights that can be read. Received: {wanted} "
                f"({storage.explain(error)})"
            ) from error
        return identify(read_weights(content, wanted), wanted), wanted
    if not wanted and not is_cached(MODELS[name]):
        return None
    return MODELS[name], str(_find_cached(name))


def _find_cached(name: str) -> Path:
    if not is_cached(MODELS[name]):
        raise UserError(
            f"The weights of the music model {name} are not in {cache_folder()}; "
            "./launch.sh weights fetches them."
        )
    return weights_file(name)


def read_cached(name: str) -> tuple[bytes, str]:
    """A cached model's file of weights, and its path.

    Raises:
      UserError: it is not there.
    """
    path = _find_cached(name)
    return path.read_bytes(), str(path)


def is_cached(model: MusicModel) -> bool:
    """Whether the cache has the model's weights, whole."""
    path = weights_file(model.name)
    if not path.is_file():
        return False
    try:
        return identify(read_weights(path.read_bytes(), str(path)), str(path)) == model
    except (UserError, OSError):
        return False


def fetch_wheel(folder: Path) -> None:
    """Fetches the wheel and unpacks it into a folder.

    Raises:
      UserError: it cannot be had.
    """
    pin = folder / "pin.txt"
    pin.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-I", "-m", "pip", "download"]
    command += ["--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "-r", str(pin)]
    # Without a network, two attempts tell.
    command += ["--retries=1"] * ("PIP_RETRIES" not in os.environ)
    done = subprocess.run(
        [*command, "-d", str(folder)], capture_output=True, text=True, cwd=folder
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = done.stderr.strip().rpartition("\n")[2] or "pip gives no file"
        raise UserError(
            f"{WHEEL}, which carries the weights, cannot be fetched: {last}. Check the "
            "network and the index that pip is configured for, or give the unpacked "
            "wheel (--wheel DIR)."
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(folder)


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "weights",
        description="Keeps the weights of the music models (29 MB to fetch, 11 MB to "
        "keep) in the user's cache.",
        examples=["weights"],
    )
    weights = parser.add_argument_group("weights")
    weights.add_argument(
        "--wheel",
        metavar="DIR",
        help=f"an unpacked {WHEEL}; without it, the wheel is fetched",
    )
    weights.add_argument(
        "--optional",
        action="store_true",
        help="go on without them, with exit code 0, where they cannot be had",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Keeps what is missing; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    missing = [model for model in MODELS.values() if not is_cached(model)]
    if arguments.optional and not missing:
        return 0
    try:
        with filter_stderr():  # TensorFlow has much to say.
            _keep(missing, arguments.wheel)
    except (UserError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{cache_folder()}: {error.strerror}"
        if arguments.optional:
            print(one_line(f"Without the music models' weights: {reason}"))
            return 0
        print_error(reason)
        return 2
    told = f"Weights of {', '.join(MODELS)}: {cache_folder()}"
    if arguments.optional:
        print(told)
    else:
        use = ["--representations", "embeddings", "--output", "dataset"]
        files = ["--audio", "DIR", "--metadata", "FILE"]
        Reporter().finish(told, ["preprocess", *files, *use])
    return 0


def _keep(missing: Sequence[MusicModel], wheel: str | None) -> None:
    """Keeps weights in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        if missing and not wheel:
            fetch_wheel(Path(folder))
        for model in missing:
            content = convert(Path(wheel or folder), model)
            LocalFiles().write(str(weights_file(model.name)), content)


if __name__ == "__main__":
    sys.exit(main())
