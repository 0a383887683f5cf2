"""Parameters that shape a record. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.schema import UserError, shorten

#: Hz; every clip is resampled to it.
SAMPLE_RATE = 44_100
#: Length of an FMA clip in samples (29.98 s): 1148 MP3 frames less the decoder's
#: delay. With hop 512 it makes exactly 2,582 frames.
CLIP_SAMPLES = 1_321_967
N_FFT = 2048
HOP_LENGTH = 512
FREQUENCY_BINS = 1 + N_FFT // 2
CLIP_FRAMES = 1 + CLIP_SAMPLES // HOP_LENGTH
WINDOW_SAMPLES = 10_000

#: A file up to this length is cropped at its end; a longer one is excerpted.
MAX_CLIP_SECONDS = 31.0
EXCERPT_SECONDS = 30.0

#: Mel images, or patches for the music model, of a clip at most.
MAX_PER_CLIP = 100
#: How many records `embeddings` makes of a clip: their mean, or one a patch.
EMBEDDING_RECORDS = ("mean", "patches")
EXCERPTS = ("middle", "start")
MEL_CHANNELS = ("statistics", "repeat")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How one audio file becomes arrays.

    Attributes:
      windows_per_clip: raw windows of 10,000 samples, evenly spaced.
      mel_channels: `statistics` (mean, maximum and minimum power of each
        pixel's frames) or `repeat` (the mean, three times).
      mel_images_per_clip: images of 3 s each, evenly spaced; 1: the whole clip in one.
      music_model: name of the network that makes `embeddings`; empty for none.
      embedding_patches: patches of 3 s that the network hears, evenly spaced.
      embedding_records: `mean` of the patches, or `patches`: a record each.
      min_duration: shortest usable file in seconds.
      excerpt: which 30 s of a file over 31 s: `middle` (FMA's rule) or `start`.
      ignore_checksums: take MP3 and FLAC files whose audio is not what their own
        checksum says.
    """

    windows_per_clip: int = 8
    mel_channels: str = "statistics"
    mel_images_per_clip: int = 5
    music_model: str = ""
    embedding_patches: int = 5
    embedding_records: str = "mean"
    min_duration: float = 5.0
    excerpt: str = "middle"
    ignore_checksums: bool = False

    def __post_init__(self) -> None:
        """Refuses values that no clip can satisfy."""
        if not 1 <= self.windows_per_clip <= CLIP_SAMPLES - WINDOW_SAMPLES + 1:
            raise UserError(
                "--windows_per_clip must be 1 or more. "
                f"Received: {self.windows_per_clip}"
            )
        for flag, count in (
            ("--mel_images_per_clip", self.mel_images_per_clip),
            ("--embedding_patches", self.embedding_patches),
        ):
            if not 1 <= count <= MAX_PER_CLIP:
                raise UserError(
                    f"{flag} must lie between 1 and {MAX_PER_CLIP}. Received: {count}"
                )
        for flag, word, known in (
            ("--mel_channels", self.mel_channels, MEL_CHANNELS),
            ("--embedding_records", self.embedding_records, EMBEDDING_RECORDS),
            ("--excerpt", self.excerpt, EXCERPTS),
        ):
            if word not in known:
                raise UserError(
                    f"{flag} must be one of {', '.join(known)}. Received: {word!r}"
                )
        if not 0 < self.min_duration <= MAX_CLIP_SECONDS:
            raise UserError(
                f"--min_duration must be over 0 and at most {MAX_CLIP_SECONDS:g} "
                f"seconds. Received: {self.min_duration:g}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The parameters, and the constants that they build on."""
        return dataclasses.asdict(self) | {
            "sample_rate": SAMPLE_RATE,
            "clip_samples": CLIP_SAMPLES,
            "n_fft": N_FFT,
            "hop_length": HOP_LENGTH,
            "window_samples": WINDOW_SAMPLES,
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> ClipConfig:
        """Reads `Manifest.settings` back.

        Raises:
          UserError: the dataset was made with constants of another version.
        """
        values = {
            field.name: settings[field.name]
            for field in dataclasses.fields(cls)
            if field.name in settings
        }
        for name, value in values.items():
            kind = type(getattr(cls, name))
            if type(value) is not kind and (type(value), kind) != (int, float):
                raise UserError(
                    f"The dataset's settings are damaged: {name} must be of type "
                    f"{kind.__name__}; preprocess the dataset again. Received: "
                    f"{shorten(value)}"
                )
        config = cls(**values)
        if config.to_dict() != dict(settings):
            raise UserError(
                "The dataset was made by another version of the pipeline "
                f"(its settings are {dict(settings)}, this version's "
                f"{config.to_dict()}); preprocess again or use that version."
            )
        return config
