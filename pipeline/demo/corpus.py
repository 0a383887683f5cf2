"""The demo corpus: FMA in miniature, computed instead of downloaded."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.common import ownership
from pipeline.common.files import LocalFiles
from pipeline.common.owned_kinds import DEMO
from pipeline.demo.encode import make_file
from pipeline.demo.layout import BROKEN, ODD, DemoConfig, DemoTrack, plan_layout
from pipeline.demo.tracks_csv import format_tracks, name_artist, name_track
from pipeline.schema import UserError

__all__ = ["DemoConfig", "DemoCorpus", "make_corpus"]

#: Raised whenever the same seed would give other bytes.
GENERATOR_VERSION = 2

AUDIO_FOLDER = "fma_demo"
METADATA_FILE = "fma_metadata/tracks.csv"
PLANTED_FILE = "planted.json"
STATE_FILE = "demo_corpus.json"

_README = """\
Synthetic music in the layout of fma_small, made by `python -m pipeline.demo`.
Every sound was computed; the artists do not exist. Public domain (CC0 1.0).
Some files are broken on purpose: see ../planted.json.
"""

_Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoCorpus:
    """A corpus on disk.

    Attributes:
      output: Its folder.
      tracks: All of its tracks, those without a row or without a file included.
      created: False if the complete corpus was there already.
    """

    output: Path
    tracks: Sequence[DemoTrack]
    created: bool

    @property
    def broken(self) -> list[DemoTrack]:
        """The tracks whose files are broken, missing or not listed."""
        return [track for track in self.tracks if track.kind in BROKEN]

    def count(self) -> dict[str, dict[str, int]]:
        """Returns the usable clips by split and genre, those without ffmpeg."""
        counts: dict[str, collections.Counter[str]] = {}
        for track in self.tracks:
            if track.is_good:
                split = counts.setdefault(track.artist.split, collections.Counter())
                split[track.artist.genre] += 1
        return {split: dict(sorted(genres.items())) for split, genres in counts.items()}


def _write(path: Path, data: bytes) -> None:
    try:
        LocalFiles().write(str(path), data)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror}. Make room there or choose "
            "another --output."
        ) from error


def _write_clip(path: Path, track: DemoTrack, seed: int, seconds: float) -> None:
    title, artist = name_track(track, seed), name_artist(track.artist, seed)
    _write(path, make_file(track, title, artist, seed, seconds))


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


def _describe_planted(tracks: Sequence[DemoTrack]) -> dict[str, list[object]]:
    """Returns the broken and the unusual files, and why each has to be rejected."""
    return {
        name: [
            {
                "track_id": track.track_id,
                "path": track.path,
                "kind": track.kind,
                "reason": BROKEN.get(track.kind, ""),
            }
            for track in tracks
            if track.kind in kinds
        ]
        for name, kinds in (("broken", BROKEN), ("odd", ODD))
    }


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


def _remove_corpus(output: Path) -> None:
    try:
        ownership.remove(LocalFiles(), str(output), DEMO)
    except OSError as error:
        raise UserError(
            f"Cannot replace the demo corpus in {output}: {error.strerror}. Choose "
            "another --output."
        ) from error


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
      UserError: `config.output` cannot be written to, or holds a file that is no part
        of a demo corpus; then nothing in it was changed.
    """
    output = config.output
    folder = output / AUDIO_FOLDER
    corpus = DemoCorpus(output=output, tracks=plan_layout(config), created=True)
    holding = ownership.check_folder(LocalFiles(), str(output), DEMO)
    state = _read_state(output / STATE_FILE)
    description = _describe(config)
    same = state.get("corpus") == description
    if same and state.get("complete") is True:
        return dataclasses.replace(corpus, created=False)
    if not same and not holding.empty:
        _remove_corpus(output)
    ownership.claim(LocalFiles(), str(output), DEMO)
    new_state = {"corpus": description, "complete": False}
    _write(output / STATE_FILE, _to_json(new_state))

    # Files appear whole or not at all, so those of the same corpus need no second try.
    clips = [track for track in corpus.tracks if track.has_file]
    pending = [
        track for track in clips if not (same and (folder / track.path).exists())
    ]
    done = len(clips) - len(pending)
    for _ in _write_clips(config, pending, folder):
        done += 1
        if progress is not None:
            progress(done, len(clips))

    _write(folder / "README.txt", _README.encode())
    text = format_tracks(corpus.tracks, config.seed)
    _write(output / METADATA_FILE, text.encode("utf-8"))
    _write(output / PLANTED_FILE, _to_json(_describe_planted(corpus.tracks)))
    _write(output / STATE_FILE, _to_json(new_state | {"complete": True}))
    return corpus
