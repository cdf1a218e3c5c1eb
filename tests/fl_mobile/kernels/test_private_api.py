"""Canaries: what of numba is used without its promise does what is meant. A release that changes it is seen here."""

from __future__ import annotations

from typing import Any

import pytest

from fl_mobile.kernels import private_api

numba = pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")


class Asked:
    """A cache that remembers what it was asked for, and has nothing."""

    def __init__(self, own: Any = None) -> None:
        self.own, self.loaded, self.saved = own, [], []

    def load_overload(self, signature: Any, context: Any) -> Any:
        self.loaded.append(signature)
        return self.own.load_overload(signature, context) if self.own else None

    def save_overload(self, signature: Any, made: Any) -> None:
        self.saved.append(signature)
        if self.own:
            self.own.save_overload(signature, made)


def test_a_set_cache_is_asked_and_given_what_was_compiled() -> None:
    doubled = numba.njit(lambda x: 2 * x)
    cache = Asked()
    private_api.set_cache(doubled, cache)
    assert private_api.cache_of(doubled) is cache
    assert doubled(21) == 42
    assert cache.loaded == cache.saved == [(numba.int64,)]


def test_what_is_kept_can_be_rebuilt() -> None:
    doubled = numba.njit(lambda x: 2 * x)
    assert doubled(21) == 42
    (made,) = doubled.overloads.values()
    again = private_api.rebuilt(doubled.targetctx, private_api.reduced(made))
    assert again.entry_point(4) == 8


def test_own_cache_tells_what_it_keeps(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import FunctionCache

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    tripled = numba.njit(_tripled)
    own = FunctionCache(_tripled)
    own.enable()
    private_api.set_cache(tripled, Asked(own))
    codegen = tripled.targetctx.codegen()
    assert private_api.kept_by(own, (numba.int64,), codegen) is None
    assert tripled(3) == 9
    kept = private_api.kept_by(own, (numba.int64,), codegen)
    assert private_api.rebuilt(tripled.targetctx, kept).entry_point(5) == 15


def _tripled(x: int) -> int:
    return 3 * x
