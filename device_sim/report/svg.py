"""A drawn chart as an element of the page: no ids that clash, no fixed colours, no font of its own, a title to be read.

matplotlib writes a whole document for a light page. What is kept of it are the shapes; the rest is the page's.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from device_sim.report.charts import Chart
from device_sim.report.draw import draw, styled
from device_sim.report.elements import tag
from device_sim.report.theme import BY_PLACEHOLDER

_COLOR = re.compile("|".join(BY_PLACEHOLDER))
_LINK = re.compile(r"url\(#")
_FONT_SHORTHAND = re.compile(
    r"\bfont: (?:\S+ )*?([\d.]+)px [^;]*"
)  # matplotlib before 3.10 writes size and family in one
_FONT_FAMILY = re.compile(r"\bfont-family: [^;]*;? ?")


def svg_of(chart: Chart, prefix: str) -> ElementTree.Element:
    """Returns the chart as an ``svg`` element that scales with its box.

    Args:
        prefix: Put before every id; different for every chart of a page.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    file = io.BytesIO()
    with styled(prefix):
        figure, hints = draw(chart)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    for child in [c for c in root if _local(c.tag) == "metadata"]:
        root.remove(child)
    for element in root.iter():
        _localise(element, prefix, hints)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    _describe(root, chart, prefix)
    return root


def _localise(element: ElementTree.Element, prefix: str, hints: dict[str, str]) -> None:
    element.tag = _local(element.tag)
    attributes = {_local(name): value for name, value in element.attrib.items()}
    element.attrib.clear()
    name = attributes.get("id", "")
    for key, value in attributes.items():
        if key == "id":
            value = f"{prefix}-{value}"
        elif key == "href":
            value = f"#{prefix}-{value.removeprefix('#')}"
        else:
            value = _LINK.sub(f"url(#{prefix}-", value)
            value = _COLOR.sub(lambda found: f"var(--{BY_PLACEHOLDER[found[0]]})", value)
            value = _FONT_FAMILY.sub("", _FONT_SHORTHAND.sub(r"font-size: \1px", value))
        element.set(key, value)
    if element.tag == "style":
        element.tag, element.text = "g", None  # matplotlib's own sheet would hold for the whole page
    if name in hints:
        element.insert(0, tag("title", hints[name]))


def _describe(root: ElementTree.Element, chart: Chart, prefix: str) -> None:
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    for place, (name, content) in enumerate((("title", chart.title), ("desc", chart.says))):
        root.insert(place, tag(name, content, at={"id": f"{prefix}-{name}"}))


def _local(name: str) -> str:
    return name.rpartition("}")[2]
