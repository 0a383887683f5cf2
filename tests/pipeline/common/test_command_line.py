import pathlib

import pytest

import pipeline
from pipeline.common.progress.command_line import (
    CommandParser,
    describe_unknown,
    suggest,
)


@pytest.fixture
def parser():
    parser = CommandParser(
        "train",
        description="Trains.",
        examples=["train --data d", "train --data d --model mel"],
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", choices=("windows", "mel"))
    parser.add_argument("--learning_rate", type=float, default=0.1)
    return parser


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the following arguments are required: --data"),
        (
            ["--dta=x"],
            "the following arguments are required: --data; did you mean --data?",
        ),
        (
            ["--data=x", "--modle", "mel"],
            "unknown option: --modle mel; did you mean --model?",
        ),
        (
            ["--data=x", "--learning-rate=1"],
            "unknown option: --learning-rate=1; did you mean --learning_rate?",
        ),
        (["--data=x", "--dat=y"], "unknown option: --dat=y; did you mean --data?"),
        (["--data=x", "--zzz"], "unknown option: --zzz"),
        (["--data=x", "song.mp3"], "unknown option: song.mp3"),
        (
            ["--data=x", "--model=window"],
            "argument --model: invalid choice: 'window' (choose from 'windows', 'mel')"
            "; did you mean windows?",
        ),
        (
            ["--data=x", "--learning_rate=fast"],
            "argument --learning_rate: invalid float value: 'fast'",
        ),
        (["--data"], "argument --data: expected one argument"),
    ],
)
def test_a_wrong_flag_is_one_sentence_that_names_the_right_one(
    parser, capsys, flags, message
):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(flags)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: {message} (see ./launch.sh train --help)\n"


def test_what_others_take_may_be_left(parser):
    arguments, rest = parser.parse_known_args(["--data=x", "--runner=X"])
    assert (arguments.data, rest) == ("x", ["--runner=X"])


def test_help_ends_with_examples(parser, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.endswith(
        "examples:\n  ./launch.sh train --data d\n"
        "  ./launch.sh train --data d --model mel\n"
    )


def test_control_characters_stay_text(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--data=x", "--x\x1b[2J"])
    assert "\x1b" not in capsys.readouterr().err


def test_suggestions():
    assert suggest(["--ouput"], ["--output", "--input"]) == "; did you mean --output?"
    assert suggest(["--verbos", "--quite"], ["--verbose", "--quiet"]) == (
        "; did you mean --verbose --quiet?"
    )
    assert suggest(["--x"], ["--output"]) == ""
    assert describe_unknown(["--ouput=a b"], ["--output"]) == (
        "unknown option: '--ouput=a b'; did you mean --output?"
    )


def test_paths_mean_what_they_mean_to_a_shell(parser, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)

    def parse(*words):
        return parser.parse_args(words).data

    assert parse("--data=~/music") == parse("--data", "~/music") == "/home/me/music"
    for prefix in ("file://", "file://localhost"):
        assert parse(f"--data={prefix}/a/b") == "/a/b"
    # What is no path of this machine, or really named so.
    for text in ("~", "a~/b", "gs://b/~/x", "x=file:///a", "~no-such-user/x"):
        assert parse(f"--data={text}") == text
    (tmp_path / "~").mkdir()
    assert parse("--data=~/music") == "~/music"


def test_every_command_has_this_parser():
    """Flags with paths are read by no other, but where the environment is set up."""
    root = pathlib.Path(pipeline.__file__).parents[1]
    others = {
        str(path.relative_to(root))
        for folder in ("pipeline", "trainer")
        for path in (root / folder).rglob("*.py")
        if "argparse.ArgumentParser(" in path.read_text()
    }
    assert others == {"pipeline/launch/set_up.py", "pipeline/launch/plan.py"}
