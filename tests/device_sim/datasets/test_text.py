"""Texts in windows: what is held out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets import load_dataset
from device_sim.datasets.text import WINDOW, tokens_of
from fl_mobile.errors import DataError

_SPOKEN = np.random.default_rng(0).integers(33, 127, 20 * WINDOW + 1)
TEXTS = {"ann": "".join(map(chr, _SPOKEN)), "tom": "z" * (WINDOW + 1)}


def written(folder: Path, texts: dict[str, str]) -> Path:
    for who, text in texts.items():
        (folder / who).mkdir(parents=True)
        (folder / who / "said.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_what_was_said_last_is_held_out(tmp_path: Path, seed: int) -> None:
    """No training window lies behind a held-out one of the same text, whatever the seed."""
    data = load_dataset("text-folder", seed=seed, path=written(tmp_path, TEXTS), test_fraction=0.2)
    whole = tokens_of(TEXTS["ann"])
    places = {whole[at : at + WINDOW].tobytes(): at // WINDOW for at in range(0, 20 * WINDOW, WINDOW)}
    z = tokens_of("z" * WINDOW).tobytes()
    train, test = ([w.tobytes() for w in part.x.astype(np.int32)] for part in (data.train, data.test))
    assert sorted(places[w] for w in test) == [16, 17, 18, 19]
    assert sorted(places[w] for w in train if w != z) == list(range(16))
    assert train.count(z) == 1


def test_texts_too_short_to_hold_anything_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to hold out: 0\.2 of each text's windows of 40 characters"):
        load_dataset("text-folder", seed=0, path=written(tmp_path, {"tom": TEXTS["tom"]}), test_fraction=0.2)
