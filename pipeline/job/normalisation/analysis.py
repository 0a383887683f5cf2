"""TensorFlow Transform's analysis of the training split.

With `saved_model`, the only module of the pipeline that imports TensorFlow. It
analyses the moments of each shard (`shards.moments.pool_clips`), not the clips: tft
fills the raw arrays, which only the resulting function takes, with zeros.

RecordBatches made from NumPy go in and out. With dicts of lists each clip
costs 75 ms, and the interpreter crashes at its exit.

All rows are in one batch, in the order of the shards, since sums of floats depend
on their order: the same shards give the same bits with any number of workers.
"""

from __future__ import annotations

import concurrent.futures
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.common.files import join
from pipeline.common.quiet import keep_back_stderr, optional_hidden
from pipeline.schema import Normalisation, RepresentationSchema
from pipeline.shards.moments import PooledMoments, pool_shards

# Else importing tft turns `tf.keras` into the legacy package.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with keep_back_stderr():
    with optional_hidden():
        import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.tfxio import tensor_adapter

    from pipeline.job.normalisation.saved_model import make_reproducible

#: Rows of the batch at most; filling the raw arrays takes 341 kB each.
ROWS = 32
#: A standard deviation this small beside the mean is rounding, not variation.
NOISE = 1e-6


def analyse(
    shards: Iterable[tuple[int, Mapping[str, PooledMoments]]],
    schemas: Mapping[str, RepresentationSchema],
    output: str,
) -> dict[str, Normalisation]:
    """Analyses the training split and writes the transform function.

    What tft needs is a handful of rows, for which it has a chain of Beam steps. They
    run here, in a pipeline of their own, within whatever step calls this: on a cluster
    each would be a stage that starts workers.

    Args:
      shards: index and moments of each, in any order.
      schemas: the normalised representations.
      output: local folder, for `transform_fn/` and `transformed_metadata/`, which
        `tft.TFTransformOutput` opens. The function takes raw arrays by the name of
        their representation and normalises them.

    Returns:
      The constants of each representation.
    """
    batches = [to_record_batch(rows, schemas) for rows in group_shards(shards)]
    # Beam keeps the state of what runs by thread, and options of file systems.
    options = FileSystems._pipeline_options
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            thread.submit(_run_tft, batches, schemas, output).result()
    finally:
        FileSystems.set_options(options)
    make_reproducible(
        join(output, tft.TFTransformOutput.TRANSFORM_FN_DIR), scratch=output
    )
    return _read_constants(output, schemas)


def _run_tft(
    batches: Sequence[pa.RecordBatch],
    schemas: Mapping[str, RepresentationSchema],
    output: str,
) -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        beam.Pipeline(FnApiRunner(), PipelineOptions([])) as pipeline,
        tft_beam.Context(temp_dir=scratch),
    ):
        rows = pipeline | "Rows" >> beam.Create(batches)
        _ = (
            (rows, _adapter_config(schemas))
            | "Analyze" >> tft_beam.AnalyzeDataset(make_preprocessing_fn(schemas))
            | "Write" >> tft_beam.WriteTransformFn(output)
        )


def _read_constants(
    output: str, schemas: Mapping[str, RepresentationSchema]
) -> dict[str, Normalisation]:
    """What the function says of one row of zeros."""
    zeros = {
        name: tf.zeros((1, schema.value.size), tf.float32)
        for name, schema in schemas.items()
    }
    transformed = tft.TFTransformOutput(output).transform_raw_features(zeros)

    def read(name: str) -> tuple[float, ...]:
        return tuple(float(value) for value in transformed[name].numpy()[0])

    return {
        name: Normalisation(
            mean=read(f"{name}_mean"), variance=read(f"{name}_variance")
        )
        for name in schemas
    }


def make_preprocessing_fn(
    schemas: Mapping[str, RepresentationSchema],
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Builds tft's preprocessing function.

    Its inputs, for each representation, are the raw array and a shard's number of
    clips and moments; its outputs the normalised array and the training split's
    moments.
    """

    def preprocess(inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = {}
        for name, schema in schemas.items():
            clips = tf.cast(inputs[f"{name}_clips"], tf.float64)
            means = tf.cast(inputs[f"{name}_mean"], tf.float64)
            within = tf.cast(inputs[f"{name}_variance"], tf.float64)

            def add_up(values: Any, what: str, name: str = name) -> Any:
                # Named, since the order in which they are traced may vary.
                return tft.sum(
                    values, reduce_instance_dims=False, name=f"{name}_{what}"
                )

            total = add_up(clips, "total")
            mean = add_up(clips * means, "means") / total
            # The law of total variance (see `moments.pool_clips`) in one pass: the
            # difference loses digits that float64 has to spare, down to `NOISE`.
            squares = add_up(clips * (within + means**2), "squares") / total
            variance = squares - mean**2
            varies = variance > (NOISE * mean) ** 2
            scale = tf.sqrt(tf.where(varies, variance, tf.ones_like(variance)))
            variance = tf.where(varies, variance, tf.zeros_like(variance))
            mean, variance, scale = (
                tf.cast(values, tf.float32) for values in (mean, variance, scale)
            )
            lengths = [segment.length for segment in schema.segments]
            raw = inputs[name]
            outputs[name] = (raw - tf.repeat(mean, lengths)) / tf.repeat(scale, lengths)
            rows = tf.shape(raw)[:1]
            outputs[f"{name}_mean"] = _repeat_rows(mean, rows)
            outputs[f"{name}_variance"] = _repeat_rows(variance, rows)
        return outputs

    return preprocess


def _repeat_rows(values: Any, rows: Any) -> Any:
    shape = tf.concat([rows, tf.shape(values)], axis=0)
    return tf.ensure_shape(tf.broadcast_to(values, shape), [None, *values.shape])


def _columns(schemas: Mapping[str, RepresentationSchema]) -> Iterator[tuple[str, int]]:
    """Names and widths of the Arrow columns, in order."""
    for name in sorted(schemas):
        yield name, schemas[name].value.size
        yield f"{name}_clips", 1
        yield f"{name}_mean", len(schemas[name].segments)
        yield f"{name}_variance", len(schemas[name].segments)


def _adapter_config(schemas: Mapping[str, RepresentationSchema]) -> Any:
    """How tft turns Arrow columns into dense tensors; null rows into zeros."""
    columns = list(_columns(schemas))
    representations = {}
    for name, width in columns:
        dense = schema_pb2.TensorRepresentation.DenseTensor(
            column_name=name,
            shape=schema_pb2.FixedShape(dim=[schema_pb2.FixedShape.Dim(size=width)]),
        )
        if name in schemas:
            dense.default_value.float_value = 0.0
        representations[name] = schema_pb2.TensorRepresentation(dense_tensor=dense)
    return tensor_adapter.TensorAdapterConfig(
        arrow_schema=pa.schema([(name, pa.list_(pa.float32())) for name, _ in columns]),
        tensor_representations=representations,
    )


def group_shards(
    shards: Iterable[tuple[int, Mapping[str, PooledMoments]]],
) -> list[list[Mapping[str, PooledMoments]]]:
    """Pools neighbouring shards until there are at most `ROWS` rows.

    Args:
      shards: index and moments of each, in any order.

    Returns:
      The rows of the one batch; no batch where no shard has training clips.
    """
    ordered = [moments for _, moments in sorted(shards, key=_index) if moments]
    size = -(-len(ordered) // ROWS)
    rows: list[Mapping[str, PooledMoments]] = [
        {
            name: pool_shards(
                [moments[name] for moments in ordered[start : start + size]]
            )
            for name in ordered[start]
        }
        for start in range(0, len(ordered), max(size, 1))
    ]
    return [rows] if rows else []


def _index(item: tuple[int, Any]) -> int:
    return item[0]


def to_record_batch(
    rows: Sequence[Mapping[str, PooledMoments]],
    schemas: Mapping[str, RepresentationSchema],
) -> pa.RecordBatch:
    """Batches moments; the raw arrays stay null."""
    arrays = []
    for name in sorted(schemas):
        arrays.append(pa.nulls(len(rows), pa.list_(pa.float32())))
        arrays.append(_to_list_array([[row[name].clips] for row in rows]))
        arrays.append(_to_list_array([row[name].mean for row in rows]))
        arrays.append(_to_list_array([row[name].variance for row in rows]))
    return pa.RecordBatch.from_arrays(arrays, [name for name, _ in _columns(schemas)])


def _to_list_array(vectors: Sequence[Any]) -> pa.ListArray:
    width = len(vectors[0])
    offsets = np.arange(0, width * len(vectors) + 1, width, dtype=np.int32)
    values = np.concatenate(vectors).astype(np.float32, copy=False)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
