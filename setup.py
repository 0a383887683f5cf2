"""One light sdist for Dataflow's workers and for Vertex AI.

It requires nothing: both install it into an image that has the locked
dependencies, which it must not change. `requirements.lock` is for everyone else.
"""

from setuptools import find_packages, setup

setup(
    name="fma-genre-classifiers",
    version="0.1.0",
    description="Trained genre classifiers from the Free Music Archive, at any scale",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["pipeline", "pipeline.*", "trainer", "trainer.*"]),
    package_data={
        "pipeline": ["py.typed"],
        "trainer": ["py.typed"],
        "trainer.compare.html": ["web/*"],
    },
    install_requires=[],
)
