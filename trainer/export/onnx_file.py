"""ONNX: a model for browsers, servers and other languages."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.files import scratch_folder
from pipeline.common.owned_kinds import OWNER

SUFFIX = ".onnx"
QUANTIZATIONS = ("int8",)
#: The newest that tf2onnx has been tried with; ONNX Runtime has known it since 1.15.
OPSET = 17


def convert(saved_model: str, signature: str, quantize: str | None) -> bytes:
    """Converts one function of a SavedModel.

    Args:
      saved_model: its folder.
      signature: name of the function.
      quantize: `int8` for weights of 8 bits, or None for float32 throughout.

    Raises:
      Exception: one of many that Python has; what tf2onnx does not know, it copies, and
        only ONNX Runtime refuses it.
    """
    with _quiet():
        from tf2onnx import convert as tf2onnx
        from tf2onnx import tf_loader

        # Of a Keras model or a function, tf2onnx makes a broken file.
        graph, inputs, outputs, names = tf_loader.from_saved_model(
            saved_model,
            None,
            None,
            signatures=[signature],
            return_tensors_to_rename=True,
        )
        model, _ = tf2onnx.from_graph_def(
            graph,
            name=OWNER,
            input_names=inputs,
            output_names=outputs,
            opset=OPSET,
            tensors_to_rename=names,
        )
    if quantize is None:
        content: bytes = model.SerializeToString()
        return content
    return _quantize(model)


def cut_front_end(content: bytes) -> bytes:
    """What of a file lies behind its output `records`, which becomes the input."""
    import onnx

    model = onnx.load_from_string(content)
    tail = onnx.utils.Extractor(model).extract_model(["records"], ["probabilities"])
    found: bytes = tail.SerializeToString()
    return found


def _quantize(model: Any) -> bytes:
    import onnx

    with _quiet(), scratch_folder() as folder:
        from onnxruntime import quantization

        source, target = os.path.join(folder, "a.onnx"), os.path.join(folder, "b.onnx")
        onnx.save(model, source)
        quantization.quantize_dynamic(
            source, target, weight_type=quantization.QuantType.QUInt8
        )
        return Path(target).read_bytes()


def find_errors() -> tuple[type[Exception], ...]:
    """Exceptions of ONNX's and its runtime's own, which have no base in common."""
    import onnx
    from onnxruntime.capi import onnxruntime_pybind11_state

    kinds = vars(onnxruntime_pybind11_state).values()
    return (
        onnx.checker.ValidationError,
        *(
            kind
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, Exception)
        ),
    )


class Runner:
    """Answers as the file does, by ONNX Runtime.

    Args:
      content: of the file.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Outputs by name, of inputs by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter's progress back, and what the runtime says once more."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
