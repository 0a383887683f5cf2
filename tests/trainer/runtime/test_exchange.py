import numpy as np
import pytest

from pipeline.schema import UserError
from trainer.data.index import Index
from trainer.runtime import exchange
from trainer.runtime.checkpoint import Checkpoint
from trainer.runtime.devices import Devices, gather
from trainer.training import fit


def make(name: str, count: int) -> tuple[Index, np.ndarray]:
    index = Index(
        tuple(f"{name}{number}" for number in range(count)),
        np.arange(count),
        tuple("Zoë" for _ in range(count)),
    )
    return index, np.full((count, 3), len(name), np.float32)


@pytest.fixture
def two(monkeypatch) -> Devices:
    """One of two processes; the other says what `said` holds."""
    return Devices(strategy=None, name="multiworker", reason="", worker=0, workers=2)


def test_alone_nothing_changes():
    alone = Devices(strategy=None, name="single", reason="")
    index, probabilities = make("a", 3)
    assert exchange.gather_clips(alone, index, probabilities) == (index, probabilities)
    assert gather(alone, b"x") == [b"x"]


def test_clips_of_all_processes_are_joined(two, monkeypatch):
    other, other_probabilities = make("bb", 2)

    def gather(devices, content):
        return [content, exchange._pack(other, other_probabilities)]

    monkeypatch.setattr(exchange, "gather", gather)
    for count in (3, 0):
        index, probabilities = exchange.gather_clips(two, *make("a", count))
        assert len(index.track_ids) == len(index.labels) == count + 2
        assert index.track_ids[-2:] == ("bb0", "bb1")
        assert index.artist_ids[-1] == "Zoë"
        np.testing.assert_array_equal(probabilities[-2:], 2)


@pytest.mark.parametrize("sizes", [(5, 0), (3, 4), (8, 9)])
def test_bytes_of_any_length_are_exchanged(monkeypatch, sizes):
    contents = [bytes(range(200, 200 + size)) for size in sizes]

    def rows_of(worker: int) -> Devices:
        return Devices(
            strategy=None, name="multiworker", reason="", worker=worker, workers=2
        )

    lengths = np.array([[len(content)] for content in contents], np.int32)
    words = -(-max(sizes) // 4)
    padded = np.stack(
        [np.frombuffer(c.ljust(4 * words, b"\0"), np.int32) for c in contents]
    )
    for worker, content in enumerate(contents):
        sums = iter([lengths, padded])

        def add(devices, rows, sums=sums):
            total = next(sums)
            # What this process gives is its own row and nothing else.
            np.testing.assert_array_equal(rows[devices.worker], total[devices.worker])
            assert not rows[1 - devices.worker].any()
            return total

        monkeypatch.setattr("trainer.runtime.devices._sum", add)
        assert gather(rows_of(worker), content) == contents


def test_processes_that_see_other_checkpoints_are_refused(two, monkeypatch):
    phase = fit.PhaseFit.__new__(fit.PhaseFit)
    phase._devices = two
    found = Checkpoint(step=7, state={}, arrays={})
    monkeypatch.setattr(fit, "gather_floats", lambda _, own: [tuple(own), (7.0,)])
    phase._check_agreement(found)
    with pytest.raises(UserError, match=r"of steps -1, 7 \(-1 is none\); give --check"):
        phase._check_agreement(None)
