"""The committed downloads are what Python reads today."""

from __future__ import annotations

import base64
import json

import pytest

from fl_mobile.wire.download import Download
from tests.android_stub import rounds


@pytest.mark.parametrize("name", rounds.AGREEMENTS)
def test_the_committed_downloads_are_read_as_they_were(name: str) -> None:
    committed = json.loads(rounds.PATH.read_text(encoding="utf-8"))
    assert list(committed) == list(rounds.AGREEMENTS)
    lines = committed[name]["rounds"]
    sent = [
        (each["version"], Download(*(base64.b64decode(each[part]) for part in ("model", "prediction", "beside"))))
        for each in lines
    ]
    assert rounds.read(name, sent) == [each["digests"] for each in lines]
    assert sent == rounds.downloads(name)
