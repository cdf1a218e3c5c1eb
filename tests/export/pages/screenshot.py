"""Takes the pictures of pages in ``docs``: a desktop window and a phone's, side by side.

python -m tests.export.pages.screenshot runs/demo/bundle docs/camera.png
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from export.pages import page_resources
from export.runtimes.browser import Tab, open_tab, serving

WINDOWS = (
    {"width": 1200, "height": 844, "deviceScaleFactor": 1, "mobile": False, "scheme": "light"},
    {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True, "scheme": "dark"},
)
ACTS = {
    # The sample whose answer is least certain, which is the most telling one.
    "camera": """(async () => {
      const buttons = () => [...document.querySelectorAll('#strip button')];
      const share = () => parseFloat(document.querySelector('#answers .share').textContent);
      let [best, least] = [0, Infinity];
      const show = async (i) => {
        const before = document.body.dataset.answered;
        buttons()[i].click();
        while (document.body.dataset.answered === before) await new Promise((r) => setTimeout(r, 10));
      };
      for (let i = 0; i < buttons().length; i++) {
        await show(i);
        if (share() < least) [best, least] = [i, share()];
      }
      await show(best);
      await new Promise((r) => setTimeout(r, 700));
    })()""",
    "keyboard": """(async () => {
      const text = document.getElementById('text');
      text.value = 'What is the matter with my good l';
      text.dispatchEvent(new Event('input'));
      while (document.body.dataset.suggested === '0') await new Promise((r) => setTimeout(r, 10));
      await new Promise((r) => setTimeout(r, 700));
    })()""",
    "form": "new Promise((r) => setTimeout(r, 700))",
    "sensor": """(async () => {
      document.getElementById('all').click();
      while (document.body.dataset.answered === '0') await new Promise((r) => setTimeout(r, 10));
      await new Promise((r) => setTimeout(r, 700));
    })()""",
}
RECIPES = {"camera": "int8", "keyboard": "dynamic-int8", "form": "int8", "sensor": "int8"}


def take(tab: Tab, window: dict[str, Any], url: str, page: str) -> Image.Image:
    """Plays a page's act with its 8-bit recipe."""
    metrics = {key: value for key, value in window.items() if key != "scheme"}
    tab.call("Emulation.setDeviceMetricsOverride", metrics)
    tab.call("Emulation.setScrollbarsHidden", {"hidden": True})
    scheme = {"name": "prefers-color-scheme", "value": window["scheme"]}
    tab.call("Emulation.setEmulatedMedia", {"features": [scheme]})
    tab.open(f"{url}?recipe={RECIPES[page]}")
    tab.wait_for("document.body.dataset.state === 'ready'")
    tab.evaluate(ACTS[page])
    return Image.open(io.BytesIO(base64.b64decode(tab.call("Page.captureScreenshot", {"format": "png"})["data"])))


def main(bundle: str, out: str) -> None:
    page, resources = page_resources(Path(bundle))
    with serving(resources) as url, open_tab() as tab:
        shots = [take(tab, window, url, page) for window in WINDOWS]
    both = Image.new("RGB", (sum(shot.width for shot in shots) + 24, max(shot.height for shot in shots)), "white")
    left = 0
    for shot in shots:
        both.paste(shot, (left, 0))
        left += shot.width + 24
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    both.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
