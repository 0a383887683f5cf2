"""Makes the records of a few clips anew from their files, with librosa.

The pipeline has its own, faster way to the same numbers. Here librosa computes them, so
that a look at a dataset shows that its records are what its audio files hold.
"""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import librosa
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from pipeline.common import storage
from pipeline.common.clip_config import (
    HOP_LENGTH,
    N_FFT,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    ClipConfig,
)
from pipeline.common.plain_text import align
from pipeline.common.rejects import AudioError
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.decoding.waveform import Waveform
from pipeline.inputs.join import Clip
from pipeline.inspect import reading
from pipeline.representations import features, mel, statistics, windows
from pipeline.representations.spectrum import Float32
from pipeline.schema import Manifest, UserError
from pipeline.shards.records import checksum_audio
from pipeline.shards.shard import fetch_audio

Float64 = NDArray[np.float64]

#: What is compared, and the unit of a difference.
UNITS = {
    windows.NAME: "full scale",
    mel.NAME: "grey levels of 255",
    features.NAME: "standard deviations",
    statistics.NAME: "standard deviations",
}
#: A record is another one's when more than a hundredth of its values is this far off.
#: Values close to a threshold (a roll-off's bin, the tuning) may differ by more.
FAR = {windows.NAME: 1e-6, mel.NAME: 1.0, features.NAME: 0.05, statistics.NAME: 0.05}
FAR_SHARE = 0.01


@dataclasses.dataclass(kw_only=True)
class Comparison:
    """What became of the clips.

    Attributes:
      differences: of all values, by representation, in `UNITS`.
      problems: sentences that each name a file.
      clips: number of those compared.
    """

    differences: dict[str, list[Float64]]
    problems: list[str]
    clips: int = 0

    def describe(self) -> str:
        """The differences as a table."""
        rows = []
        for name, arrays in sorted(self.differences.items()):
            values = np.concatenate(arrays)
            numbers = np.median(values), np.quantile(values, 0.999), values.max()
            rows.append([name, *(f"{n:.2g}" for n in numbers), UNITS[name]])
        return align(["of librosa's", "median", "99.9 %", "largest", "in"], rows)


def recompute(
    folder: str,
    manifest: Manifest,
    count: int,
    progress: Callable[[str], None],
) -> Comparison:
    """Holds the records of a few clips against what librosa makes of their files.

    Args:
      folder: of the dataset.
      manifest: as it lies there.
      count: clips, of as many genres as can be.
      progress: is told of each clip that is done.

    Raises:
      UserError: a shard cannot be read, or no representation can be made by librosa.
    """
    names = sorted(UNITS.keys() & manifest.representations.keys())
    if not names:
        raise UserError(
            f"--recompute compares {', '.join(UNITS)}, of which this dataset has none. "
            f"Received: {folder}"
        )
    clips = reading.choose_clips(reading.read_clips(folder), count)
    records = {
        name: reading.read_chosen(folder, manifest, name, clips) for name in names
    }
    config = ClipConfig.from_dict(manifest.settings)
    result = Comparison(differences=collections.defaultdict(list), problems=[])
    with IsolatedDecoder() as decoder:
        for number, clip in enumerate(clips, 1):
            progress(f"clip {number} of {len(clips)}")
            _compare(clip, records, manifest, config, decoder, result)
    return result


def _compare(
    clip: Mapping[str, Any],
    records: Mapping[str, Mapping[str, NDArray[Any]]],
    manifest: Manifest,
    config: ClipConfig,
    decoder: IsolatedDecoder,
    result: Comparison,
) -> None:
    """Adds to a result what becomes of one clip."""
    path, track = str(clip["path"]), str(clip["track_id"])
    # Of a long file the same bytes are read as for the records.
    source = Clip(
        track_id=track, artist_id="", labels=(), split="", path=path, size=clip["size"]
    )
    try:
        with fetch_audio(source, config.excerpt) as file:
            waveform = decoder.load_waveform(file, config)
    except (*storage.STORE_ERRORS, AudioError) as error:
        result.problems.append(f"{path} cannot be read: {error}")
        return
    if checksum_audio(waveform.samples) != clip["audio"]:
        result.problems.append(
            f"{path} does not hold the audio that clip {track} was made from"
        )
        return
    missing = [name for name in records if track not in records[name]]
    if missing:
        result.problems.append(
            f"{path}: the dataset has no {' and no '.join(missing)} of clip {track}"
        )
        return
    result.clips += 1
    expected = compute(waveform, list(records), config)
    for name in records:
        difference = np.abs(
            records[name][track].astype(np.float64) - expected[name]
        ) / _scale(name, manifest)
        result.differences[name].append(difference.ravel())
        # What is no number is near nothing.
        if np.mean(~(difference <= FAR[name])) > FAR_SHARE:
            result.problems.append(
                f"{path}: the {name} of clip {track} are not what librosa makes of it"
            )


def compute(
    waveform: Waveform, names: Sequence[str], config: ClipConfig
) -> dict[str, NDArray[Any]]:
    """What the records of a clip should hold, by librosa and scipy.

    Args:
      waveform: of the clip.
      names: of `UNITS`.
      config: parameters.

    Returns:
      `(records_per_clip, *value.shape)` by name.
    """
    samples = waveform.samples
    made: dict[str, NDArray[Any]] = {}
    if windows.NAME in names:
        starts = windows.window_starts(config.windows_per_clip, len(samples))
        made[windows.NAME] = np.stack([samples[s : s + WINDOW_SAMPLES] for s in starts])
    if mel.NAME in names:
        made[mel.NAME] = draw_mel(waveform, config)
    if features.NAME in names or statistics.NAME in names:
        frames = compute_frames(samples, with_pitch=statistics.NAME in names)
        if features.NAME in names:
            made[features.NAME] = _join_features(frames)
        if statistics.NAME in names:
            moments = [
                compute_moments(frames[feature]).ravel()
                for feature in statistics.FEATURES
            ]
            made[statistics.NAME] = np.concatenate(moments)[None]
    return made


def draw_mel(waveform: Waveform, config: ClipConfig) -> NDArray[np.uint8]:
    """Mel images, `(mel_images_per_clip, 224, 224, 3)`, as `mel.compute` says."""
    count = config.mel_images_per_clip
    samples = waveform.samples
    if count > 1:
        samples = samples[: waveform.length]
    heard = 1 + len(samples) // HOP_LENGTH
    if count > 1:
        least = (mel.IMAGE_FRAMES - 1) * HOP_LENGTH
        samples = np.pad(samples, (0, max(least - len(samples), 0)))
    power = librosa.feature.melspectrogram(y=samples, sr=SAMPLE_RATE, n_mels=mel.SIZE)
    loudest = power[:, :heard].max()
    images = []
    for span in mel.image_spans(count, power.shape[1], heard):
        part = power[:, span]
        pixels = np.split(part, mel.pixel_edges(part.shape[1])[1:-1], axis=1)
        ways: list[Callable[..., Any]] = [np.mean, np.max, np.min]
        if config.mel_channels == "repeat":
            ways = [np.mean] * 3
        levels = [
            librosa.power_to_db(
                np.stack([way(pixel, axis=1) for pixel in pixels], axis=1),
                ref=loudest,
                top_db=None,
            )
            for way in ways
        ]
        image = 255 * (1 + np.stack(levels, axis=2) / mel.DEPTH_DB)
        images.append(np.round(image.clip(0, 255)).astype(np.uint8))
    return np.stack(images)


def compute_frames(samples: Float32, *, with_pitch: bool = True) -> dict[str, Float64]:
    """The features of each frame, `(size, frames)`, by their names in `statistics`.

    Args:
      samples: of a clip.
      with_pitch: also those that only statistics have.
    """
    stft = np.abs(librosa.stft(samples, n_fft=N_FFT))
    spectral = {"S": stft, "sr": SAMPLE_RATE}
    loudness = librosa.power_to_db(
        librosa.feature.melspectrogram(S=stft**2, sr=SAMPLE_RATE)
    )
    frames = {
        "chroma_stft": librosa.feature.chroma_stft(S=stft**2, sr=SAMPLE_RATE),
        "mfcc": librosa.feature.mfcc(S=loudness, n_mfcc=features.MFCC),
        "spectral_centroid": librosa.feature.spectral_centroid(**spectral),
        "spectral_rolloff": librosa.feature.spectral_rolloff(**spectral),
        "zcr": librosa.feature.zero_crossing_rate(samples),
    }
    if with_pitch:
        cqt = np.abs(librosa.cqt(samples, sr=SAMPLE_RATE, tuning=None))
        pitch = {"C": cqt, "n_chroma": 12, "n_octaves": 7, "bins_per_octave": 12}
        cens = librosa.feature.chroma_cens(**pitch)
        frames |= {
            "chroma_cens": cens,
            "chroma_cqt": librosa.feature.chroma_cqt(**pitch),
            "rmse": librosa.feature.rms(S=stft),
            "spectral_bandwidth": librosa.feature.spectral_bandwidth(**spectral),
            "spectral_contrast": librosa.feature.spectral_contrast(**spectral),
            "tonnetz": librosa.feature.tonnetz(chroma=cens),
        }
    return {name: np.asarray(rows, np.float64) for name, rows in frames.items()}


def compute_moments(rows: Float64) -> Float64:
    """The seven numbers of each row, `(7, n)`, in the order of `SEVEN_NUMBERS`."""
    with warnings.catch_warnings():
        # Of rows that hardly vary.
        warnings.simplefilter("ignore", RuntimeWarning)
        kurtosis = scipy.stats.kurtosis(rows, axis=1)
        skew = scipy.stats.skew(rows, axis=1)
    return np.stack(
        [
            # Those of a constant row have no value, and are 0 in a record.
            np.nan_to_num(kurtosis),
            rows.max(axis=1),
            rows.mean(axis=1),
            np.median(rows, axis=1),
            rows.min(axis=1),
            np.nan_to_num(skew),
            rows.std(axis=1),
        ]
    )


def _join_features(frames: Mapping[str, Float64]) -> Float64:
    rows = [frames["mfcc"], frames["chroma_stft"], frames["zcr"]]
    centroid, rolloff = frames["spectral_centroid"], frames["spectral_rolloff"]
    of_clip = centroid.mean(), centroid.std(), rolloff.mean(), rolloff.std()
    return np.concatenate([*(row.ravel() for row in rows), of_clip])[None]


def _scale(name: str, manifest: Manifest) -> Any:
    """Of a value, the unit that its difference is given in."""
    if name not in (features.NAME, statistics.NAME):
        return 1.0
    lengths = [segment.length for segment in manifest.representations[name].segments]
    deviation = np.sqrt(np.array(manifest.normalisation[name].variance))
    return np.repeat(np.where(deviation > 0, deviation, 1.0), lengths)
