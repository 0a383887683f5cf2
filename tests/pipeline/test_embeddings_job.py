"""Embeddings from the command line to the dataset, with a network of chance weights."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
from pipeline.common.files import LocalFiles
from pipeline.decoding.waveform import load_waveform
from pipeline.inspect import reading
from pipeline.representations import music_model, weights
from pipeline.representations.log_mel import log_mel_patches
from tests.support.corpora import write_tone
from tests.support.music_models import publish_chance_weights

ROOT = Path(__file__).resolve().parents[2]
ONE_PROCESS = ("--direct_running_mode=in_memory", "--direct_num_workers=1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rows = ["path,genre,split"]
    for number, split in enumerate(("training", "training", "test", "validation")):
        write_tone(folder / "music" / f"{number}.wav", 300 + 100 * number)
        rows.append(f"{number}.wav,{'AB'[number % 2]},{split}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A user's cache; nothing is in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return weights.cache_folder()


@pytest.fixture
def network(cache, monkeypatch):
    """MSD_vgg with other weights, in the cache."""
    content = publish_chance_weights(monkeypatch)
    LocalFiles().write(str(weights.weights_file("MSD_vgg")), content)
    return music_model.load_network(content, "cache")


def run(corpus, output, *options: str) -> int:
    files = ["--audio", str(corpus / "music"), "--metadata", str(corpus / "t.csv")]
    shards = ["--output", str(output), "--num_shards=1"]
    return preprocess.main([*files, *shards, *options, *ONE_PROCESS])


def test_without_weights_embeddings_are_left_out_and_said(
    corpus, cache, tmp_path, capsys
):
    assert run(corpus, tmp_path / "out", "--estimate") == 0
    assert "Without embeddings" in capsys.readouterr().out


def test_workers_import_what_takes_seconds_for_embeddings_alone():
    code = (
        "import sys\n"
        "from pipeline.common.clip_config import ClipConfig\n"
        "from pipeline.representations import DEFAULTS\n"
        "from pipeline.shards.records import make_workspace, warm_up\n"
        "from pipeline.shards.result import DatasetConfig\n"
        "config = DatasetConfig(\n"
        "    output='', representations=DEFAULTS, clip=ClipConfig(), genres=('g',)\n"
        ")\n"
        "warm_up(DEFAULTS, config.clip, make_workspace(config))\n"
        "assert not {'librosa', 'numba', 'tensorflow'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_estimate_says_what_an_embedding_costs(corpus, network, tmp_path, capsys):
    assert run(corpus, tmp_path / "out", "--estimate") == 0
    printed = capsys.readouterr().out
    assert re.search(r"ms of CPU each, [1-9]\d* ms of them for its embedding", printed)
    sizes = dict(re.findall(r"(\w+) to write +([\d.]+ \w+)", printed))
    assert list(sizes) == ["windows", "mel", "features", "statistics", "embeddings"]
    assert sizes["mel"] == "3.0 MB"  # Four clips of five images of 150,528 bytes.


def test_asked_for_without_weights_they_are_refused(corpus, cache, tmp_path, capsys):
    options = ("--representations", "mel", "embeddings")
    assert run(corpus, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert "./launch.sh weights fetches them" in error
    assert not (tmp_path / "out").exists()
    assert run(corpus, tmp_path / "out", *options, "--music_model=MTT_vgg") == 2
    assert "MTT_vgg are not in" in capsys.readouterr().err
    assert run(corpus, tmp_path / "out", *options, "--music_model=no.npz") == 2
    assert "Received: no.npz" in capsys.readouterr().err


def test_a_dataset_holds_what_the_network_hears(corpus, network, tmp_path, capsys):
    output = tmp_path / "out"
    options = ("--representations", "mel", "embeddings", "--mel_images_per_clip=2")
    assert run(corpus, output, *options) == 0
    manifest = reading.read_manifest(str(output))
    assert manifest.settings["music_model"] == "MSD_vgg"
    model = music_model.MODELS["MSD_vgg"]
    assert manifest.music_model == model.to_dict()
    assert manifest.music_model["licence"] == "ISC"
    assert "cautious choice" in manifest.music_model["overlap"]
    assert "Embeddings: MSD_vgg (ISC), from the" in capsys.readouterr().out
    assert (output / "music_model.npz").read_bytes() == weights.weights_file(
        "MSD_vgg"
    ).read_bytes()
    schema = manifest.representations["embeddings"]
    assert len(manifest.normalisation["embeddings"].mean) == 256
    assert manifest.records["mel"]["training"] == 4
    [record] = reading.read_examples(
        str(output / "embeddings" / "test-00000-of-00001.tfrecord"), schema
    )
    with open(corpus / "music" / "2.wav", "rb") as file:
        waveform = load_waveform(file, ClipConfig())
    assert waveform.length < len(waveform.samples) / 2  # It is repeated elsewhere.
    heard = waveform.samples[: waveform.length]
    expected = network(log_mel_patches(heard, SAMPLE_RATE, 5)).mean(axis=0)
    np.testing.assert_allclose(record["embedding"], expected, rtol=1e-4, atol=1e-5)
