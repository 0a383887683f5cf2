"""What test modules of the trainer share."""

import pytest

from pipeline.common.owned_kinds import PICTURE
from trainer.evaluation import history, plots


@pytest.fixture(scope="module")
def undrawn():
    """For modules about something else: drawing takes longer than all of it."""
    with pytest.MonkeyPatch.context() as patch:
        for draw in ("confusion_png", "confusions_png", "comparison_png"):
            patch.setattr(plots, draw, lambda *_: PICTURE.sign)
        patch.setattr(history, "history_png", lambda *_: PICTURE.sign)
        yield
