from pipeline import preprocess
from pipeline.launch import plan


def test_paths_that_workers_elsewhere_read_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--audio", "music", "--metadata", "m.csv", "--output", "o"]
    for given, expected in (
        ("weights.npz", f"{tmp_path}/weights.npz"),
        ("MSD_vgg", "MSD_vgg"),
        ("gs://b/weights.npz", "gs://b/weights.npz"),
        ("", ""),
    ):
        arguments = preprocess.make_parser().parse_args(
            [*words, "--music_model", given]
        )
        plan.make_paths_absolute(arguments)
        assert arguments.output == f"{tmp_path}/o"
        assert arguments.music_model == expected
