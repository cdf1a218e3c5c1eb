"""``python docs/_site/picture.py`` draws docs/run.svg: one federation, with float32 packets and with the default codec.

scikit-learn's 8×8 digits on 50 simulated phones, model `mlp`, the same seed and cohorts in both runs. Across: the sum
of all packets up and down so far, each the length of real bytes. Up: held-out accuracy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import device_sim

OUT = Path(__file__).parents[1] / "run.svg"
RUNS = {
    "float32": {"upload": "none", "download": "full", "download_codec": "none"},
    "fl-mobile's default": {},
}
COLOURS = ("#8a8a8a", "#0b6e4f")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 340, 64, 24, 46, 52
Curve = list[tuple[float, float]]


def play(keys: dict[str, str], rounds: int) -> Curve:
    """Returns ``(megabytes so far, accuracy)`` after each round."""
    points, total = [], 0
    for round in device_sim.simulate("mlp", "digits", data_devices=50, cohort=10, rounds=rounds, **keys):
        total += round.upload_bytes + round.download_bytes
        points.append((total / 1e6, float(round.accuracy or 0.0)))
    return points


def ticks(low: float, high: float) -> list[float]:
    """Returns the powers of ten from ``low`` to ``high``."""
    return [10.0**e for e in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def draw(curves: dict[str, Curve]) -> str:
    """Returns the picture as one SVG without fonts, scripts or links of its own."""
    megabytes = [m for curve in curves.values() for m, _ in curve]
    low, high = min(megabytes) / 1.3, max(megabytes) * 1.3
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(m: float) -> float:
        return LEFT + across * math.log(m / low) / math.log(high / low)

    def y(a: float) -> float:
        return TOP + down * (1 - a)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#333">',
        "<title>Held-out accuracy against megabytes on air, float32 and compressed</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#fff"/>',
        f'<text x="{LEFT}" y="26" font-size="15" font-weight="600">The same federation, twice: '
        "accuracy against bytes on air</text>",
    ]
    for a in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(f'<path d="M{LEFT} {y(a):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(a) + 4:.1f}" text-anchor="end">{a:.0%}</text>')
    for m in ticks(low, high):
        out.append(f'<path d="M{x(m):.1f} {TOP}V{TOP + down}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{x(m):.1f}" y="{TOP + down + 18}" text-anchor="middle">{m:g} MB</text>')
    out.append(f'<text x="{LEFT}" y="{HEIGHT - 12}">all packets up and down so far (logarithmic)</text>')
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=True):
        path = " ".join(f"{x(m):.1f},{y(a):.1f}" for m, a in curve)
        (m, a), label = curve[-1], f"{name}: {curve[-1][1]:.1%}, {curve[-1][0]:.2f} MB"
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        out.append(f'<circle cx="{x(m):.1f}" cy="{y(a):.1f}" r="4" fill="{colour}"/>')
        out.append(
            f'<text x="{x(m):.1f}" y="{y(0.35):.1f}" text-anchor="end" font-weight="600" fill="{colour}">{label}</text>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Plays both runs and writes the picture; the one argument there may be is another number of rounds."""
    rounds = int(arguments[0]) if arguments else 40
    OUT.write_text(draw({name: play(keys, rounds) for name, keys in RUNS.items()}), encoding="utf-8")
    print(f"Wrote {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
