"""HTML as a tree. Text is text until the tree is written, so nothing a run says can become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, tostring

_UNDRAWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters HTML forbids; a label may hold them, a page may not."""


def tag(name: str, *children: Element | str, at: Mapping[str, str] | None = None) -> Element:
    """Returns an element with text and elements in it, in this order.

    >>> tostring(tag("p", "a < ", tag("b", "b"), "!", at={"class": "x"}))
    b'<p class="x">a &lt; <b>b</b>!</p>'
    """
    element = Element(name, {key: clean(value) for key, value in (at or {}).items()})
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + clean(child)
        else:
            element.text = (element.text or "") + clean(child)
    return element


def table(columns: Sequence[str], rows: Iterable[Sequence[Element | str]], *, numbers: bool = True) -> Element:
    """Returns a table whose first column heads its rows; the others are flush right if they hold ``numbers``."""
    head = tag("thead", tag("tr", *(tag("th", column, at={"scope": "col"}) for column in columns)))
    body = tag("tbody")
    for first, *others in rows:
        body.append(tag("tr", tag("th", first, at={"scope": "row"}), *(tag("td", cell) for cell in others)))
    return tag("div", tag("table", head, body, at={"class": "numbers" if numbers else "texts"}), at={"class": "wide"})


def document(root: Element) -> str:
    """Returns a whole HTML document."""
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def clean(text: str) -> str:
    """Returns text with a replacement character for each that HTML forbids."""
    return _UNDRAWABLE.sub("\ufffd", text)
