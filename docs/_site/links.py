"""Checks built HTML: links within the site lead to a page and a place on it; nothing is loaded from a network."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class _Page(HTMLParser):
    """What one page offers to be linked to, links to, and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = {"", "top"}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if (target := given.get(LOADED.get(tag, ""), "")) and given.get("rel") != "canonical":
            self.loads.append(target)


def broken_links(site: Path) -> list[str]:
    """Returns one line for each link or resource that is wrong, in order; none is as it should be."""
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    told = []
    for file, page in pages.items():
        name = file.relative_to(site)
        for target in page.loads:
            parts = urlsplit(target)
            if parts.scheme not in ("", "data") or parts.netloc:
                told.append(f"{name}: loads {target} from a network")
            elif parts.scheme == "" and not (file.parent / unquote(parts.path)).exists():
                told.append(f"{name}: loads {target}, which is not there")
        for target in page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
            if not there.exists():
                told.append(f"{name}: {target} leads nowhere")
            elif (
                there.suffix == ".html"
                and unquote(parts.fragment) not in pages[site.resolve() / there.relative_to(site.resolve())].places
            ):
                told.append(f"{name}: {target} names a place that is not on that page")
    return told
