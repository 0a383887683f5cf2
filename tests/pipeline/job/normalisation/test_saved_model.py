import pytest

from pipeline.common.quiet import keep_back_stderr

with keep_back_stderr():
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    from pipeline.job.normalisation.saved_model import (
        make_reproducible,
        renumber_functions,
    )


class Doubler(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def double(self, x):
        return {"doubled": self.add(x, x)}

    @tf.function
    def add(self, x, y):
        return x + y


def save(folder, traced_before: int) -> str:
    """Saves a module in a process that has traced other functions before."""
    for number in range(traced_before):
        tf.function(lambda x, n=number: x + n).get_concrete_function(tf.constant(1))
    module = Doubler()
    signatures = {"serving_default": module.double}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return str(folder)


@pytest.fixture
def folders(tmp_path) -> list[str]:
    return [save(tmp_path / f"{n}", traced_before=5 * n) for n in range(2)]


def test_the_same_model_is_the_same_bytes(tmp_path, folders):
    original = [(tmp_path / f"{n}" / "saved_model.pb").read_bytes() for n in range(2)]
    assert original[0] != original[1]  # Else there is nothing to do any more.
    assert (tmp_path / "0" / "fingerprint.pb").exists()
    for folder in folders:
        make_reproducible(folder, scratch=str(tmp_path))
        make_reproducible(folder, scratch=str(tmp_path))
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / f"{n}").rglob("*.*")}
        for n in range(2)
    ]
    assert set(files[0]) >= {"saved_model.pb", "variables.index"}
    assert "fingerprint.pb" not in files[0]
    assert files[0] == files[1]


def test_it_works_as_before(tmp_path, folders):
    make_reproducible(folders[1], scratch=str(tmp_path))
    loaded = tf.saved_model.load(folders[1])
    assert loaded.double(tf.constant([1.0, 2.0]))["doubled"].numpy().tolist() == [2, 4]
    served = loaded.signatures["serving_default"](tf.constant([3.0]))
    assert served["doubled"].numpy().tolist() == [6]


def test_renumbering_twice_changes_nothing(tmp_path, folders):
    data = (tmp_path / "1" / "saved_model.pb").read_bytes()
    once = renumber_functions(data)
    assert renumber_functions(once) == once


def test_captures_are_numbered_anew(folders, tmp_path):
    """tft's functions capture tensors, which TensorFlow names by a count."""
    data = (tmp_path / "0" / "saved_model.pb").read_bytes()

    def renumber(first: int) -> saved_model_pb2.SavedModel:
        model = saved_model_pb2.SavedModel.FromString(data)
        functions = model.meta_graphs[0].graph_def.library.function
        for number, function in enumerate(functions):
            attributes = function.arg_attr[0].attr
            attributes["_user_specified_name"].s = b"%d" % (first + number)
        return renumber_functions(model.SerializeToString())

    assert renumber(98) == renumber(2736)
