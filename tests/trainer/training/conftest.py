"""What several test modules of training share."""

import pytest

from tests.support import trainer_fixtures


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> str:
    """A dataset whose models are trained in no time."""
    folder = tmp_path_factory.mktemp("data")
    kinds = ("statistics",)
    trainer_fixtures.write_dataset(folder, representations=kinds, statistics=8)
    return str(folder)
