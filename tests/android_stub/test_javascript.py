"""Core in JavaScript: Python's packets and downloads are read to the bit, damage is one exception."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from export.runtimes.browser import Resource
from export.runtimes.browser.chromium import missing_chromium, open_tab
from export.runtimes.browser.server import serving
from tests.android_stub import rounds
from tests.android_stub.vectors import PATH

WIRE = Path(__file__).parents[2] / "android_stub" / "js" / "target" / "js" / "wire.mjs"
SCRIPT = Path(__file__).parent / "vectors.mjs"
HOSTILE = 5
"""Damaged packets for each of the vectors and downloads."""

pytestmark = pytest.mark.skipif(not WIRE.exists(), reason="needs android_stub/js/target/js/wire.mjs: make android")


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node: apt-get install nodejs")
def test_in_node() -> None:
    command = ["node", *map(str, (SCRIPT, WIRE, PATH, rounds.PATH, HOSTILE))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    held(*json.loads(done.stdout))


@pytest.mark.slow
def test_in_chromium() -> None:
    if reason := missing_chromium():
        pytest.skip(reason)
    run = b"""import * as wire from "/wire.mjs"; import { check, checkDownloads } from "/vectors.mjs";
const json = async (path) => (await fetch(path)).json();
const [packets, rounds] = [await json("/vectors.json"), await json("/rounds.json")];
globalThis.told = Promise.all([check(wire, packets, 5), checkDownloads(wire, rounds, 5)]);"""
    page = b"<!doctype html><script type=module src=/run.mjs></script>"
    resources = {
        "/": Resource.of("index.html", page),
        "/run.mjs": Resource.of("run.js", run),
        "/wire.mjs": Resource.of("wire.js", WIRE.read_bytes()),
        "/vectors.mjs": Resource.of("vectors.js", SCRIPT.read_bytes()),
        "/vectors.json": Resource.of("vectors.json", PATH.read_bytes()),
        "/rounds.json": Resource.of("rounds.json", rounds.PATH.read_bytes()),
    }
    with serving(resources) as url, open_tab() as tab:
        tab.open(url)
        tab.wait_for("globalThis.told !== undefined")
        held(*json.loads(tab.evaluate("told.then(JSON.stringify)", timeout_seconds=300)))


def held(packets: dict[str, Any], downloads: dict[str, Any]) -> None:
    """All is the same; of the damaged ones nearly all are refused, each with a reason of the wire's."""
    assert packets["wrong"] == downloads["wrong"] == []
    assert packets["packets"] == len(json.loads(PATH.read_text(encoding="utf-8"))["packets"])
    assert downloads["downloads"] == len(rounds.AGREEMENTS) * len(rounds.VERSIONS)
    for told, count, most in ((packets, packets["packets"], 4), (downloads, downloads["downloads"], 2)):
        assert told["damages"] == HOSTILE * count
        assert told["reasons"].get("", 0) < told["damages"] / most, told["reasons"]
        assert {"checksum", "truncated"} <= told["reasons"].keys()
