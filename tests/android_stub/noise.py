"""Noise that Python and Java draw alike: `noise.json`; ``python -m tests.android_stub.noise`` writes it anew."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fl_mobile.privacy.local import LocalNoise, noised
from tests.android_stub.drawn import SPECS, drawn
from tests.android_stub.vectors import digest, values_of

PATH = Path(__file__).parent / "noise.json"
NOISES = (LocalNoise(1.0, 2.0, 5), LocalNoise(0.001, 0.3, 1), LocalNoise(123.456, 17.25, 1000))


def rows() -> list[dict[str, Any]]:
    """Returns what is asked of each noise and the digest of what leaves."""
    out = []
    for number, noise in enumerate(NOISES):
        for spec, pattern in (("mixed", "plain"), ("logistic", "sparse"), ("two layers", "huge"), ("logistic", "tiny")):
            secret, run = hashlib.sha256(b"%d" % number).digest(), f"run-{number}"
            left = noised(drawn(SPECS[spec], pattern, 3), noise, secret=secret, run=run, round_num=number)
            told = {"clip_norm": noise.clip_norm, "noise_multiplier": noise.noise_multiplier, "answers": noise.answers}
            common = {"spec": spec, "pattern": pattern, "key": 3, "secret": secret.hex(), "run": run, "round": number}
            out.append(common | {"noise": told, "digest": digest(values_of(left))})
    return out


if __name__ == "__main__":
    PATH.write_text("[\n" + ",\n".join(map(json.dumps, rows())) + "\n]\n", encoding="utf-8")
    print("wrote", PATH)
