import os

import pytest

from pipeline.job import worker


@pytest.fixture
def ends(monkeypatch):
    """Exit codes of processes that end without Python's own end."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_a_worker_that_is_done_ends_at_once(monkeypatch, ends):
    monkeypatch.setattr(worker.sdk_worker_main, "main", lambda argv: None)
    worker.main()
    assert ends == [0]


def test_what_ends_a_worker_is_told(monkeypatch, ends):
    def fail(argv):
        raise RuntimeError("the runner is gone")

    monkeypatch.setattr(worker.sdk_worker_main, "main", fail)
    with pytest.raises(RuntimeError, match="the runner is gone"):
        worker.main()
    assert ends == []
