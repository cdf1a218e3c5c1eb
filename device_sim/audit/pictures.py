"""Small pictures as SVG: one path a shade, so that a page needs no file and no picture of another kind."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from device_sim.report.elements import tag

SHADES = 16
_GAP, _LABEL = 2, 9


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]], *, says: str) -> Element:
    """Returns an ``svg`` with one row of pictures for each ``(label, float[n, height, width, …] in [0, 1])``."""
    height, width = rows[0][1].shape[1:3]
    count = max(len(pictures) for _, pictures in rows)
    size = (count * (width + _GAP), len(rows) * (height + _GAP + _LABEL))
    sheet = tag(
        "svg",
        tag("desc", says),
        at={"viewBox": f"0 0 {size[0]} {size[1]}", "role": "img", "aria-label": says, "class": "pictures"},
    )
    for number, (label, pictures) in enumerate(rows):
        top = number * (height + _GAP + _LABEL)
        sheet.append(
            tag("text", label, at={"x": "0", "y": str(top + _LABEL - 3), "font-size": "6", "fill": "currentColor"})
        )
        for column, picture in enumerate(pictures):
            sheet.append(_picture(picture, left=column * (width + _GAP), top=top + _LABEL))
    return sheet


def _picture(picture: np.ndarray, *, left: int, top: int) -> Element:
    gray = picture.reshape(*picture.shape[:2], -1).mean(axis=2)
    shades = np.clip(np.rint(gray * (SHADES - 1)), 0, SHADES - 1).astype(int)
    box = tag("g", at={"transform": f"translate({left},{top})"})
    height, width = shades.shape
    box.append(tag("rect", at={"width": str(width), "height": str(height), "fill": "#000"}))
    for shade in range(1, SHADES):
        cells = np.argwhere(shades == shade)
        if len(cells):
            path = "".join(f"M{x} {y}h1v1h-1z" for y, x in cells.tolist())
            level = round(255 * shade / (SHADES - 1))
            box.append(tag("path", at={"d": path, "fill": f"#{level:02x}{level:02x}{level:02x}"}))
    return box
