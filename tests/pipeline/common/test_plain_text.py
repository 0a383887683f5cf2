import csv
import html as html_module
import io
import os
import re

import hypothesis
import markdown_it
import pytest
from hypothesis import strategies

from pipeline.common.plain_text import (
    align,
    allow_any_text,
    code_span,
    csv_cell,
    from_csv_cell,
    html,
    markdown,
    one_line,
    print_error,
    quantity,
)


def test_one_thing_is_no_several():
    counted = [quantity(count, "clip") for count in (0, 1, 2, 1_000)]
    assert counted == ["0 clips", "1 clip", "2 clips", "1,000 clips"]


anything = strategies.text(strategies.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hip-Hop", "Hip-Hop"),
        ("Música 音楽 \N{GRINNING FACE}", "Música 音楽 \N{GRINNING FACE}"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        (os.fsdecode(b"caf\xe9.mp3"), r"caf\xe9.mp3"),
        ("\u202egnp.mp3", r"\u202egnp.mp3"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        (7, "7"),
    ],
)
def test_control_characters_are_spelt_out(text, expected):
    assert one_line(text) == expected


def test_an_error_is_a_line_on_standard_error(capsys):
    print_error(OSError("a\nb\x1b[2J"))
    print_error("by SIGTERM", label="stopped")
    out, err = capsys.readouterr()
    assert not out
    assert err == "error: a\\nb\\x1b[2J\nstopped: by SIGTERM\n"


@hypothesis.given(anything)
def test_a_line_stays_one_and_can_be_encoded(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    line.encode()
    assert one_line(line) == line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hip-Hop & R_n_B (90s)", "Hip-Hop & R_n_B (90s)"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("*a* _b_ __c__ `d` ~~e~~", r"\*a\* \_b\_ \_\_c\_\_ \`d\` \~\~e\~\~"),
        ("a\n# b", r"a\\n# b"),
        ("\\", r"\\"),
    ],
)
def test_markdown_stays_text(text, expected):
    assert markdown(text) == expected


def test_code_spans_hold_backticks():
    assert code_span("a b") == "`a b`"
    assert code_span("a `` b") == "```a `` b```"
    assert code_span("`a") == "`` `a ``"
    assert code_span("") == ""
    assert code_span("a\n</code>") == r"`a\n</code>`"


@pytest.mark.parametrize(
    "text",
    ['=HYPERLINK("x")', "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1", "'=1"],
)
def test_no_formula_begins_a_cell(text):
    assert csv_cell(text) == f"'{text}"
    assert from_csv_cell(csv_cell(text)) == text


@hypothesis.given(anything)
def test_cells_are_read_back(text):
    assert from_csv_cell(csv_cell(text)) == text
    assert csv_cell(text).lstrip(" ")[:1] not in tuple("=+-@")


def test_what_begins_no_formula_stays():
    for text in ("Rock", "'80s", "a=b", "", "000123", "Ünïcode"):
        assert csv_cell(text) == text
        assert from_csv_cell(text) == text


@hypothesis.given(anything)
def test_html_is_escaped_and_can_be_encoded(text):
    content = html(text)
    assert not set(content) & set("<>\"'\0\x1b")
    content.encode()
    assert html_module.unescape(html("<a b='c'>&amp;")) == "<a b='c'>&amp;"


def test_streams_spell_out_what_their_encoding_lacks(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stream)
    allow_any_text()
    print("Müsik")
    stream.flush()
    assert stream.buffer.getvalue() == b"M\\xfcsik\n"


def test_csv_writers_keep_cells_apart():
    buffer = io.StringIO()
    csv.writer(buffer).writerow([csv_cell('=1,"\n2'), "x"])
    assert next(csv.reader(io.StringIO(buffer.getvalue()))) == ["'=1,\"\n2", "x"]


@hypothesis.given(strategies.text(" \t#*_-+=~`|<>[]()!&;:./\\1a$'\"\n", max_size=12))
def test_a_renderer_shows_the_text_itself(text):
    shown = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(
        f"a {markdown(text)}\n\n{markdown(text)}"
    )
    expected = html_module.escape(one_line(text), quote=False)
    plain = re.sub(r"\s+", " ", shown.replace("&quot;", '"'))
    first, _, second = plain.partition("</p>")
    assert first.removeprefix("<p>a").strip() == re.sub(r"\s+", " ", expected).strip()
    assert not expected.strip() or second.strip().startswith(("<p>", "<pre><code>"))


def test_tables_stand_under_each_other_in_any_script():
    """As a terminal draws them: 日 takes two columns, an accent of its own none."""
    wide, accent = "\u65e5\u672c", "e\u0301"
    lines = align(("genre", "n"), [(wide, "1"), (accent, "2"), ("abcd", "3")])
    assert lines.splitlines() == [
        "genre  n",
        "--------",
        f"{wide}   1",
        f"{accent}      2",
        "abcd   3",
    ]
