"""The demo corpus: FMA in miniature, computed instead of downloaded."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.common.child_process import keep_current_folder_out
from pipeline.demo.encode import make_file
from pipeline.demo.layout import BROKEN, ODD, DemoConfig, DemoTrack, Kind, plan_layout
from pipeline.demo.tracks_csv import format_tracks, name_artist, name_track
from pipeline.schema import UserError

__all__ = ["DemoConfig", "DemoCorpus", "Planted", "make_corpus"]

#: Raised whenever the same seed would give other bytes.
GENERATOR_VERSION = 1

AUDIO_FOLDER = "fma_demo"
METADATA_FILE = "fma_metadata/tracks.csv"
PLANTED_FILE = "planted.json"
STATE_FILE = "demo_corpus.json"

_CLIP_PATH = re.compile(r"\d{3}/\d{6}\.mp3")
_README = """\
Synthetic music in the layout of fma_small, made by `python -m pipeline.demo`.
Every sound was computed; the artists do not exist. Public domain (CC0 1.0).
Some files are broken on purpose: see ../planted.json.
"""

_Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted:
    """A file that is not simply good.

    Attributes:
      track_id: Its track; an unlisted file has no row in ``tracks.csv``.
      path: Below the audio folder.
      kind: One of `layout.Kind`.
      reason: One of `pipeline.common.rejects.Reason` for a broken one, else empty.
    """

    track_id: int
    path: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoCorpus:
    """A corpus on disk.

    Attributes:
      output: Its folder.
      audio_dir: Folder of the clips.
      audio_glob: Matches every clip.
      metadata_path: ``tracks.csv``.
      planted_path: JSON list of the broken and the unusual files.
      counts: Usable clips by split and genre. The AAC clip is not among them: it is
        usable only with ffmpeg.
      broken: The broken files.
      odd: Good music in unusual files.
      created: False if the complete corpus was there already.
    """

    output: Path
    audio_dir: Path
    audio_glob: str
    metadata_path: Path
    planted_path: Path
    counts: Mapping[str, Mapping[str, int]]
    broken: tuple[Planted, ...]
    odd: tuple[Planted, ...]
    created: bool


def _write_atomically(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror}. Make room there or choose "
            "another --output."
        ) from error


def _write_clip(path: Path, track: DemoTrack, seed: int, seconds: float) -> None:
    title, artist = name_track(track, seed), name_artist(track.artist, seed)
    _write_atomically(path, make_file(track, title, artist, seed, seconds))


def _write_clips(
    config: DemoConfig, tracks: Sequence[DemoTrack], folder: Path
) -> Iterator[None]:
    """Writes the tracks' files, yielding after each."""
    jobs = [
        (folder / track.path, track, config.seed, config.clip_seconds)
        for track in tracks
    ]
    if config.workers == 1 or len(jobs) < 2:
        for job in jobs:
            _write_clip(*job)
            yield
        return
    keep_current_folder_out()
    # Forking a process that may hold threads (TensorFlow, Beam) is not safe.
    with concurrent.futures.ProcessPoolExecutor(
        min(config.workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
    ) as pool:
        futures = [pool.submit(_write_clip, *job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                yield
        finally:
            pool.shutdown(cancel_futures=True)


def _plant(track: DemoTrack) -> Planted:
    return Planted(
        track_id=track.track_id,
        path=track.path,
        kind=track.kind.value,
        reason=BROKEN[track.kind].value if track.kind in BROKEN else "",
    )


def _count(tracks: Sequence[DemoTrack]) -> dict[str, dict[str, int]]:
    counts: dict[str, collections.Counter[str]] = {}
    for track in tracks:
        if track.kind in (Kind.GOOD, Kind.MONO, Kind.RATE_48K):
            split = counts.setdefault(track.artist.split, collections.Counter())
            split[track.artist.genre] += 1
    return {split: dict(sorted(genres.items())) for split, genres in counts.items()}


def _describe(config: DemoConfig) -> dict[str, object]:
    """Returns all that decides the corpus's bytes."""
    description = dataclasses.asdict(config) | {"version": GENERATOR_VERSION}
    del description["output"], description["workers"]
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(description.items())
    }


def _read_state(path: Path) -> dict[str, object]:
    try:
        state = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _remove_clips(folder: Path, paths: object) -> None:
    """Removes an older demo corpus's clips, and nothing else."""
    for name in paths if isinstance(paths, list) else []:
        if isinstance(name, str) and _CLIP_PATH.fullmatch(name):
            (folder / name).unlink(missing_ok=True)


def _to_json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def make_corpus(config: DemoConfig, *, progress: _Progress | None = None) -> DemoCorpus:
    """Makes the demo corpus, or finds it complete.

    The same configuration and libraries give the same bytes, whatever the number of
    workers. An interrupted corpus of the same configuration is completed, one of
    another configuration is replaced. The state file, which says "complete", is
    written last.

    Args:
      config: What to make.
      progress: Called with (clips done, clips in all) after each clip.

    Returns:
      The corpus.

    Raises:
      UserError: `config.output` cannot be written to.
    """
    tracks = plan_layout(config)
    output = config.output
    folder = output / AUDIO_FOLDER
    with_file = [track for track in tracks if track.has_file]
    broken = tuple(_plant(track) for track in tracks if track.kind in BROKEN)
    odd = tuple(_plant(track) for track in tracks if track.kind in ODD)
    corpus = DemoCorpus(
        output=output,
        audio_dir=folder,
        audio_glob=str(folder / "*" / "*.mp3"),
        metadata_path=output / METADATA_FILE,
        planted_path=output / PLANTED_FILE,
        counts=_count(tracks),
        broken=broken,
        odd=odd,
        created=True,
    )

    description = _describe(config)
    state = _read_state(output / STATE_FILE)
    same = state.get("corpus") == description
    if same and state.get("complete") is True:
        return dataclasses.replace(corpus, created=False)
    if not same:
        _remove_clips(folder, state.get("files"))
    new_state = {
        "corpus": description,
        "complete": False,
        "files": [track.path for track in with_file],
    }
    _write_atomically(output / STATE_FILE, _to_json(new_state))

    # Files appear whole or not at all, so those of the same corpus need no second try.
    pending = [
        track for track in with_file if not (same and (folder / track.path).exists())
    ]
    done = len(with_file) - len(pending)
    for _ in _write_clips(config, pending, folder):
        done += 1
        if progress is not None:
            progress(done, len(with_file))

    _write_atomically(folder / "README.txt", _README.encode())
    csv_text = format_tracks(tracks, config.seed)
    _write_atomically(corpus.metadata_path, csv_text.encode("utf-8"))
    planted = {
        "broken": [dataclasses.asdict(item) for item in broken],
        "odd": [dataclasses.asdict(item) for item in odd],
    }
    _write_atomically(corpus.planted_path, _to_json(planted))
    _write_atomically(output / STATE_FILE, _to_json(new_state | {"complete": True}))
    return corpus
