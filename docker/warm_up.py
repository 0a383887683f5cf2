"""Computes one clip of noise, while an image is built, so that numba's cache fills."""

from pipeline.common.clip_config import ClipConfig
from pipeline.representations import DEFAULTS
from pipeline.representations.spectrum import Workspace
from pipeline.shards.records import warm_up

if __name__ == "__main__":
    warm_up(DEFAULTS, ClipConfig(), Workspace())
