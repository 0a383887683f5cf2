"""The demo corpus: FMA in miniature, computed instead of downloaded."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.common import ownership
from pipeline.common.child_process import current_folder_kept_out, end_with
from pipeline.common.files import LocalFiles
from pipeline.common.owned_kinds import DEMO
from pipeline.common.progress import SILENT, Reporter
from pipeline.demo.encode import make_file
from pipeline.demo.genre_tree import format_genres
from pipeline.demo.layout import BROKEN, ODD, DemoConfig, DemoTrack, plan_layout
from pipeline.demo.tracks_csv import format_tracks, name_artist, name_track
from pipeline.schema import UserError

#: Raised whenever the same seed would give other bytes.
GENERATOR_VERSION = 3

AUDIO_FOLDER = "fma_demo"
METADATA_FILE = "fma_metadata/tracks.csv"
GENRES_FILE = "fma_metadata/genres.csv"
PLANTED_FILE = "planted.json"
STATE_FILE = "demo_corpus.json"

_README = """\
Synthetic music in the layout of fma_small, made by `./launch.sh demo`.
Every sound was computed; the artists do not exist. Public domain (CC0 1.0).
Some files are broken on purpose: see ../planted.json.
"""


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Make room there or "
            "choose another --output."
        ) from error


def _write(path: Path, data: bytes) -> None:
    with _changing(path):
        LocalFiles().write(str(path), data)


def _write_clip(path: Path, track: DemoTrack, seed: int, seconds: float) -> None:
    title, artist = name_track(track, seed), name_artist(track.artist, seed)
    with _changing(path):
        LocalFiles().write(str(path), make_file(track, title, artist, seed, seconds))


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
    # Forking a process that may hold threads (TensorFlow, Beam) is not safe.
    with (
        current_folder_kept_out(),
        concurrent.futures.ProcessPoolExecutor(
            min(config.workers, len(jobs)),
            mp_context=multiprocessing.get_context("spawn"),
            # They hold both ends of the pipe that they read, and would wait for ever.
            initializer=end_with,
            initargs=(os.getpid(),),
        ) as pool,
    ):
        futures = [pool.submit(_write_clip, *job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                yield
        finally:
            pool.shutdown(cancel_futures=True)


def _describe_planted(track: DemoTrack) -> dict[str, object]:
    """Returns what a file that is not simply good is, and why it must be rejected."""
    reason = BROKEN.get(track.kind, "")
    file = {"track_id": track.track_id, "path": track.path}
    return file | {"kind": track.kind, "reason": reason}


def _describe(config: DemoConfig) -> dict[str, object]:
    """Returns all that decides the corpus's bytes, as JSON reads it back."""
    description = dataclasses.asdict(config) | {"version": GENERATOR_VERSION}
    del description["output"], description["workers"]
    return dict(json.loads(json.dumps(description, sort_keys=True)))


def _read_state(path: Path) -> dict[str, object]:
    try:
        state = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _to_json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def make_corpus(config: DemoConfig, reporter: Reporter = SILENT) -> bool:
    """Makes the demo corpus, or finds it complete.

    The same configuration and libraries give the same bytes, whatever the number of
    workers. An interrupted corpus of the same configuration is completed, one of
    another configuration is replaced. The state file, which says "complete", is
    written last.

    Args:
      config: What to make.
      reporter: Is told about each clip.

    Returns:
      False if the complete corpus was there already.

    Raises:
      UserError: `config.output` cannot be written to, or holds a file that is no part
        of a demo corpus; then nothing in it was changed.
    """
    output, folder = config.output, config.output / AUDIO_FOLDER
    tracks = plan_layout(config)
    holding = ownership.check_folder(LocalFiles(), str(output), DEMO)
    state = _read_state(output / STATE_FILE)
    description = _describe(config)
    same = state.get("corpus") == description
    if same and state.get("complete") is True:
        return False
    if not same and not holding.empty:
        with _changing(output):
            ownership.remove(LocalFiles(), str(output), DEMO)
    ownership.claim(LocalFiles(), str(output), DEMO)
    new_state = {"corpus": description, "complete": False}
    _write(output / STATE_FILE, _to_json(new_state))

    # Files appear whole or not at all, so those of the same corpus need no second try.
    clips = [track for track in tracks if track.has_file]
    pending = [track for track in clips if not (folder / track.path).exists()]
    done = len(clips) - len(pending)
    with reporter.stage("Demo corpus", len(clips), "clip", done=done) as stage:
        for _ in _write_clips(config, pending, folder):
            stage.advance()

    _write(folder / "README.txt", _README.encode())
    text = format_tracks(tracks, config.seed)
    _write(output / METADATA_FILE, text.encode("utf-8"))
    _write(output / GENRES_FILE, format_genres(tracks, config.seed).encode("utf-8"))
    planted = {
        name: [_describe_planted(track) for track in tracks if track.kind in kinds]
        for name, kinds in (("broken", BROKEN), ("odd", ODD))
    }
    _write(output / PLANTED_FILE, _to_json(planted))
    _write(output / STATE_FILE, _to_json(new_state | {"complete": True}))
    return True
