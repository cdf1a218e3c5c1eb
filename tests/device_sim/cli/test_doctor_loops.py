"""Which code of the loops runs is told truly, and asking changes nothing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numba
import pytest

from device_sim.cli.doctor import LOOPS as MEANINGS
from device_sim.cli.doctor import examine
from fl_mobile.kernels import compiled
from fl_mobile.kernels.built import ABOUT, facts, misfit, set_name
from fl_mobile.kernels.cache import versioned


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder beside the sources counts as empty too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "_SOURCES", tmp_path / "sources")
    return versioned(tmp_path / "cache" / "fl-mobile", compiled.LOOPS)


def told(code: str, file: Path | str = "") -> bool:
    return examine()["loops"] == {"code": code, "means": MEANINGS[code], "file": str(file)}


def test_none_cached_built_and_plain(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told("none yet")
    assert compiled.is_cold()
    assert not home.parent.parent.exists(), "who asks writes nothing"
    (home / "loops").mkdir(parents=True)
    assert told("none yet")
    (home / "loops" / "f.nbi").write_bytes(b"")
    assert told("cached")
    assert not compiled.is_cold()
    with zipfile.ZipFile(home / set_name(), "w") as archive:
        archive.writestr(ABOUT, json.dumps(facts(compiled.LOOPS)))
    if not misfit():
        assert told("built", home / set_name())
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    assert told("plain Python")
    monkeypatch.setattr(compiled, "numba", None)
    assert told("plain Python")
