"""Draws what the pipeline makes of one clip: `./launch.sh show --help`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.common import ownership
from pipeline.common.clip_config import (
    CLIP_FRAMES,
    CLIP_SAMPLES,
    HOP_LENGTH,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    ClipConfig,
)
from pipeline.common.files import LocalFiles
from pipeline.common.owned_kinds import PICTURE, PNG_METADATA
from pipeline.common.plain_text import one_line, print_error
from pipeline.common.progress.command_line import CommandParser
from pipeline.common.rejects import AudioError
from pipeline.decoding.waveform import load_waveform
from pipeline.representations import compute_representations
from pipeline.representations.features import CHROMA, MFCC
from pipeline.representations.mel import image_spans
from pipeline.representations.spectrum import Workspace
from pipeline.representations.windows import window_starts
from pipeline.schema import UserError

SECONDS = CLIP_SAMPLES / SAMPLE_RATE
DRAWN = ("windows", "mel", "features")


def draw_clip(
    samples: NDArray[np.float32],
    arrays: Mapping[str, NDArray[Any]],
    config: ClipConfig,
    length: int = CLIP_SAMPLES,
) -> Figure:
    """Draws raw windows, mel images and feature rows, one above the other.

    Args:
      samples: the clip, shape (1321967,).
      arrays: its representations, as `compute_representations` gives them.
      config: their parameters.
      length: samples that are the audio's own.
    """
    figure = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasAgg(figure)
    wave, image, rows = figure.subplots(3, 1, height_ratios=[1, 2, 1.6])

    step = 200
    blocks = samples[: len(samples) // step * step].reshape(-1, step)
    time = np.arange(len(blocks)) * step / SAMPLE_RATE
    wave.fill_between(
        time, blocks.min(axis=1), blocks.max(axis=1), color="#9fb4c7", linewidth=0
    )
    for start in window_starts(config.windows_per_clip):
        begin = start / SAMPLE_RATE
        wave.axvspan(begin, begin + WINDOW_SAMPLES / SAMPLE_RATE, color="#d0672f")
    wave.set_title(
        f"windows: {config.windows_per_clip} x 10,000 samples of the waveform "
        "(marked to scale)",
        loc="left",
    )
    wave.set_ylabel("amplitude")

    count = config.mel_images_per_clip
    frame = HOP_LENGTH / SAMPLE_RATE
    for span, values in zip(
        image_spans(count, CLIP_FRAMES, 1 + length // HOP_LENGTH),
        arrays["mel"],
        strict=True,
    ):
        extent = (span.start * frame, span.stop * frame, 0, 224)
        image.imshow(values, origin="lower", aspect="auto", extent=extent)
    several = f"{count} images of 3 s, each " if count > 1 else ""
    image.set_title(
        f"mel: {several}224 x 224 x 3 (red: mean, green: maximum, blue: minimum power)",
        loc="left",
    )
    image.set_ylabel("mel band")
    image.set_ylim(0, 224)

    count = MFCC + CHROMA + 1
    matrix = arrays["features"][0, : count * CLIP_FRAMES].reshape(count, CLIP_FRAMES)
    spread = matrix.std(axis=1, keepdims=True)
    scaled = (matrix - matrix.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    rows.imshow(
        scaled,
        aspect="auto",
        extent=(0, SECONDS, count, 0),
        cmap="RdBu_r",
        vmin=-3,
        vmax=3,
        interpolation="nearest",
    )
    rows.set_title(
        "features: 33 x 2,582 + 4 = 85,210 values (each row standardised here)",
        loc="left",
    )
    rows.set_yticks(
        [MFCC / 2, MFCC + CHROMA / 2, count - 0.5], ["MFCC", "chroma", "zero crossings"]
    )
    begins_again = "; dotted: the file's end, behind which it is repeated"
    rows.set_xlabel("seconds" + begins_again * (length < CLIP_SAMPLES))
    for axes in (wave, image, rows):
        axes.set_xlim(0, SECONDS)
        if length < CLIP_SAMPLES:
            axes.axvline(length / SAMPLE_RATE, color="black", linestyle=":")
    return figure


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "show",
        description="Draws the three representations of one audio file.",
        examples=["show song.mp3 --output song.png"],
    )
    files = parser.add_argument_group("files")
    files.add_argument("file", help="audio file, of any length")
    files.add_argument(
        "--output",
        default="clip.png",
        metavar="PNG",
        help="picture to write (default: %(default)s)",
    )
    clips = parser.add_argument_group("clips")
    clip = ClipConfig()
    for flag, count in (
        ("--windows_per_clip", clip.windows_per_clip),
        ("--mel_images_per_clip", clip.mel_images_per_clip),
    ):
        clips.add_argument(
            flag,
            type=int,
            default=count,
            metavar="N",
            help="as of preprocess (default: %(default)s)",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Draws; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    output = arguments.output
    try:
        config = ClipConfig(
            windows_per_clip=arguments.windows_per_clip,
            mel_images_per_clip=arguments.mel_images_per_clip,
        )
        files = LocalFiles()
        ownership.check_file(files, output, PICTURE, flag="--output")
        ownership.check_files_apart(
            os.path.dirname(output) or ".",
            [os.path.basename(output)],
            [("this command", arguments.file)],
            flag="--output",
        )
        if not os.path.isfile(arguments.file):
            raise UserError(f"There is no such file. Received: {arguments.file}")
        with open(arguments.file, "rb") as file:
            waveform = load_waveform(file, config)
        samples, length = waveform.samples, waveform.length
        arrays = compute_representations(
            samples, DRAWN, config, Workspace(), length=length
        )
        buffer = io.BytesIO()
        draw_clip(samples, arrays, config, length).savefig(
            buffer, format="png", dpi=100, metadata=PNG_METADATA
        )
        data = buffer.getvalue()
        ownership.replace_file(files, output, data, PICTURE, flag="--output")
    except UserError as error:
        print_error(error)
        return 2
    except (OSError, AudioError) as error:
        print_error(f"{arguments.file}: {error}")
        return 2
    print(f"Picture: {one_line(output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
