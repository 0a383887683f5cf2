"""Baselines in the graph give what they predict."""

import json

import numpy as np
import pytest
import tensorflow as tf

from pipeline import schema
from pipeline.schema import UserError
from tests.support.trainer_fixtures import write_dataset
from trainer.data.dataset import open_dataset
from trainer.export import __main__ as export
from trainer.export import files, graph_classifiers
from trainer.export.serving import make_model
from trainer.predict import classical
from trainer.predict.baseline import Baseline, make_files
from trainer.predict.classical import OnComponents
from trainer.predict.loading import load_predictor

WIDTH, CLASSES = 40, 4
KINDS = ("logistic_regression", "gaussian_nb", "knn", "rbf_svm")


def make_classifier(kind: str, width: int = WIDTH, classes: int = CLASSES):
    """One of chance numbers of a likely size."""
    rng = np.random.default_rng(len(kind))
    vectors = rng.normal(size=(30, width)).astype(np.float32)
    counts = np.bincount(np.arange(30) % classes, minlength=classes)
    pairs = classes * (classes - 1) // 2
    match kind:
        case "logistic_regression":
            return classical.LogisticRegression(
                coefficients=rng.normal(size=(width, classes)),
                intercepts=rng.normal(size=classes),
            )
        case "gaussian_nb":
            return classical.GaussianNaiveBayes(
                means=rng.normal(size=(classes, width)),
                variances=rng.uniform(0.5, 2, (classes, width)),
                log_priors=np.log(rng.dirichlet(np.ones(classes))),
                temperature=20.0,
            )
        case "knn":
            return classical.NearestNeighbours(
                vectors=vectors, labels=np.arange(30) % classes, neighbours=5
            )
    return classical.RbfSvm(
        vectors=vectors,
        counts=counts,
        coefficients=rng.normal(size=(classes - 1, 30)),
        intercepts=rng.normal(size=pairs) / 10,
        gamma=1 / width,
        temperature=0.3,
    )


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_classifies_as_the_arrays_do(kind, components, classes):
    rng = np.random.default_rng(1)
    classifier = make_classifier(kind, 7 if components else WIDTH, classes)
    if components:
        matrix, centre = rng.normal(size=(WIDTH, 7)) / 3, rng.normal(size=WIDTH)
        classifier = OnComponents(centre=centre, matrix=matrix, classifier=classifier)
    rows = rng.normal(size=(50, WIDTH)).astype(np.float32)
    found = graph_classifiers.make_classifier(classifier)(tf.constant(rows))
    expected = classifier.predict(rows)
    assert found.dtype == tf.float32
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, representations=["statistics"], statistics=WIDTH)
    return open_dataset(str(folder))


def write_baseline(folder, manifest, kind):
    """A folder of a baseline that does not know the second genre."""
    folder.mkdir()
    contents = make_files(
        make_classifier(kind, classes=2), np.array([0, 2]), "statistics"
    )
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / schema.MANIFEST_FILE).write_text(manifest.to_json())
    report = {"calibration": {"temperature": 1.3}}
    (folder / "report.json").write_text(json.dumps(report))


@pytest.mark.parametrize("form", ["savedmodel", "litert", "onnx"])
@pytest.mark.parametrize("kind", KINDS)
def test_baselines_export_in_every_format(data, tmp_path, kind, form):
    if form != "savedmodel":
        for module in export.MODULES[form]:
            pytest.importorskip(module)
    write_baseline(tmp_path / "model", data.manifest, kind)
    argv = [f"--model={tmp_path / 'model'}", f"--format={form}"]
    if form != "savedmodel":
        assert export.main([*argv, f"--data={data.folder}"]) == 0
        suffix = files.FORMATS[form][0]
        path = tmp_path / "model" / "export" / f"model{suffix}.json"
        facts = json.loads(path.read_text())
        assert facts["test_clips"] == 6
        assert facts["largest_difference"] <= 1e-4
        return
    assert export.main(argv) == 0
    predictor = load_predictor(str(tmp_path / "model"))
    records, _ = files.load_clips(data, make_model(predictor), "test")
    loaded = tf.saved_model.load(str(tmp_path / "model" / "export"))
    served = loaded.signatures["serving_default"]
    found = served(statistics=tf.constant(records[:, 0]))["probabilities"].numpy()
    expected = predictor.predict({"statistics": records})
    assert found[:, 1].max() < 1e-6
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_no_graph_can_hold_is_refused(data, monkeypatch):
    monkeypatch.setattr(graph_classifiers, "MAX_BYTES", 100)
    baseline = Baseline(
        classifier=make_classifier("knn", classes=3),
        classes=np.arange(3),
        representation="statistics",
        manifest=data.manifest,
    )
    with pytest.raises(UserError, match="principal components"):
        make_model(baseline)
