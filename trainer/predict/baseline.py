"""A trained baseline: its files, and asking it for genres.

baseline.json   which classifier, and what it reads
baseline.npz    its arrays (NumPy's format, never a pickle)
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import UserError, fingerprint, shorten
from trainer.data.normalisation import expand_normalisation, normalise
from trainer.evaluation.model_digests import digest_bytes
from trainer.evaluation.tasks.task import find_task
from trainer.evaluation.typed_json import parse_json
from trainer.predict.classical import Classifier, from_arrays, to_arrays
from trainer.predict.model_archive import MAX_BYTES
from trainer.predict.model_folder import ADVICE, open_model_folder
from trainer.predict.protocol import OneModel

DESCRIPTION_FILE = "baseline.json"
ARRAYS_FILE = "baseline.npz"
FORMAT = 1
#: Bytes of the description.
MAX_DESCRIPTION = 1 << 20
_CLASSES = "classes"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Baseline(OneModel):
    """A classical classifier and what it was trained on: a `Predictor`.

    Attributes:
      classifier: of normalised records.
      classes: index of the genre that each of its columns stands for; genres that the
        training split lacked have none, and the probability 0.
    """

    classifier: Classifier
    classes: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuses what does not belong together."""
        genres, name = len(self.manifest.genres), self.representation
        if (
            self.classes.dtype.kind != "i"
            or self.classes.shape != (self.classifier.classes,)
            or len(set(self.classes.tolist())) < len(self.classes)
            or not all(0 <= label < genres for label in self.classes.tolist())
        ):
            raise ValueError(
                f"its classes must be {self.classifier.classes} of {genres} genres"
            )
        layout = self.manifest.representations.get(name)
        if layout is None or name not in self.manifest.normalisation:
            raise ValueError(f"its manifest does not describe {name!r:.80}")
        if layout.value.size != self.classifier.width:
            raise ValueError(
                f"it reads {self.classifier.width:,} values, {name} has "
                f"{layout.value.size:,}"
            )

    @functools.cached_property
    def _statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        name = self.representation
        return expand_normalisation(
            self.manifest.representations[name], self.manifest.normalisation[name]
        )

    def predict(self, records: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `Predictor`; the mean over a clip's records, then calibrated."""
        values = records[self.representation]
        clips, count = values.shape[:2]
        rows = values.reshape(clips * count, -1).astype(np.float32)
        normalise(rows, *self._statistics)
        found = np.zeros((len(rows), len(self.genres)))
        found[:, self.classes] = self.classifier.predict(rows)
        by_clip: NDArray[np.float64] = found.reshape(clips, count, -1).mean(axis=1)
        if not np.all(np.isfinite(by_clip)):
            raise UserError(
                f"The {self.representation} baseline gives no numbers; it is damaged: "
                "train it again."
            )
        if self.temperature == 1:
            return by_clip
        scaled = find_task(self.manifest).scale(by_clip, self.temperature)
        return np.asarray(scaled, np.float64)


def make_files(
    classifier: Classifier, classes: NDArray[np.int64], representation: str
) -> dict[str, bytes]:
    """The files of a baseline by name: the same bytes for the same arrays."""
    kind, arrays = to_arrays(classifier)
    arrays[_CLASSES] = np.asarray(classes, np.int64)
    file = io.BytesIO()
    np.savez(file, **dict(sorted(arrays.items())))  # type: ignore[arg-type]
    description = {
        "format": FORMAT,
        "classifier": kind,
        "representation": representation,
    }
    text = json.dumps(description, indent=1, sort_keys=True) + "\n"
    return {ARRAYS_FILE: file.getvalue(), DESCRIPTION_FILE: text.encode()}


def load_baseline(path: str) -> Baseline:
    """Loads a model folder that `trainer.baselines` has written.

    Raises:
      UserError: there is no such folder, or what is in it is no whole baseline.
    """
    folder = open_model_folder(path)
    description = folder.require(DESCRIPTION_FILE, limit=MAX_DESCRIPTION)
    content = folder.require(ARRAYS_FILE, limit=MAX_BYTES)
    manifest, temperature = folder.manifest(), folder.temperature()
    thresholds = folder.thresholds(manifest)
    source = folder.join(ARRAYS_FILE)
    try:
        values = parse_json(description)
        if values.pop("format") != FORMAT:
            raise ValueError(f"{DESCRIPTION_FILE} is of another format")
        kind, representation = values["classifier"], values["representation"]
        if not isinstance(kind, str) or not isinstance(representation, str):
            raise ValueError(f"{DESCRIPTION_FILE} names no classifier")
        arrays = _read_arrays(content)
        classes = arrays.pop(_CLASSES)
        return Baseline(
            classifier=from_arrays(kind, arrays),
            classes=classes,
            representation=representation,
            manifest=manifest,
            temperature=temperature,
            music_model=folder.music_model(),
            thresholds=thresholds,
            fingerprint=fingerprint(
                [
                    digest_bytes(content).sha256,
                    kind,
                    list(manifest.genres),
                    dict(manifest.settings),
                    [
                        list(values)
                        for values in dataclasses.astuple(
                            manifest.normalisation[representation]
                        )
                    ],
                    temperature,
                    *([] if thresholds is None else [list(thresholds)]),
                ]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{source} cannot be loaded ({shorten(error, 200)}); {ADVICE}"
        ) from error


def _read_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """Arrays of a `.npz` that was written without compression."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > len(content):
                raise ValueError("it would inflate")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        SyntaxError,
    ) as error:
        raise ValueError(f"it holds no arrays: {error}") from error
