"""The representations of a clip: a module each, listed here once.

A representation is a module with `NAME`, `make_schema(config)` and
`compute(spectrum, config)`. To add one, write the module and list it below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import ClipConfig
from pipeline.representations import embeddings, features, mel, statistics, windows
from pipeline.representations.spectrum import Float32, Spectrum, Workspace
from pipeline.schema import LABEL_FIELD, Field, RepresentationSchema

_MODULES: dict[str, ModuleType] = {
    module.NAME: module for module in (windows, mel, features, statistics, embeddings)
}

#: Every representation, and those that are made unless told otherwise; `embeddings` too
#: where the music model's weights are there.
NAMES = tuple(_MODULES)
DEFAULTS = ("windows", "mel", "features", "statistics")


def make_schemas(
    names: Sequence[str], config: ClipConfig, label: Field = LABEL_FIELD
) -> dict[str, RepresentationSchema]:
    """Schemas by name.

    Args:
      names: of representations.
      config: their parameters.
      label: the field that holds a clip's genre, or genres.
    """
    return {
        name: dataclasses.replace(_MODULES[name].make_schema(config), label=label)
        for name in names
    }


def compute_representations(
    samples: Float32,
    names: Sequence[str],
    config: ClipConfig,
    workspace: Workspace,
    *,
    length: int | None = None,
    look: Callable[[Spectrum], object] | None = None,
) -> dict[str, NDArray[Any]]:
    """Computes representations from one waveform and one shared spectrum.

    Args:
      samples: mono at 44,100 Hz, shape (1321967,), float32.
      names: which ones.
      config: their parameters.
      workspace: the thread's buffers; results do not refer to them.
      length: samples that are the audio's own, where others follow (see
        `pipeline.decoding.waveform.Waveform`).
      look: is shown the spectrum in the end.

    Returns:
      Arrays of shape (records_per_clip, *value.shape), by name.
    """
    # One FFT pass serves all: the finest that any of them needs. Beside statistics the
    # others' last bits differ from those computed without.
    double = statistics.NAME in names
    samples = np.ascontiguousarray(samples, np.float32)
    spectrum = Spectrum(samples, workspace, double=double, length=length)
    found = {name: _MODULES[name].compute(spectrum, config) for name in names}
    if look is not None:
        look(spectrum)
    return found
