"""Core's packets in JavaScript: Python's are read to the bit and written to the byte, damage is one exception."""

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
from tests.android_stub.vectors import PATH

WIRE = Path(__file__).parents[2] / "android_stub" / "js" / "target" / "js" / "wire.mjs"
SCRIPT = Path(__file__).parent / "vectors.mjs"
HOSTILE = 5
"""Damaged packets for each of the vectors."""

pytestmark = pytest.mark.skipif(not WIRE.exists(), reason="needs android_stub/js/target/js/wire.mjs: make android")


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node: apt-get install nodejs")
def test_in_node() -> None:
    command = ["node", str(SCRIPT), str(WIRE), str(PATH), str(HOSTILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    held(json.loads(done.stdout))


@pytest.mark.slow
def test_in_chromium() -> None:
    if reason := missing_chromium():
        pytest.skip(reason)
    run = b"""import * as wire from "/wire.mjs"; import { check } from "/vectors.mjs";
globalThis.told = check(wire, await (await fetch("/vectors.json")).json(), 5);"""
    page = b"<!doctype html><script type=module src=/run.mjs></script>"
    resources = {
        "/": Resource.of("index.html", page),
        "/run.mjs": Resource.of("run.js", run),
        "/wire.mjs": Resource.of("wire.js", WIRE.read_bytes()),
        "/vectors.mjs": Resource.of("vectors.js", SCRIPT.read_bytes()),
        "/vectors.json": Resource.of("vectors.json", PATH.read_bytes()),
    }
    with serving(resources) as url, open_tab() as tab:
        tab.open(url)
        tab.wait_for("globalThis.told !== undefined")
        held(json.loads(tab.evaluate("told.then(JSON.stringify)", timeout_seconds=300)))


def held(told: dict[str, Any]) -> None:
    """Every packet is the same; of the damaged ones nearly all are refused, each with a reason of the wire's."""
    assert told["wrong"] == []
    assert told["packets"] == len(json.loads(PATH.read_text(encoding="utf-8"))["packets"])
    assert told["damages"] == HOSTILE * told["packets"]
    assert told["reasons"].get("", 0) < told["damages"] / 4, told["reasons"]
    assert {"checksum", "truncated"} <= told["reasons"].keys()
