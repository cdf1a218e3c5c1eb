"""The page as a whole: self-contained, the same twice, and deaf to whatever a run's texts try."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from device_sim.report import page, read_runs
from device_sim.report.page import SECTIONS
from device_sim.report.theme import MAX_RUNS
from export.runtimes.browser import open_tab
from export.runtimes.browser.chromium import missing_chromium
from fl_mobile.errors import ConfigError
from tests.device_sim.report.made_runs import made_run, made_timeline, raw_rounds, write_lines

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Parsed(HTMLParser):
    """An HTML document's elements, ids, attributes and texts; refuses tags that do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def ids(self) -> list[str]:
        return [a["id"] or "" for _, a in self.tags if "id" in a]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [made_run(root / "a"), made_run(root / "b", seed=1, changes=["upload.codec=none"])]


@pytest.fixture(scope="module")
def html(pair: list[Path]) -> str:
    return page(read_runs(pair))


def test_it_is_one_well_formed_document_with_every_section(html: str) -> None:
    parsed = Parsed(html)
    assert html.startswith("<!doctype html>")
    assert len(parsed.ids) == len(set(parsed.ids)), "an id of one chart must not be an id of another"
    for name in SECTIONS:
        assert (name in parsed.texts) == (name not in ("Attackers", "Privacy")), "these runs have neither"
    links = {value.removeprefix("#") for _, a in parsed.tags for key, value in a.items() if key == "href" and value}
    clips = set(re.findall(r"url\(#([^)]+)\)", html))
    assert links
    assert clips
    assert links | clips <= set(parsed.ids), "what a drawing refers to is in the page"
    described = {name for _, a in parsed.tags for name in (a.get("aria-labelledby") or "").split()}
    assert described
    assert described <= set(parsed.ids)


def test_it_asks_nobody_for_anything(html: str) -> None:
    parsed = Parsed(html)
    assert not re.search(r"https?:|//[\w-]+\.|@import|javascript:|data:", html)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert all(not (a["href"] or "#").strip("#").startswith(("/", ".")) for _, a in parsed.tags if "href" in a)
    assert not [key for _, a in parsed.tags for key in a if key.startswith("on") or key in ("src", "srcset", "action")]
    policy = next(a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy


def test_the_same_runs_make_the_same_bytes(pair: list[Path], html: str) -> None:
    assert page(read_runs(pair)) == html


def test_it_names_command_hashes_data_and_versions(html: str, pair: list[Path]) -> None:
    texts = "\n".join(Parsed(html).texts)
    summary = json.loads((pair[0] / "summary.json").read_text())
    for value in (
        summary["command"],
        *(summary["experiment_sha256"], summary["model"]["weights_sha256"], summary["dataset"]["fingerprint"]),
        *("tensorflow 2.21.0", summary["engine"]),
        str(pair[0]),
        'dataset = "digits"',
    ):
        assert value in texts


def test_the_table_of_rounds_holds_every_number(html: str, pair: list[Path]) -> None:
    texts = Parsed(html).texts
    for path in pair:
        for done in raw_rounds(path):
            for cell in (f"{done['accuracy']:.4f}", f"{done['upload_bytes']:,}", f"{done['joules']:.1f}"):
                assert cell in texts


def test_of_many_timelines_the_first_last_and_middle_are_drawn(tmp_path: Path) -> None:
    path = made_run(tmp_path / "kept", rounds=9, timelines=range(9), evaluated=False)
    texts = Parsed(page(read_runs([path]))).texts
    assert [text for text in texts if re.fullmatch(r"Round \d+", text)] == [
        title for name in ("Round 1", "Round 5", "Round 9") for title in (name, name)
    ], "each as a heading and as the drawing's own title"


def test_one_run_has_no_comparison_and_an_unfinished_one_says_so(tmp_path: Path) -> None:
    html = page(read_runs([made_run(tmp_path / "alone", finished=False, timelines=())]))
    texts = " ".join(Parsed(html).texts)
    assert "Comparison" not in texts
    for word in ("unfinished", "written when the run is finished", "kept no timeline", "not evaluated on the devices"):
        assert word in texts


HOSTILE = (
    "</title></svg><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{1}{",
    "&lt;b&gt; &#60;i&#62;",
    "\x00\x1b[31m\u202e\ufffe",
    "_hidden",
    "日本語 🙂 " + "x" * 300,
    "]]><!-- --!>",
    "url(#p) ;--ink:red",
)


def hostile_run(root: Path, text: str) -> Path:
    """Writes a run that says ``text`` wherever it can."""
    folder = "".join(c for c in text if c not in "/\x00")[:200]
    path = made_run(root / folder, changes=["data.path=" + json.dumps(text)] if text.isprintable() else ())
    rounds = raw_rounds(path)
    for done in rounds:
        done["dropped"] = done["skipped"] = {text: 2, "late": 1}
    write_lines(path / "rounds.jsonl", rounds)
    timeline = made_timeline(0, seed=0, devices=4)
    for column in ("profile", "link", "outcome"):
        timeline["devices"][column] = [text] * 4
    write_lines(path / "timeline.jsonl", [timeline])
    summary = json.loads((path / "summary.json").read_text())
    summary |= {"command": text, "stop_reason": text, "dataset": {text: text}, "versions": {text: text}}
    summary["federated_evaluation"]["personalisation"] = text
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def test_hostile_texts_stay_texts(tmp_path: Path, html: str) -> None:
    parsed = Parsed(page(read_runs([hostile_run(tmp_path, text) for text in HOSTILE])))
    assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in Parsed(html).tags}
    assert {key for _, a in parsed.tags for key in a} <= {key for _, a in Parsed(html).tags for key in a}
    forbidden = "[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe]"
    for text in HOSTILE:
        assert re.sub(forbidden, "\ufffd", text) in parsed.texts, "told as it is, but for what HTML forbids"
    assert not re.search(forbidden, "".join(parsed.texts))


def test_more_runs_than_colours_are_refused_and_as_many_as_styles_are_told_apart(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / f"r{n}", seed=n, rounds=2, timelines=(), evaluated=False) for n in range(MAX_RUNS + 1)]
    with pytest.raises(ConfigError, match=f"1 to {MAX_RUNS} runs, got {MAX_RUNS + 1}"):
        page(read_runs(runs))
    html = page(read_runs(runs[:MAX_RUNS]))
    styles = {a["class"] for tag, a in Parsed(html).tags if tag == "i"}
    assert len(styles) == MAX_RUNS


@pytest.mark.skipif(missing_chromium() is not None, reason=str(missing_chromium()))
def test_a_browser_shows_it_and_asks_for_nothing_else(tmp_path: Path, html: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    with open_tab() as tab:
        tab.call("Network.enable")
        tab.call("Log.enable")
        tab.open(file.as_uri())
        drawn = tab.evaluate(
            "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect()).map(r => [r.width, r.height])"
        )
        fits = tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    requests = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
    assert set(requests) == {file.as_uri()}
    assert not [e for e in tab.events if e["method"] == "Log.entryAdded"], "the policy had to stop something"
    assert len(drawn) == html.count("<svg")
    assert all(width > 200 and height > 100 for width, height in drawn)
    assert fits, "the page scrolls sideways"


def test_what_went_wrong_is_told_on_the_page_as_text(tmp_path: Path) -> None:
    path = made_run(tmp_path / "bad")
    summary = json.loads((path / "summary.json").read_text())
    summary["warnings"] = ["accuracy was 90% <script>", "the held-out loss rose"]
    (path / "summary.json").write_text(json.dumps(summary))
    found = Parsed(page(read_runs([path])))
    assert "What went wrong" in found.texts
    assert "accuracy was 90% <script>" in found.texts
    assert "the last, and the best by accuracy" in found.texts
    assert "What went wrong" not in Parsed(page(read_runs([made_run(tmp_path / "good")]))).texts
