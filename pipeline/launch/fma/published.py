"""What the Free Music Archive data set publishes, as its README says."""

from __future__ import annotations

import dataclasses

#: Of the addresses in FMA's README; never reached from where this was written.
BASE = "https://os.unil.cloud.switch.ch/fma/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published archive.

    Attributes:
      name: of the file.
      sha1: of its content, in hexadecimal.
      size: in bytes, about; the server says how many they are.
    """

    name: str
    sha1: str
    size: int


METADATA = Published(
    name="fma_metadata.zip",
    sha1="f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
    size=342 << 20,
)
AUDIO = {
    "small": Published(
        name="fma_small.zip",
        sha1="ade154f733639d52e35e32f5593efe5be76c6d70",
        size=int(7.2 * (1 << 30)),
    ),
    "medium": Published(
        name="fma_medium.zip",
        sha1="c67b69ea232021025fca9231fc1c7c1a063ab50b",
        size=22 << 30,
    ),
    "large": Published(
        name="fma_large.zip",
        sha1="497109f4dd721066b5ce5e5f250ec604dc78939e",
        size=93 << 30,
    ),
    "full": Published(
        name="fma_full.zip",
        sha1="0f0ace23fbe9ba30ecb7e95f763e435ea802b8ab",
        size=879 << 30,
    ),
}
#: Clips that can be used: of large and full, 47 % of 106,574 tracks carry a top genre.
CLIPS = {"small": 8_000, "medium": 25_000, "large": 50_000, "full": 50_000}
#: Those that carry any genre: 98 % of large and full.
LABELLED = {"small": 8_000, "medium": 25_000, "large": 104_500, "full": 104_500}
#: Records of a clip, all but the music model's, and what models and reports take.
CLIP_BYTES = 830_000
MODELS_BYTES = 1 << 30
