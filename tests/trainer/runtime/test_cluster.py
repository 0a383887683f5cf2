import json

import pytest

from pipeline.schema import UserError
from trainer.runtime.cluster import Cluster, read_cluster


def read(cluster: object, kind: str = "worker", index: object = 0) -> Cluster | None:
    content = {"cluster": cluster, "task": {"type": kind, "index": index}, "x": 1}
    return read_cluster({"TF_CONFIG": json.dumps(content)})


def test_one_process_is_no_cluster():
    assert read_cluster({}) is None
    assert read_cluster({"TF_CONFIG": ""}) is None
    assert read_cluster({"TF_CONFIG": "{}"}) is None
    assert read_cluster({"TF_CONFIG": '{"environment": "cloud"}'}) is None
    assert read({"chief": ["a:1"]}, "chief") is None
    assert read({"worker": ["a:1"]}) is None


def test_the_chief_comes_first():
    both = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    addresses = ("a:1", "b:1", "c:1")
    assert read(both, "chief") == Cluster(addresses=addresses, worker=0)
    assert read(both, "worker", 1) == Cluster(addresses=addresses, worker=2)
    # As Vertex AI writes it.
    assert read(both, "worker", "0") == Cluster(addresses=addresses, worker=1)


def test_without_a_chief_worker_0_is_the_chief():
    found = read({"worker": ["b:1", "c:1"]})
    assert found == Cluster(addresses=("b:1", "c:1"), worker=0)
    assert found.workers == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "cannot be read"),
        ('{"cluster": {"worker": "a:1"}, "task": {}}', "cannot be read"),
        (
            '{"cluster": {"worker": "ab"}, "task": {"type": "worker", "index": 0}}',
            "cannot be read",
        ),
        (
            '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", '
            '"index": 2}}',
            "the task worker 2, which is not",
        ),
        (
            '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "evaluator", '
            '"index": 0}}',
            "the task evaluator 0, which is not",
        ),
        (
            '{"cluster": {"worker": ["a", "b"], "ps": ["c"]}, "task": {"type": '
            '"worker", "index": 0}}',
            "parameter servers",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_cluster({"TF_CONFIG": text})
