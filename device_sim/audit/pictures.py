"""Small pictures as SVG: one path a shade, so that a page needs no file and no picture of another kind."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from device_sim.report.elements import tag

SHADES = 16
_SIDE, _GAP, _LABEL, _WIDTH = 96, 8, 20, 640


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]], *, says: str) -> Element:
    """Returns an ``svg`` with one row of pictures for each ``(label, float[n, height, width, …] in [0, 1])``."""
    count = max(len(pictures) for _, pictures in rows)
    width, line = max(_WIDTH, count * (_SIDE + _GAP)), _SIDE + _GAP + _LABEL
    size = {"viewBox": f"0 0 {width} {len(rows) * line}", "width": str(width)}
    sheet = tag("svg", tag("desc", says), at={**size, "role": "img", "aria-label": says, "class": "pictures"})
    for number, (label, pictures) in enumerate(rows):
        at = {"x": "0", "y": str(number * line + _LABEL - 6), "font-size": "13", "fill": "currentColor"}
        sheet.append(tag("text", label, at=at))
        for column, picture in enumerate(pictures):
            sheet.append(_picture(picture, left=column * (_SIDE + _GAP), top=number * line + _LABEL))
    return sheet


def _picture(picture: np.ndarray, *, left: int, top: int) -> Element:
    gray = picture.reshape(*picture.shape[:2], -1).mean(axis=2)
    shades = np.clip(np.rint(gray * (SHADES - 1)), 0, SHADES - 1).astype(int)
    height, width = shades.shape
    box = tag("g", at={"transform": f"translate({left},{top}) scale({_SIDE / max(height, width):g})"})
    box.append(tag("rect", at={"width": str(width), "height": str(height), "fill": "#000"}))
    for shade in range(1, SHADES):
        cells = np.argwhere(shades == shade)
        if len(cells):
            path = "".join(f"M{x} {y}h1v1h-1z" for y, x in cells.tolist())
            level = round(255 * shade / (SHADES - 1))
            box.append(tag("path", at={"d": path, "fill": f"#{level:02x}{level:02x}{level:02x}"}))
    return box
