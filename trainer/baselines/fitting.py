"""The baselines, and how they are fitted to one representation of a dataset."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import MANIFEST_FILE, MULTI_LABEL, SINGLE_LABEL, SPLITS
from trainer.baselines import classifiers, several
from trainer.baselines.artist_folds import fold_by_artist
from trainer.baselines.choice import Classifier, Examples, Floats
from trainer.baselines.vectors import check_memory, load_normalised
from trainer.data.dataset import Arrays, Dataset
from trainer.data.distances import squared_distances
from trainer.data.music_model import read_music_model
from trainer.evaluation.predictions import ClipPredictions, mean_by_clip, with_artists
from trainer.predict import classical
from trainer.predict.baseline import make_files

#: Below this size of the training split one thread computes: on a busy machine
#: several wait for each other, after each of very many short steps, for longer
#: than they compute.
ONE_THREAD_BYTES = 256 * 2**20

#: A model of more bytes is measured and not kept: kNN and the SVM on all values hold
#: training clips, of which 800 with 85,210 values take 273 MB.
MAX_KEPT_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """One kind of model.

    Attributes:
      name: for flags and folders.
      title: for people.
      fit: fits it and chooses its parameters.
      on_distances: whether it reads distances between clips instead of values.
    """

    name: str
    title: str
    fit: Callable[[Examples], Classifier]
    on_distances: bool = False


BASELINES = (
    Baseline(
        name="logistic_regression",
        title="Logistic regression",
        fit=classifiers.fit_logistic_regression,
    ),
    Baseline(name="knn", title="kNN", fit=classifiers.fit_knn, on_distances=True),
    Baseline(
        name="gaussian_nb",
        title="Gaussian naive Bayes",
        fit=classifiers.fit_gaussian_nb,
    ),
    Baseline(
        name="rbf_svm", title="RBF SVM", fit=classifiers.fit_rbf_svm, on_distances=True
    ),
    Baseline(
        name="pca_logistic_regression",
        title="PCA and logistic regression",
        fit=classifiers.fit_on_components(classifiers.fit_logistic_regression),
        on_distances=True,
    ),
    Baseline(
        name="pca_rbf_svm",
        title="PCA and RBF SVM",
        fit=classifiers.fit_on_components(classifiers.fit_rbf_svm, on_distances=True),
        on_distances=True,
    ),
)


#: Those of several genres a clip, and how they are fitted then.
_FITS_OF_SEVERAL = {
    "logistic_regression": several.fit_logistic_regressions,
    "knn": classifiers.fit_knn,
    "pca_logistic_regression": classifiers.fit_on_components(
        several.fit_logistic_regressions
    ),
}
#: By task.
BASELINES_OF = {
    SINGLE_LABEL: BASELINES,
    MULTI_LABEL: tuple(
        dataclasses.replace(baseline, fit=_FITS_OF_SEVERAL[baseline.name])
        for baseline in BASELINES
        if baseline.name in _FITS_OF_SEVERAL
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A baseline that was fitted.

    Attributes:
      baseline: its kind.
      classifier: of `inputs`.
      clips: the splits that it was fitted to and tested with.
      inputs: what it reads of each.
      dataset: where they come from.
      representation: which of its representations.
      seconds: wall time.
      chosen: whether there were validation clips to choose its parameters by.
    """

    baseline: Baseline
    classifier: Classifier
    clips: Mapping[str, Arrays]
    inputs: Mapping[str, Floats]
    dataset: Dataset
    representation: str
    seconds: float
    chosen: bool

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.baseline.name}-{self.representation}"

    def predict(self) -> dict[str, ClipPredictions]:
        """Probabilities of the clips of each split."""
        predictions = {}
        for split, arrays in self.clips.items():
            scores = np.empty((0, len(self.dataset.manifest.genres)))
            if len(arrays.labels):
                scores = self.classifier.predict(self.inputs[split])
            by_clip = mean_by_clip(arrays.track_ids, arrays.labels, scores)
            artists = dict(zip(arrays.track_ids, arrays.artist_ids, strict=True))
            predictions[split] = with_artists(by_clip, artists)
        return predictions

    def extract(self) -> tuple[classical.Classifier | None, list[str]]:
        """What `predict` loads of it; none, and a note, of a large one."""
        rows, held = self.clips["training"].values, self.classifier.clips
        size = held * rows.shape[1] * rows.itemsize
        if size <= MAX_KEPT_BYTES:
            return self.classifier.extract(rows), []
        return None, [
            f"Measured only, and not kept: it holds {held:,} training clips, "
            f"{size / 1e6:,.0f} MB, which is over {MAX_KEPT_BYTES / 1e6:,.0f} MB; the "
            "SVM on principal components is kept."
        ]

    def make_files(self, kept: classical.Classifier | None) -> dict[str, bytes]:
        """The files of a model folder that can predict; none of what is not kept."""
        if kept is None:
            return {}
        dataset = self.dataset
        return {
            **make_files(kept, self.classifier.classes, self.representation),
            **read_music_model(dataset.folder, self.representation),
            MANIFEST_FILE: dataset.manifest.to_json().encode(),
        }


def fit_baselines(
    dataset: Dataset,
    representation: str,
    baselines: Sequence[Baseline],
    *,
    refit: bool = False,
    reporter: Reporter = SILENT,
) -> Iterator[Fitted]:
    """Fits baselines to the training split, with parameters that validation chooses.

    Args:
      dataset: an open dataset.
      representation: one that the manifest has training statistics for.
      baselines: which, in this order.
      refit: fit again to training and validation clips, with the parameters that were
        chosen; the results have no validation split then.
      reporter: is told about the data.

    Raises:
      UserError: the representation needs more memory than is free.
    """
    check_memory(dataset, representation)
    started = time.monotonic()
    clips = load_normalised(dataset, representation)
    width = clips["training"].values.shape[1]
    reporter.detail(
        f"{representation}: {_counts(clips)} of {width:,} values, loaded in "
        f"{time.monotonic() - started:.1f} s"
    )
    threads = 1 if clips["training"].values.nbytes < ONE_THREAD_BYTES else None
    chosen = len(clips["validation"].labels) > 0
    refit = refit and chosen
    joined = _join(clips) if refit else clips
    on_distances = any(baseline.on_distances for baseline in baselines)
    with threadpool_limits(threads, "blas"):
        started = time.monotonic()
        distances = _measure(clips) if on_distances else {}
        joined_distances = _measure(joined) if on_distances and refit else distances
        distance_seconds = time.monotonic() - started
    if on_distances:
        reporter.detail(
            f"{representation}: distances between clips, {distance_seconds:.1f} s"
        )
    for baseline in baselines:
        with threadpool_limits(threads, "blas"):
            started = time.monotonic()
            inputs = distances if baseline.on_distances else _values(clips)
            classifier = baseline.fit(_make_examples(dataset, clips, inputs))
            if refit:
                inputs = joined_distances if baseline.on_distances else _values(joined)
                examples = _make_examples(dataset, joined, inputs)
                classifier = baseline.fit(
                    dataclasses.replace(examples, chosen=classifier.parameters)
                )
            seconds = time.monotonic() - started
            yield Fitted(
                baseline=baseline,
                classifier=classifier,
                clips=joined,
                inputs=inputs,
                dataset=dataset,
                representation=representation,
                seconds=seconds + (distance_seconds if baseline.on_distances else 0),
                chosen=chosen,
            )


def _make_examples(
    dataset: Dataset, clips: Mapping[str, Arrays], inputs: Mapping[str, Floats]
) -> Examples:
    training, validation = clips["training"], clips["validation"]
    return Examples(
        training=inputs["training"],
        training_labels=training.labels,
        validation=inputs["validation"],
        validation_labels=validation.labels,
        genres=len(dataset.manifest.genres),
        folds=fold_by_artist(
            validation.artist_ids,
            validation.track_ids,
            known=set(training.artist_ids) - {""},
        ),
    )


def _values(clips: Mapping[str, Arrays]) -> dict[str, Floats]:
    return {split: arrays.values for split, arrays in clips.items()}


def _measure(clips: Mapping[str, Arrays]) -> dict[str, Floats]:
    """Squared distances of each split's clips to the training clips."""
    training = clips["training"].values
    return {
        split: squared_distances(arrays.values, training)
        for split, arrays in clips.items()
    }


def _join(clips: Mapping[str, Arrays]) -> dict[str, Arrays]:
    """The splits with all validation clips in the training split."""
    training, validation = clips["training"], clips["validation"]
    everything = Arrays(
        (*training.track_ids, *validation.track_ids),
        np.concatenate([training.labels, validation.labels]),
        (*training.artist_ids, *validation.artist_ids),
        np.concatenate([training.values, validation.values]),
    )
    nothing = Arrays((), validation.labels[:0], (), validation.values[:0])
    return {**clips, "training": everything, "validation": nothing}


def _counts(clips: Mapping[str, Arrays]) -> str:
    training, validation, test = (
        f"{len(set(clips[split].track_ids))} {split}" for split in SPLITS
    )
    return f"{training}, {validation} and {test} clips"
