"""The committed training program answers as it did when Java's reference was recorded."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.android_stub import training

pytestmark = pytest.mark.tf


def test_litert_still_answers_as_recorded() -> None:
    recorded = json.loads((training.FOLDER / "replay.json").read_text(encoding="utf-8"))
    now = training.replayed(*training.shipped())
    np.testing.assert_allclose(now["losses"], recorded["losses"], atol=1e-6)
    before, after = (np.frombuffer(base64.b64decode(one["weights"]), "<f4") for one in (recorded, now))
    np.testing.assert_allclose(after, before, atol=1e-6)
