"""The music model's weights go where the model goes."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.common.files import LocalFiles
from pipeline.representations import music_model, weights
from pipeline.schema import UserError
from tests.support.corpora import write_tone
from tests.support.music_models import publish_chance_weights
from trainer import task
from trainer.data.dataset import open_dataset
from trainer.evaluation.model_digests import DIGESTS_FILE, ModelDigests
from trainer.folds.records import assign_folds, split_records
from trainer.predict.audio import AudioPredictor
from trainer.predict.loading import load_audio_predictor, load_predictor
from trainer.predict.network import load_network


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def root(tmp_path_factory, patch) -> Path:
    """Songs, a dataset of them and a model; the cache that made it is gone."""
    root = tmp_path_factory.mktemp("root")
    patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    content = publish_chance_weights(patch)
    LocalFiles().write(str(weights.weights_file("MSD_vgg")), content)
    rows = ["path,genre,split"]
    splits = ("training", "training", "validation", "validation", "test", "test")
    for number, split in enumerate(splits):
        write_tone(root / "music" / f"{number}.wav", 300 + 100 * number)
        rows.append(f"{number}.wav,{'AB'[number % 2]},{split}")
    (root / "t.csv").write_text("\n".join(rows) + "\n")
    dataset, model = str(root / "dataset"), str(root / "model")
    source = ["--audio", str(root / "music"), "--metadata", str(root / "t.csv")]
    options = ["--num_shards=2", "--direct_running_mode=in_memory"]
    names = ["--direct_num_workers=1", "--representations", "embeddings"]
    assert preprocess.main([*source, "--output", dataset, *options, *names]) == 0
    where = ["--data", dataset, "--output", model]
    assert task.main([*where, "--model=embeddings", "--epochs=1"]) == 0
    shutil.rmtree(root / "cache")
    return root


def test_a_model_predicts_where_no_cache_is(root, tmp_path):
    shutil.copytree(root / "model", tmp_path / "model")
    shutil.copy(root / "music" / "4.wav", tmp_path / "song.wav")
    ensemble = load_audio_predictor([str(tmp_path / "model")])
    found = ensemble.predict(str(tmp_path / "song.wav")).genres
    assert set(found) == {"A", "B"}
    assert sum(found.values()) == pytest.approx(1)
    digests = ModelDigests.from_json(
        (tmp_path / "model" / DIGESTS_FILE).read_bytes(), ""
    )
    assert "music_model.npz" in digests.files
    card = (tmp_path / "model" / "model_card.md").read_text()
    assert music_model.MODELS["MSD_vgg"].sha256 in card


def test_a_changed_file_is_noticed(root, tmp_path):
    folder = shutil.copytree(root / "model", tmp_path / "model")
    content = bytearray((folder / "music_model.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "music_model.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"music_model\.npz has another SHA-256"):
        load_predictor(str(folder))
    (folder / "music_model.npz").unlink()
    with pytest.raises(UserError, match=r"lacks music_model\.npz"):
        load_predictor(str(folder))


def test_another_music_models_weights_are_refused(root, patch):
    predictor = load_network(str(root / "model"))
    arrays = music_model.read_weights(predictor.music_model, "")
    arrays["5CNN/bias"] = arrays["5CNN/bias"] + np.float32(1)
    weights = music_model.write_weights(arrays)
    predictor = dataclasses.replace(predictor, music_model=weights)
    with pytest.raises(UserError, match="must hold the weights of one of"):
        AudioPredictor(predictor)
    other = dataclasses.replace(
        music_model.MODELS["MTT_vgg"], sha256=music_model.digest_weights(arrays)
    )
    with pytest.MonkeyPatch.context() as other_patch:
        other_patch.setitem(music_model.MODELS, "MTT_vgg", other)
        with pytest.raises(UserError, match="holds MTT_vgg, the model beside it"):
            AudioPredictor(predictor)


def test_without_weights_one_sentence_says_where_they_come_from(root, tmp_path):
    folder = shutil.copytree(root / "model", tmp_path / "model")
    (folder / "music_model.npz").unlink()
    (folder / DIGESTS_FILE).unlink()
    with pytest.raises(UserError, match=r"\./launch\.sh weights fetches them"):
        load_audio_predictor([str(folder)])


def test_folds_take_the_weights_along(root, tmp_path):
    dataset = open_dataset(str(root / "dataset"))
    clips = assign_folds(dataset, 3, 0)
    fold = tmp_path / "fold"
    split_records(dataset, clips, str(tmp_path / "records")).link(str(fold), 0)
    expected = (root / "dataset" / "music_model.npz").read_bytes()
    assert (fold / "music_model.npz").read_bytes() == expected
