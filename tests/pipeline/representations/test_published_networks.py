"""Embeddings against the graphs that their authors published; fetches the wheel."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.representations import weights
from pipeline.representations.music_model import MODELS, load_network
from pipeline.schema import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    try:
        weights.fetch_wheel(folder)
    except UserError as error:
        pytest.skip(str(error))
    return folder


def run_published_graph(folder: Path, output: str, patches: np.ndarray) -> np.ndarray:
    """What a node of the checkpoint's own TensorFlow 1 graph gives, not training."""
    tf = pytest.importorskip("tensorflow")
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString((folder / ".meta").read_bytes())
    # Without the gradients, which this TensorFlow does not import.
    restore = "save/restore_all"
    graph_def = tf.compat.v1.graph_util.extract_sub_graph(
        meta.graph_def, [output, restore]
    )
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        session.run(restore, {meta.saver_def.filename_tensor_name: f"{folder}/"})
        feed = {
            operation.outputs[0]: False
            if operation.outputs[0].dtype == tf.bool
            else patches
            for operation in graph.get_operations()
            if operation.type == "Placeholder" and operation.name.startswith("model/")
        }
        result: np.ndarray = session.run(f"{output}:0", feed)
        return result.reshape(len(patches), -1)


@pytest.mark.parametrize("name", list(MODELS))
def test_embeddings_are_those_of_the_published_graph(wheel, name):
    output = (
        "model/max_pooling2d_4/MaxPool"
        if name.endswith("vgg")
        else "model/batch_normalization_10/batchnorm/add_1"
    )
    patches = np.random.default_rng(0).gamma(2, 0.7, (3, 187, 96)).astype("float32")
    expected = run_published_graph(wheel / "musicnn" / name, output, patches)
    network = load_network(weights.convert(wheel, MODELS[name]), name)
    found = network(patches)
    assert found.shape == expected.shape == (3, MODELS[name].size)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)
