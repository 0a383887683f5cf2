"""LiteRT (TensorFlow Lite): a model for phones and small devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

SUFFIX = ".tflite"
#: How weights may be kept: as 8-bit integers, or as floats of half the width.
QUANTIZATIONS = ("int8", "float16")


def convert(saved_model: str, signatures: Sequence[str], quantize: str | None) -> bytes:
    """Converts functions of a SavedModel.

    Args:
      saved_model: its folder.
      signatures: their names; the first is what is called without a name.
      quantize: one of `QUANTIZATIONS`, or None for float32 throughout.

    Raises:
      Exception: of `find_errors`, or one of many that Python has: the converter does
        not know an operation.
    """
    # Of a function instead of a SavedModel, the converter drops the weights.
    converter = tf.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=[*signatures]
    )
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content


def find_errors() -> tuple[type[Exception], ...]:
    """Exceptions of the converter's own, in a module that is not public."""
    from tensorflow.lite.python.convert_phase import ConverterError

    return (ConverterError,)


class Runner:
    """Answers as the file does, by LiteRT's own interpreter.

    Args:
      content: of the file.
      signature: the function that is called.
    """

    def __init__(self, content: bytes, signature: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._call = Interpreter(model_content=content).get_signature_runner(signature)

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Outputs by name, of inputs by name."""
        outputs: dict[str, NDArray[np.float32]] = self._call(**inputs)
        return outputs
