"""``fl-mobile camera`` in a process of its own: serves, ends with Ctrl-C, refuses what is not proven."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from export.runtimes.browser import missing_litertjs
from tests.device_sim.cli_runs import command, environment, fl_mobile, interruptible, the_message

pytestmark = [pytest.mark.tf, pytest.mark.slow]


def read_json(stream: Any) -> Any:
    """Reads one indented JSON object from a pipe that stays open."""
    text = ""
    for line in stream:
        text += line
        if line == "}\n":
            return json.loads(text)
    pytest.fail(f"ended after {text!r}")


@pytest.mark.parametrize("verb", ["camera", "demo"])
def test_it_serves_the_page_until_ctrl_c(verb: str, whole_bundle: Path, browser: None) -> None:
    assert missing_litertjs() is None
    process = subprocess.Popen(
        command(verb, whole_bundle, "--port", "0", "--format", "json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=interruptible,
    )
    try:
        told = read_json(process.stdout)
        assert urlsplit(told["url"]).hostname == "127.0.0.1"
        assert (told["page"], told["recipes"]) == ("camera", ["float32", "int8"])
        with urllib.request.urlopen(told["url"], timeout=10) as answer:
            assert b"fl-mobile camera" in answer.read()
        with urllib.request.urlopen(f"{told['url']}int8.tflite", timeout=10) as answer:
            assert answer.read() == (whole_bundle / "int8.tflite").read_bytes()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_a_damaged_bundle_is_refused(whole_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole_bundle, tmp_path / "bundle"))
    file = copy / "float32.tflite"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    ended = fl_mobile("camera", copy, "--port", "0")
    assert ended.code == 9
    assert "float32.tflite" in the_message(ended)
    assert ended.out == ""


@pytest.mark.parametrize("path", ["nothing", "."])
def test_what_is_no_bundle_is_refused(path: str, tmp_path: Path) -> None:
    ended = fl_mobile("camera", tmp_path / path)
    assert ended.code == 9
    assert str(tmp_path) in the_message(ended)


def test_verify_asks_the_browser_when_it_is_named(whole_bundle: Path, browser: None) -> None:
    ended = fl_mobile("verify", whole_bundle, "--runtime", "litert-js", "--format", "json")
    assert ended.code == 0, ended.err
    proven = [check["proven"] for check in ended.json["checks"] if check["part"].endswith(".tflite")]
    assert len(proven) == 2
    assert all("golden frames on litert-js" in line for line in proven)


def test_verify_refuses_an_unknown_runtime(whole_bundle: Path) -> None:
    ended = fl_mobile("verify", whole_bundle, "--runtime", "litertjs")
    assert ended.code == 3
    assert "Did you mean 'litert-js'" in the_message(ended)
