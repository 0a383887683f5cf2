"""Networks that heard a lot of music: log-mel patches to embeddings.

The four networks of Pons and Serra ("musicnn: Pre-trained convolutional neural
networks for music audio tagging", 2019, arXiv:1909.06654), from their published
weights. What each layer computes is that of the published graphs, which for `MSD_vgg`
pool otherwise than the published code.

TensorFlow is imported when a network is first used.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.quiet import optional_hidden
from pipeline.representations.log_mel import BANDS, PATCH_FRAMES
from pipeline.schema import UserError

if TYPE_CHECKING:
    import tensorflow as tf

Float32 = NDArray[np.float32]

#: Window of each pooling, (time, bands), and its stride where that is another.
_POOLS = {
    "MSD_vgg": ((4, 1), (1, 4), (2, 2), (2, 2), (4, 4)),
    "MTT_vgg": ((4, 1), (2, 2), (2, 2), (2, 2), (4, 4)),
}
_STRIDES = {**_POOLS, "MTT_vgg": ((2, 2), (2, 2), (2, 2), (2, 2), (4, 4))}
_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class MusicModel:
    """What is known of a network.

    Attributes:
      name: of the network.
      sha256: of its weights, by `digest_weights`.
      size: values of an embedding.
      trained_on: the music that it was trained on.
      overlap: a sentence on what of a test set it may have heard.
      licence: SPDX name of the weights' licence.
      source: where the weights were published.
    """

    name: str
    sha256: str
    size: int
    trained_on: str
    overlap: str
    licence: str = "ISC"
    source: str = "musicnn 0.1.0 on PyPI (Pons and Serra, arXiv:1909.06654)"

    def to_dict(self) -> dict[str, str]:
        """What manifests and model cards carry, `size` left out."""
        facts = dataclasses.asdict(self)
        del facts["size"]
        return facts


_MSD = {
    "trained_on": "the Million Song Dataset's songs, tagged by Last.fm's listeners",
    "overlap": "Songs of the Million Song Dataset are commercial music, and recordings "
    "of a test set may be among them: scores on well-known music can be too good. "
    "MTT_vgg and MTT_musicnn are the cautious choice.",
}
_MTT = {
    "trained_on": "MagnaTagATune: the catalogue of the label Magnatune, tagged by "
    "players of a game",
    "overlap": "Songs of MagnaTagATune are those of one small label, Magnatune: only "
    "its music in a test set may have been heard in training.",
}

MODELS: Mapping[str, MusicModel] = {
    model.name: model
    for model in (
        MusicModel(
            name="MSD_vgg",
            sha256="355d69aa8c2f35d34458190cab49d594ed06be2e067860c634ccb8bf6121c302",
            size=256,
            **_MSD,
        ),
        MusicModel(
            name="MSD_musicnn",
            sha256="a435820f343a66206c37970a0547fcb66a005f2ade016b2b53f6cf51f33f8569",
            size=200,
            **_MSD,
        ),
        MusicModel(
            name="MTT_vgg",
            sha256="c190ba22f2f1f9bba2268368c989cee6b4d7d99bf7ec997f0305aabad5e53459",
            size=256,
            **_MTT,
        ),
        MusicModel(
            name="MTT_musicnn",
            sha256="7e01a96749979f48bc7b25078a8e03cd8e06b4bb6f3b1de2930a92eaa7b1d114",
            size=200,
            **_MTT,
        ),
    )
}
#: Where its weights are and nothing else is asked for.
DEFAULT_MODEL = "MSD_vgg"


def digest_weights(weights: Mapping[str, Float32]) -> str:
    """SHA-256 of names, shapes and values, whatever the file's container."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name], "<f4")
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def read_weights(content: bytes, source: str) -> dict[str, Float32]:
    """Parses a file of weights (NumPy's npz; never a pickle).

    Raises:
      UserError: it is something else.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            "--music_model must name a file of weights as ./launch.sh weights makes "
            f"it. Received: {source} ({error})"
        ) from error


def write_weights(weights: Mapping[str, Float32]) -> bytes:
    """Serialises weights: the same bytes for the same values."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: weights[name] for name in sorted(weights)}
    np.savez(file, **arrays)
    return file.getvalue()


def identify(weights: Mapping[str, Float32], source: str) -> MusicModel:
    """Which network the weights belong to.

    Raises:
      UserError: none that is known.
    """
    digest = digest_weights(weights)
    for model in MODELS.values():
        if model.sha256 == digest:
            return model
    raise UserError(
        "--music_model must hold the weights of one of "
        f"{', '.join(MODELS)}; ./launch.sh weights fetches them. Received: {source} "
        f"(SHA-256 of its values {digest})"
    )


def prepare_one_thread() -> None:
    """Has TensorFlow, where it has not begun yet, compute on one thread.

    Workers run one a core: threads of their own would compete with each other.
    """
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")


def build_network(
    model: MusicModel, weights: Mapping[str, Float32]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The network as a function from patches to embeddings, for a graph to hold."""
    build = _vgg if model.name in _POOLS else _musicnn

    def network(patches: tf.Tensor) -> tf.Tensor:
        return build(_Layers(weights), model.name, patches[..., None])

    return network


def make_network(
    model: MusicModel, weights: Mapping[str, Float32]
) -> Callable[[Float32], Float32]:
    """The network as a function on one thread.

    Returns:
      A function from patches, float32 (n, 187, 96), to embeddings, float32 (n, size).
    """
    with optional_hidden():
        import tensorflow as tf

    signature = tf.TensorSpec((None, PATCH_FRAMES, BANDS), tf.float32)
    network = tf.function(build_network(model, weights), input_signature=[signature])
    function = network.get_concrete_function()

    def embed(patches: Float32) -> Float32:
        embedding: Float32 = function(tf.constant(patches)).numpy()
        return embedding

    return embed


class _Layers:
    """The checkpoint's layers by their names."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = weights

    def normalise(self, x: Any, number: int) -> Any:
        import tensorflow as tf

        name = f"batch_normalization{_suffix(number)}"
        mean, variance, beta, gamma = (
            self._weights[f"{name}/{part}"]
            for part in ("moving_mean", "moving_variance", "beta", "gamma")
        )
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, _EPSILON)

    def convolve(self, x: Any, name: str, padding: str = "SAME") -> Any:
        import tensorflow as tf

        y = tf.nn.conv2d(x, self._weights[f"{name}/kernel"], 1, padding)
        return tf.nn.relu(y + self._weights[f"{name}/bias"])

    def connect(self, x: Any, name: str) -> Any:
        import tensorflow as tf

        y = x @ self._weights[f"{name}/kernel"] + self._weights[f"{name}/bias"]
        return tf.nn.relu(y)


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def _vgg(layers: _Layers, name: str, x: Any) -> Any:
    """Five convolutions of 128; the last pool is the embedding, 256 values."""
    import tensorflow as tf

    x = layers.normalise(x, 0)
    pools = zip(_POOLS[name], _STRIDES[name], strict=True)
    for number, (window, stride) in enumerate(pools, start=1):
        x = layers.normalise(layers.convolve(x, f"{number}CNN"), number)
        x = tf.nn.max_pool2d(x, window, stride, "VALID")
    return tf.reshape(x, (-1, 256))


def _musicnn(layers: _Layers, name: str, x: Any) -> Any:
    """Timbral and temporal filters, then the layer before the tags, 200 values."""
    import tensorflow as tf

    del name
    x = layers.normalise(x, 0)
    wide = tf.pad(x, ((0, 0), (3, 3), (0, 0), (0, 0)))
    fronts = []
    for number in range(5):
        timbral = number < 2
        y = layers.convolve(
            wide if timbral else x,
            f"conv2d{_suffix(number)}",
            "VALID" if timbral else "SAME",
        )
        fronts.append(tf.reduce_max(layers.normalise(y, number + 1), axis=2))
    front = tf.concat(fronts, axis=2)
    levels = [front]
    y = front[:, :, :, None]
    for number in (5, 6, 7):
        padded = tf.pad(y, ((0, 0), (3, 3), (0, 0), (0, 0)))
        z = layers.convolve(padded, f"conv2d_{number}", "VALID")
        z = tf.transpose(layers.normalise(z, number + 1), (0, 1, 3, 2))
        y = z if number == 5 else y + z
        levels.append(y[..., 0])
    features = tf.concat(levels, axis=2)
    pools = tf.stack(
        [tf.reduce_max(features, axis=1), tf.reduce_mean(features, axis=1)], axis=2
    )
    x = layers.normalise(tf.reshape(pools, (-1, 2 * features.shape[2])), 9)
    return layers.normalise(layers.connect(x, "dense"), 10)


@functools.lru_cache(maxsize=2)
def load_network(content: bytes, source: str) -> Callable[[Float32], Float32]:
    """`make_network` of a file's content, once a process."""
    prepare_one_thread()
    weights = read_weights(content, source)
    return make_network(identify(weights, source), weights)
