"""The parser of all commands: a wrong flag names the right one."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from pipeline.common.files import expand_home
from pipeline.common.plain_text import one_line

_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)

#: A path that means another one than it says: of a flag, or alone.
_LOCAL = re.compile(r"(--\w+=)?(?:file://(?:localhost)?(/.*)|(~[\w.-]*/.*))", re.DOTALL)

_N = TypeVar("_N")


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence that says what to do.

    Flags are never abbreviated: what is added later must not change what an old
    command means. Help keeps its lines, and ends with examples.

    Args:
      name: of the command.
      examples: words of commands, as typed after `./launch.sh`; a tuple for each.
      details: any argument of `argparse.ArgumentParser`.
    """

    def __init__(
        self, name: str = "", *, examples: Sequence[str] = (), **details: Any
    ) -> None:
        if examples:
            lines = [f"  ./launch.sh {example}" for example in examples]
            text = "\n".join([f"example{'s' * (len(lines) > 1)}:", *lines])
            details["epilog"] = "\n\n".join(filter(None, [details.get("epilog"), text]))
        details.setdefault("prog", f"./launch.sh {name}")
        details.setdefault("allow_abbrev", False)
        details.setdefault("formatter_class", _Format)
        super().__init__(**details)
        self._words: list[str] = []

    @property
    def flags(self) -> list[str]:
        """All flags, with their dashes."""
        return [flag for action in self._actions for flag in action.option_strings]

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: _N | None = None
    ) -> tuple[argparse.Namespace | _N, list[str]]:
        """Like argparse's."""
        words = sys.argv[1:] if args is None else args
        self._words = [name_local(word) for word in words]
        return super().parse_known_args(self._words, namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: _N | None = None
    ) -> argparse.Namespace | _N:
        """Like argparse's, but names the flags that may have been meant."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(describe_unknown(unknown, self.flags))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Prints a sentence and ends the process with code 2."""
        choice = _CHOICE.search(message)
        if choice:
            message += suggest([choice[1]], re.findall(r"'([^']*)'", choice[2]))
        elif "arguments are required" in message:
            # The one that is missing may be there, misspelt.
            given = [word.partition("=")[0] for word in self._words]
            strange = [word for word in given if word.startswith("--")]
            message += suggest(set(strange) - set(self.flags), self.flags)
        print(f"error: {one_line(message)} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


class _Format(argparse.RawDescriptionHelpFormatter):
    """Breaks the description's lines, and keeps those of the epilog."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


def name_local(word: str) -> str:
    """A word of a command line, with a local path as every file system takes it.

    No shell expands `~` within quotes or behind `=`, and not all that open files know
    `file://`: both would be folders of these names in the current one. What exists is
    meant literally.
    """
    found = _LOCAL.fullmatch(word)
    if found is None:
        return word
    flag, path, home = found.groups(default="")
    return f"{flag}{path or expand_home(home)}"


def describe_unknown(words: Sequence[str], flags: Iterable[str]) -> str:
    """A sentence on words of a command line that are no flags of its.

    Args:
      words: those that are left.
      flags: that there are, with their dashes.
    """
    given = [word.partition("=")[0] for word in words if word.startswith("-")]
    return f"unknown option: {shlex.join(words)}{suggest(given, flags)}"


def suggest(words: Iterable[str], known: Iterable[str]) -> str:
    """What may have been meant, to be put behind a sentence; or nothing."""
    names = list(known)
    close = [
        match
        for word in words
        for match in difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    ]
    return f"; did you mean {' '.join(dict.fromkeys(close))}?" if close else ""


def is_given(command_line: Sequence[str], *flags: str) -> bool:
    """Whether one of the flags is on a command line."""
    return any(item.partition("=")[0] in flags for item in command_line)
