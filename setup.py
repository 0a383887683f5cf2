"""Builds the package that pyproject.toml describes.

Dataflow and Vertex AI install the project into images that have the locked
dependencies, which it must not change. So the sdist that Beam makes for them, with
`python setup.py sdist` or with FMA_STAGED set, requires nothing. An sdist is built from
again where it arrives, and its own PKG-INFO says which of the two it is.
"""

import os
import sys
from pathlib import Path

from setuptools import Distribution, setup


def requires_nothing() -> bool:
    """Whether the package is for an image."""
    information = Path(__file__).with_name("PKG-INFO")
    if information.exists():
        headers = information.read_text(encoding="utf-8").partition("\n\n")[0]
        return "\nRequires-Dist:" not in headers
    by_hand = "sdist" in sys.argv and "setuptools.build_meta" not in sys.modules
    return by_hand or bool(os.environ.get("FMA_STAGED"))


class ProjectDistribution(Distribution):
    """The project, with its requirements where it is for people."""

    def parse_config_files(self, *args: object, **kwargs: object) -> None:
        """Reads pyproject.toml, but for the requirements of a package for an image."""
        super().parse_config_files(*args, **kwargs)
        if requires_nothing():
            for holder in (self, self.metadata):
                holder.install_requires, holder.extras_require = [], {}


setup(distclass=ProjectDistribution)
