"""Computes one clip of noise, while an image is built, so that numba's cache fills."""

from pipeline.clip import warm_up
from pipeline.config import ClipConfig
from pipeline.representations import NAMES
from pipeline.spectrum import Workspace

if __name__ == "__main__":
    warm_up(NAMES, ClipConfig(), Workspace())
