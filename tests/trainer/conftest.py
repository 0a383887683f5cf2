"""What test modules of the trainer share."""

import os
import shutil

import pytest

from pipeline.common.owned_kinds import PICTURE
from trainer.evaluation import history, plots

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def undrawn():
    """For modules about something else: drawing takes longer than all of it."""
    with pytest.MonkeyPatch.context() as patch:
        for draw in ("confusion_png", "confusions_png", "comparison_png"):
            patch.setattr(plots, draw, lambda *_: PICTURE.sign)
        patch.setattr(history, "history_png", lambda *_: PICTURE.sign)
        yield


@pytest.fixture(scope="module")
def browser():
    """Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed"
    )
    executable = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if executable is None:
        pytest.skip("no Chromium is installed: set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        # Without its sandbox, it also runs as root and in containers.
        started = driver.chromium.launch(
            executable_path=executable, args=["--no-sandbox"]
        )
        yield started
        started.close()
