"""Every command: headings, examples, a wrong flag, what to type when it is over."""

import argparse
import ast
import errno
import functools
import importlib.util
import os
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.common.progress.command_line import CommandParser
from pipeline.launch import commands
from tests.support.pipes import goes_nowhere, nobody_reads

MODULES = {
    **{name: module for name, (module, _) in commands.COMMANDS.items()},
    **{" ".join(words): module for words, (module, _) in commands.VARIANTS.items()},
}
ROOT = Path(__file__).resolve().parents[3]
PLACES = {"project": "my-project", "region": "europe-west4", "bucket": "my-bucket"}


@pytest.mark.parametrize("closed", [(0, 1), (1, 2), (0, 2), (0, 3)])
def test_no_pipe_takes_the_place_of_a_closed_stream(closed):
    code = (
        "import os, sys\n"
        f"os.closerange(*{closed})\n"
        "from pipeline.launch import commands\n"
        "commands._open_standard_descriptors()\n"
        "sys.stdin.read(), sys.stdout.write('x'), sys.stderr.write('x')\n"
        "children = all(map(os.get_inheritable, range(3)))\n"
        "os._exit(0 if children and min(os.pipe()) > 2 else 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0


class Printer:
    """Stands for a command's module."""

    def main(self) -> int:
        print("x" * 100_000, flush=True)
        return 0


def test_a_command_ends_quietly_with_who_reads_it(monkeypatch, capfd):
    """As in `./launch.sh predict ... | head -1`."""
    monkeypatch.setattr(commands, "find_module", lambda name: Printer())
    with nobody_reads(monkeypatch, "stdout") as [stream]:
        assert commands.main(["fma-predict"]) == 141
        assert goes_nowhere(stream)
    assert capfd.readouterr() == ("", "")


def test_a_command_ends_quietly_with_who_reads_its_socket(monkeypatch, capfd):
    """As that of an ssh without a terminal."""
    monkeypatch.setattr(commands, "find_module", lambda name: Printer())
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, open(os.dup(ours.fileno()), "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert commands.main(["fma-predict"]) == 141
        assert goes_nowhere(stream)
    assert capfd.readouterr() == ("", "")


def test_a_misspelt_command_names_the_right_one(capsys):
    assert commands.main(["commands", "exprot"]) == 2
    err = capsys.readouterr().err
    assert err.endswith("Received: 'exprot'; did you mean export?\n")


def test_another_broken_pipe_is_no_end_of_that_kind(monkeypatch):
    printer = Printer()
    monkeypatch.setattr(commands, "find_module", lambda name: printer)
    monkeypatch.setattr(sys, "stdout", open(os.devnull, "w"))  # noqa: SIM115

    def fail() -> int:
        raise BrokenPipeError("a helper's")

    printer.main = fail
    with pytest.raises(BrokenPipeError, match="a helper's"):
        commands.main(["fma-predict"])


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


FUNCTIONS = (ast.FunctionDef, ast.ClassDef)


def find_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    found = [path.with_suffix(".py"), path / "__main__.py", path / "__init__.py"]
    return next((file for file in found if file.is_file()), None)


@functools.cache
def read(path: Path) -> "Module":
    return Module(path)


class Module:
    """A module's functions and classes, and what its names stand for."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text())
        self.defined = {n.name: n for n in self.tree.body if isinstance(n, FUNCTIONS)}
        self.imported: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    name = alias.asname or alias.name
                    self.imported[name] = (node.module, alias.name)


def finishes(module: str, name: str, seen: set[tuple[str, str]]) -> list[ast.Call]:
    """Calls of `Reporter.finish` that a function may come to."""
    path = find_file(module)
    if (module, name) in seen or path is None:
        return []
    seen.add((module, name))
    found = read(path)
    if name not in found.defined:
        return finishes(*found.imported[name], seen) if name in found.imported else []
    calls = []
    for node in ast.walk(found.defined[name]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "finish" and len(node.args) > 1:
                calls.append(node)
            elif isinstance(node.func.value, ast.Name):
                # A function of a module that was imported by its name.
                parent, inner = found.imported.get(node.func.value.id, ("", ""))
                calls += finishes(f"{parent}.{inner}", node.func.attr, seen)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = node.func.id
            parent, inner = found.imported.get(called, (module, called))
            calls += finishes(parent, inner, seen)
    return calls


@pytest.mark.parametrize("name", MODULES)
def test_every_command_can_end_with_the_next_one(name):
    assert finishes(MODULES[name], "main", set()), (
        f"{name} has no Reporter.finish(made, next command)"
    )


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Texts of all lists in the sources that begin with a command and have flags."""
    for top in ("pipeline", "trainer"):
        for path in sorted((ROOT / top).rglob("*.py")):
            source = path.read_text()
            if ".finish(" not in source:
                continue
            for node in ast.walk(ast.parse(source)):
                if not isinstance(node, ast.List) or not node.elts:
                    continue
                first = node.elts[0]
                if isinstance(first, ast.Constant) and first.value in MODULES:
                    texts = [n for n in ast.walk(node) if isinstance(n, ast.Constant)]
                    words = [text.value for text in texts if type(text.value) is str]
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", words


def test_what_to_type_next_are_commands_with_flags_that_they_have():
    places = {}
    for place, (command, *words) in command_lines():
        places[place] = command
        flags = commands.find_module(MODULES[command]).make_parser().flags
        assert {word for word in words if word.startswith("--")} <= set(flags), place
    assert len(places) > 15
    assert importlib.util.find_spec("tensorflow.python.tools.saved_model_cli")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_storage_without_room_is_one_sentence_whoever_meets_it(
    monkeypatch, capsys, number
):
    def fail() -> int:
        raise RuntimeError(f"/a/b; {os.strerror(number)}")

    module = types.SimpleNamespace(main=fail)
    monkeypatch.setattr(commands, "find_module", lambda _: module)
    assert commands.main(["fma-show"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {os.strerror(number)}. ")
    assert "/a/b" in error
    assert error.count("\n") == 1


def test_other_errors_keep_their_traceback(monkeypatch):
    module = types.SimpleNamespace(main=lambda: [][0])
    monkeypatch.setattr(commands, "find_module", lambda _: module)
    with pytest.raises(IndexError):
        commands.main(["fma-show"])
