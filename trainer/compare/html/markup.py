"""HTML and SVG elements as text, escaped unless they are elements themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.common.plain_text import html

_VOID = frozenset(("br", "col", "img", "meta"))


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Makes text safe in content and in attributes; HTML stays as it is."""
    return text if isinstance(text, Markup) else Markup(html(text))


def join(parts: Iterable[object], separator: str = "") -> Markup:
    """Puts parts one after the other."""
    return Markup(separator.join(escape(part) for part in parts))


def element(tag: str, /, *children: object, **attributes: object) -> Markup:
    """One element with its children.

    Args:
      tag: its name.
      children: elements, or text that is escaped.
      attributes: `_` stands for `-`, and is cut off at the end (`class_`). True
        gives an attribute without a value; None and False leave it out.
    """
    text = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{text}>")
    return Markup(f"<{tag}{text}>{join(children)}</{tag}>")


def section(identity: str, title: str, *children: object) -> Markup:
    """A part of the page with its heading."""
    return element(
        "section",
        element("h2", title, id=f"{identity}-title"),
        *children,
        id=identity,
        aria_labelledby=f"{identity}-title",
    )


def scrolling(label: str, child: Markup) -> Markup:
    """Lets a wide table scroll sideways, by keyboard too."""
    return element(
        "div", child, class_="scroll", role="region", aria_label=label, tabindex="0"
    )


def identify(name: str) -> str:
    """A name as part of an id: word characters, dots and hyphens."""
    return re.sub(r"[^\w.-]", lambda match: f"_{ord(match[0]):x}_", name)


def header(name: str, *, text: bool = False) -> Markup:
    """A column heading that sorts its table, numbers from the highest."""
    return element(
        "th",
        element("button", name, type="button"),
        scope="col",
        class_="text" if text else None,
        data_first="ascending" if text else None,
    )


def cell(value: float | None, *, form: str = ".3f", title: str | None = None) -> Markup:
    """A table cell with a number, which sorting reads unrounded."""
    if value is None:
        return element("td", "", data_value="")
    return element("td", format(value, form), data_value=value, title=title)


def bar_cell(text: str, share: float, value: float) -> Markup:
    """A table cell with a bar for a share from 0 to 1; sorting reads `value`."""
    bar = element("span", class_="bar", style=f"--share:{share:.3f}")
    box = element("span", bar, class_="barbox", aria_hidden="true")
    return element("td", text, box, data_value=value)


def table(
    heads: Iterable[Markup], rows: Iterable[Markup], *, class_: str, caption: str = ""
) -> Markup:
    """A table: cells of its heading, then whole rows."""
    return element(
        "table",
        element("caption", caption) if caption else "",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_=class_,
    )


def percent(share: float) -> str:
    """A share in whole percent, which no line break parts."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
