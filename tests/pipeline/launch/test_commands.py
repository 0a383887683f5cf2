"""Every command's flags: under headings, with examples; a wrong one is told."""

import argparse

import pytest

from pipeline.common.progress.command_line import CommandParser
from pipeline.launch import commands

MODULES = {
    **{name: module for name, (module, _) in commands.COMMANDS.items()},
    **{" ".join(words): module for words, (module, _) in commands.VARIANTS.items()},
}
PLACES = {"project": "my-project", "region": "europe-west4", "bucket": "my-bucket"}


@pytest.fixture(params=MODULES)
def command(request):
    """A command's name and module."""
    return request.param, commands.find_module(MODULES[request.param])


def visible(parser: CommandParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and action.dest != "help"
    ]


def required(parser: CommandParser) -> list[str]:
    """A command line with what must be there."""
    words = []
    value = "gs://my-bucket/x" if "--bucket" in parser.flags else "x"
    for action in visible(parser):
        chosen = PLACES.get(action.dest, value)
        if action.choices:
            chosen = next(iter(action.choices))
        if not action.option_strings:
            words.append(chosen)
        elif action.required:
            words += [action.option_strings[0], chosen]
    return words


def test_help_has_headings_examples_and_defaults(command):
    name, module = command
    parser = module.make_parser()
    assert isinstance(parser, CommandParser)
    assert parser.prog == f"./launch.sh {name}"
    text = parser.format_help()
    assert f"  ./launch.sh {name} " in text.partition("xample")[2].replace("\n", " \n")
    # Under argparse's own headings there is nothing but --help.
    for group in (parser._optionals, parser._positionals):
        assert [a.dest for a in group._group_actions if a in visible(parser)] == []
    for action in visible(parser):
        assert action.help, action.dest
        if action.nargs == 0 or action.required or not action.option_strings:
            continue
        if action.default not in (None, "", [], 0, False, argparse.SUPPRESS):
            assert "default" in action.help, action.option_strings
        if action.type in (int, float):
            assert action.metavar or "default" in action.help, action.option_strings


def test_a_wrong_flag_is_told_the_right_one(command, tmp_path, monkeypatch, capsys):
    name, module = command
    monkeypatch.chdir(tmp_path)
    parser = module.make_parser()
    flag = max(parser.flags, key=len)
    words = [*required(parser), f"{flag[:-1]}=1"]
    monkeypatch.setattr("sys.argv", [f"fma-{name}", *words])
    try:
        code = module.main()
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2, err
    assert f"did you mean {flag}?" in err
    assert [line for line in err.splitlines() if line.startswith("error: ")]
    assert not list(tmp_path.iterdir())
