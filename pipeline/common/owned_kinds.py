"""What we make: kinds of folders and of files, and the names that each gives."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

OWNER = "fma-genre-classifiers"
MARK_FILE = "OWNER.json"
#: Unfinished files; `files.temporary_name` gives such names.
UNFINISHED = re.compile(r"(?:.*/)?\.[^/]*\.[0-9a-f]{32}\.part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of folder that we make.

    Attributes:
      name: in the mark and in sentences.
      files: regular expressions, each of a whole path relative to the folder.
      proof: names of JSON files, each with keys that ours has: a folder from before
        there were marks is ours if it holds one of them, and no strange file.
      listed: files are ours if the mark lists them; others may lie beside them.
      sign: found in the first bytes of every listed file, where they are at hand.
    """

    name: str
    files: Sequence[str] = ()
    proof: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    listed: bool = False
    sign: bytes = b""

    def knows(self, path: str) -> bool:
        """Whether we give such a name."""
        if path == MARK_FILE or UNFINISHED.fullmatch(path):
            return True
        return any(re.fullmatch(pattern, path) for pattern in self.files)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileKind:
    """A kind of single file that we make, which may lie beside anybody's.

    Attributes:
      name: in sentences.
      suffixes: that its name may end with; lower case.
      sign: found in the first 64 KiB of every such file that we write.
    """

    name: str
    suffixes: tuple[str, ...]
    sign: bytes


def _below(folder: str, patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/{pattern}" for pattern in (*patterns, re.escape(MARK_FILE)))


_SPLITS = "(?:training|validation|test)"
_SHARD = r"\d{5,}-of-\d{5,}"
_SAVED_MODEL = (
    r"saved_model\.pb",
    r"fingerprint\.pb",
    r"keras_metadata\.pb",
    r"variables/variables\.(?:index|data-\d{5}-of-\d{5})",
    r"assets\.extra/(?:description\.json|tf_serving_warmup_requests)",
)
_MANIFEST = frozenset({"schema_version", "fingerprint", "genres", "representations"})
_DATASET_FILES = (
    rf"(?:windows|mel|features|statistics|embeddings)/{_SPLITS}-{_SHARD}\.tfrecord",
    # By which other libraries read the shards.
    r"(?:windows|mel|features|statistics|embeddings)/(?:(?:features|dataset_info)\.json"
    r"|label\.labels\.txt|schema\.pbtxt)",
    rf"clips/{_SHARD}\.jsonl",
    rf"rejects-{_SHARD}\.jsonl",
    r"(?:_unfinished-)?(?:manifest\.json|COMPLETED)",
    r"report\.json",
    r"music_model\.npz",
    *_below("transform_fn", _SAVED_MODEL),
    r"transform_fn/asset_map",
    r"transformed_metadata/(?:schema\.pbtxt|asset_map|v\d+-json/schema\.json)",
    rf"_progress/(?:RUN|shard-{_SHARD}\.json)",
    # What is unfinished, in folders that nobody else has reason to name so.
    r"_temporary/.+",
    r"transform_tmp/.+",
)
#: A dataset; a new one is built in `_next/` beside the old one.
DATASET = Kind(
    name="dataset",
    files=(*_DATASET_FILES, *_below("_next", (*_DATASET_FILES, r"_files\.json"))),
    proof={"manifest.json": _MANIFEST},
)
_LABELS_FILES = (
    rf"labels/{_SHARD}\.(?:jsonl|parquet)",
    rf"rejects-{_SHARD}\.jsonl",
    r"(?:_unfinished-)?(?:labels\.json|COMPLETED)",
    r"report\.json",
    rf"_progress/(?:RUN|shard-{_SHARD}\.json)",
    r"_temporary/.+",
)
#: Genres of audio files, by `trainer.predict.label`; replaced as a dataset is.
LABELS = Kind(
    name="folder of labels",
    files=(*_LABELS_FILES, *_below("_next", (*_LABELS_FILES, r"_files\.json"))),
    proof={"labels.json": frozenset({"labels_version", "models", "genres"})},
)
#: With libsndfile's PEAK chunk of one channel and, as `write_wav` has it, no time.
WAVS = Kind(name="decoded clips", listed=True, sign=b"PEAK\x10\0\0\0\1\0\0\0\0\0\0\0")
CHECKPOINTS = Kind(
    name="checkpoints",
    files=(
        r"(?:[\w.-]+/){0,3}\d{12}\.checkpoint(?:\.part)?",
        rf"(?:[\w.-]+/)?{re.escape(MARK_FILE)}",
        # What a frozen base gives, until the run is over.
        rf"(?:[\w.-]+/){{0,2}}[0-9a-f]{{12}}/base-features/{_SPLITS}-{_SHARD}"
        r"\.tfrecord(?:\.part)?",
    ),
)
TRIALS = Kind(name="trials", files=(r"\d{4,}\.json(?:\.part)?",))
CACHE = Kind(
    name="feature cache",
    files=(
        rf"(?:[0-9a-f]{{12}}/)?base-features/{_SPLITS}-{_SHARD}\.tfrecord(?:\.part)?",
    ),
)
EXPORT = Kind(
    name="export",
    files=(
        *_SAVED_MODEL,
        r"model(?:-int8|-float16)?\.(?:tflite|onnx)(?:\.json)?",
        r"model_card\.md",
    ),
    proof={
        "assets.extra/description.json": frozenset({"export_version", "signatures"})
    },
)
_MODEL_FILE = (
    r"(?:model\.keras|(?:model|manifest|history|report|baseline|ensemble)\.json"
    r"|(?:baseline|music_model)\.npz|(?:history|confusion|average_precision)\.png"
    r"|(?:predictions|validation)\.csv|model_card\.md)"
)
_MODEL_FILES = (
    rf"\.?{_MODEL_FILE}(?:\.part)?",
    # A finished model until it is in its place, and the room that it will need.
    rf"_unpublished/(?:{_MODEL_FILE}|publish\.json|reserve)",
    *_below("checkpoints", CHECKPOINTS.files),
    *_below("trials", (*TRIALS.files, *_below("features", CACHE.files))),
    *_below("export", EXPORT.files),
)
MODEL = Kind(
    name="model",
    files=(*_MODEL_FILES, *_below(r"fold-\d+", _MODEL_FILES)),
    proof={"report.json": frozenset({"report_version"}), "manifest.json": _MANIFEST},
)
DEMO = Kind(
    name="demo corpus",
    files=(
        r"fma_demo/(?:\d{3}/\d{6}\.mp3|README\.txt)",
        r"fma_metadata/(?:tracks|genres)\.csv",
        r"planted\.json",
        r"demo_corpus\.json",
        r"(?:.+/)?\.[^/]+\.[0-9a-f]{32}\.tmp",
    ),
    proof={"demo_corpus.json": frozenset({"corpus", "complete", "files"})},
)
#: FMA's archives, as they come, and what is known of them.
DOWNLOADS = Kind(name="download", listed=True)
#: For matplotlib's `savefig(metadata=...)`, and what it makes of it.
PNG_METADATA = {"Software": OWNER}
PICTURE = FileKind(
    name="picture", suffixes=(".png",), sign=b"tEXtSoftware\0" + OWNER.encode()
)
#: Of `pipeline.inspect.table`, whose first column begins so.
PARQUET = FileKind(name="table", suffixes=(".parquet",), sign=OWNER.encode())
HTML = FileKind(
    name="report",
    suffixes=(".html", ".htm"),
    sign=f'<meta name="generator" content="{OWNER}"'.encode(),
)
MARKDOWN = FileKind(
    name="report", suffixes=(".md",), sign=f"<!-- made by {OWNER} -->".encode()
)
#: The numbers of `trainer.compare`.
COMPARISON = FileKind(
    name="report", suffixes=(".json",), sign=b'{\n "comparison_version":'
)
