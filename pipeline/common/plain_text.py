"""Text of others in our formats: it stays text. Standard library only.

Names of genres, files and artists, descriptions and errors come from who knows where.
Whatever prints or writes one passes it through the function of its format:

    align       terminal: tables
    one_line    terminal and logs: no control characters, no line breaks
    markdown    Markdown: no heading, table cell, link or HTML
    code_span   Markdown: as it is, in a monospaced font
    csv_cell    CSV: no formula for a spreadsheet
    html        HTML: content and attributes

`align` makes a table for the terminal, `print_error` the line in which a command ends.

Beam, gRPC, Keras and TensorFlow raise classes that say nothing, or quote in one text
what was raised elsewhere. What only their text tells is read at the end of this module.
"""

from __future__ import annotations

import errno
import html as _html
import io
import os
import re
import select
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TextIO

#: Reverse the text that follows: what is read is not what is there.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_])|&(?=[#\w]+;)")
#: What begins a heading, a list, a rule or a quotation at the start of a line.
_BLOCK = re.compile(r"^(\s*)(?:([#+=-])|(\d+)([.)])(?=\s|$))")
#: In the system's words, which TensorFlow and Beam repeat, and what to do.
_NO_ROOM = {
    os.strerror(errno.ENOSPC): "Make room",
    os.strerror(errno.EDQUOT): "Make room, or have the quota raised",
    os.strerror(errno.EFBIG): "Allow larger files (ulimit -f unlimited)",
}
_WORKER_EXIT = re.compile(r"Worker subprocess exited.* (\S+)", re.DOTALL)


def one_line(text: object) -> str:
    r"""Text with control characters spelt out, so that it stays on its line.

    Bytes of a file name that are no UTF-8 are spelt out too (`\xff`).
    """
    line = str(text)
    if line.isprintable():  # So are megabytes of pictures in a page.
        return line
    return "".join(
        character if character.isprintable() or character == " " else _spell(character)
        for character in line
    )


def print_error(error: object, *, label: str = "error") -> None:
    """Prints why a command ends, or cannot do all, as one line on standard error.

    Args:
      error: an exception or a sentence.
      label: stands before it.
    """
    print_to(sys.stderr, f"{label}: {one_line(error)}")


def print_to(stream: TextIO, text: str) -> None:
    """Prints a line on what is being done, which goes on where nobody reads it."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        end_output(stream)


def end_output(*streams: TextIO) -> None:
    """Has nobody get what follows, as whoever read it, `head` for example, has ended.

    What is in the streams' buffers goes the same way.
    """
    with open(os.devnull, "w") as nowhere:
        for stream in streams:
            os.dup2(nowhere.fileno(), stream.fileno())


def is_read(stream: TextIO) -> bool:
    """Whether a stream is no pipe, or socket, whose reader has ended."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    ended = select.POLLERR | select.POLLHUP  # Of a pipe; of a socket, as sshd has it.
    return not any(event & ended for _, event in poll.poll(0))


def _spell(character: str) -> str:
    """The escape of a character that does something; others stay."""
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:  # `os.fsdecode` of a byte that is no UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI:
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return character


def markdown(text: object) -> str:
    """Text as part of a line of Markdown, or as a cell of a table."""
    line = _MARKDOWN.sub(_escape, one_line(text))
    return _BLOCK.sub(
        lambda match: (
            f"{match[1]}\\{match[2]}"
            if match[2]
            else f"{match[1]}{match[3]}\\{match[4]}"
        ),
        line,
    )


def _escape(match: re.Match[str]) -> str:
    # A backslash before < or & is left to HTML by some; entities are safe everywhere.
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return entities.get(match[0], f"\\{match[0]}")


def code_span(text: object) -> str:
    """Text as a code span of Markdown."""
    line = one_line(text)
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    # One blank on each side is taken off again.
    pad = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""


def csv_cell(text: str) -> str:
    """Text as a cell of CSV; an apostrophe before what would be a formula."""
    return f"'{text}" if _is_formula(text) else text


def from_csv_cell(cell: str) -> str:
    """Inverse of `csv_cell`."""
    rest = cell.removeprefix("'")
    return rest if rest != cell and _is_formula(rest) else cell


def _is_formula(text: str) -> bool:
    return text.lstrip(" '")[:1] in _FORMULA if text.strip(" '") else False


def html(text: object) -> str:
    """Text as content or attribute of HTML, with control characters spelt out."""
    content = str(text)
    if not content.isprintable():
        content = "".join(
            character if character in "\n\t" else one_line(character)
            for character in content
        )
    return _html.escape(content)


def allow_any_text() -> None:
    """Has the terminal's streams spell out what their encoding lacks.

    For the beginning of a command: a genre in another script is no reason to fail.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quantity(count: int, noun: str) -> str:
    """A number of things in words: 0 clips, 1 clip, 1,000 clips."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def columns_of(text: str) -> int:
    """How many columns of a terminal a line takes: two for a Chinese character."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """A cell of a table, to the left or the right."""
    blanks = " " * (columns - columns_of(text))
    return blanks + text if right else text + blanks


def align(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right.

    Cells stay on their line, whatever is in them.
    """
    table = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        first, *others = zip(row, widths, strict=True)
        cells = [pad(*first), *(pad(*other, right=True) for other in others)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(columns_of, lines)))
    return "\n".join(lines)


def explain_no_room(error: BaseException) -> str | None:
    """What to do where storage takes no more, whoever noticed; None for other errors.

    A sentence without its full stop.
    """
    text = str(error)
    found = (
        f"{words}. {advice}" for words, advice in _NO_ROOM.items() if words in text
    )
    return next(found, None)


def is_failed_download(error: BaseException) -> bool:
    """Whether `keras.utils.get_file` could not download: it raises `Exception`."""
    return "URL fetch failure" in str(error)


def find_exit_code(error: BaseException) -> str | None:
    """The exit code of a worker process; None for an error of another kind.

    Beam's thread that waits for a worker raises a RuntimeError when it ends badly.
    """
    match = _WORKER_EXIT.fullmatch(str(error))
    return match[1] if match else None


def find_message(error: BaseException, kind: type[Exception]) -> str | None:
    """The message of an error of `kind` inside what a runner raises.

    In this process a runner raises the error itself, with the step appended;
    from a worker process it raises a RuntimeError that quotes the traceback.
    """
    name = re.escape(f"{kind.__module__}.{kind.__qualname__}: ")
    quotation = re.search(rf"{name}(.*)", str(error))
    if quotation:
        message = quotation[1]
    elif isinstance(error, kind):
        message = str(error)
    else:
        return None
    return re.sub(r"( \[while running '.*)?$", "", message, count=1)
