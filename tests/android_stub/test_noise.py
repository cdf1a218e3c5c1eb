"""The committed noise is what Python draws today, so what Java is held to is what a ledger is about."""

from __future__ import annotations

import json

from tests.android_stub import noise


def test_the_committed_noise_is_what_python_draws_today() -> None:
    assert json.loads(noise.PATH.read_text(encoding="utf-8")) == noise.rows()
