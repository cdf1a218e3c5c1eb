"""Colours by role. matplotlib draws with placeholders; the page's style sheet says what they are in light and dark.

The eight series colours are told apart by readers with colour-vision deficiencies when neighbours in this order are
compared; what they cannot carry alone (a ninth run, an outcome) is also told by dashes, shapes or words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One colour of the page.

    Attributes:
        light: On a light page, as ``#rrggbb``.
        dark: On a dark page.
    """

    light: str
    dark: str


ROLES: dict[str, Role] = {
    "surface": Role("#ffffff", "#16191d"),
    "page": Role("#f4f5f7", "#0e1013"),
    "ink": Role("#15181c", "#eceff2"),
    "muted": Role("#59616b", "#9aa4af"),
    "grid": Role("#dde1e6", "#2c3238"),
    "series-0": Role("#2a78d6", "#3987e5"),
    "series-1": Role("#eb6834", "#d95926"),
    "series-2": Role("#1baf7a", "#199e70"),
    "series-3": Role("#eda100", "#c98500"),
    "series-4": Role("#4a3aa7", "#9085e9"),
    "series-5": Role("#e34948", "#e66767"),
    "series-6": Role("#008300", "#3aa53a"),
    "series-7": Role("#e87ba4", "#d55181"),
}
SERIES = 8
DASHES = ("solid", (0, (5, 2)))
"""Line styles: the ninth run has the first one's colour, dashed."""
MAX_RUNS = SERIES * len(DASHES)

PLACEHOLDERS: dict[str, str] = {role: f"#0101{number:02x}" for number, role in enumerate(ROLES, 1)}
"""Role → the colour matplotlib draws with, which occurs nowhere else."""
BY_PLACEHOLDER: dict[str, str] = {color: role for role, color in PLACEHOLDERS.items()}


def series(number: int) -> str:
    """Returns the role of a run's or layer's colour."""
    return f"series-{number % SERIES}"


def variables() -> str:
    """Returns the style sheet's definition of all roles, light, and dark where the reader's system is dark."""
    light = "".join(f"--{name}:{role.light};" for name, role in ROLES.items())
    dark = "".join(f"--{name}:{role.dark};" for name, role in ROLES.items())
    return f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
