"""A ``.tflite`` file loaded once by LiteRT.js in a headless browser, whose signatures Python calls.

```
BrowserModel.run ── DevTools pipe ──▶ runner.js ──▶ LiteRT.js (WebAssembly, CPU, one thread)
                 ◀── outputs ────────
```
Inference artifacts and training programs alike: variables of a program live in the page between calls.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from export.runtimes.browser.chromium import BrowserError, Tab, missing_chromium, open_tab
from export.runtimes.browser.litertjs import litertjs_resources, missing_litertjs
from export.runtimes.browser.server import Resource, serving

# The only element types LiteRT.js 2.5.3 hands in and out (`DATATYPES` in its datatypes.ts).
DTYPES = ("float32", "int32", "uint8")
_RUN_SECONDS = 300
Forms = dict[str, tuple[tuple[int, ...], "np.dtype[Any]"]]


def missing_browser() -> str | None:
    """Returns why no ``.tflite`` can be run in a browser here and what to do, or None; starts nothing."""
    return missing_chromium() or missing_litertjs()


@dataclass(frozen=True)
class BrowserModel:
    """A loaded artifact. Not for two threads at once; close it, or use it as a context manager.

    Attributes:
        signatures: Signature key → its inputs, name → (shape, dtype).
    """

    signatures: Mapping[str, Forms]
    _tab: Tab
    _open: contextlib.ExitStack

    @classmethod
    def load(cls, tflite: bytes) -> BrowserModel:
        """Starts a browser and compiles ``tflite`` in it.

        Raises:
            ConfigError: No browser or no LiteRT.js; the message says how to get it.
            BrowserError: LiteRT.js refuses the bytes.
        """
        opened = contextlib.ExitStack()
        try:
            url = opened.enter_context(serving(_resources(tflite)))
            tab = opened.enter_context(open_tab())
            tab.open(url)
            found = tab.evaluate("runner.load()")
        except BaseException:
            opened.close()
            raise
        signatures = {
            key: {end["name"]: (tuple(end["shape"]), np.dtype(end["dtype"])) for end in ends["inputs"]}
            for key, ends in found.items()
        }
        return cls(signatures, tab, opened)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the raw outputs of one call, by name, in stored dtypes.

        Args:
            signature: Key, e.g. ``serving_default`` or ``train``.
            inputs: Every input of it by name, in its exact shape and dtype.

        Raises:
            ValueError: No such signature, or inputs that are not its.
            BrowserError: It failed, or the browser is gone.
        """
        if signature not in self.signatures:
            raise ValueError(f"signature {signature!r} is not one of {', '.join(self.signatures)}")
        _check(inputs, self.signatures[signature])
        call = f"runner.run({json.dumps(signature)}, {json.dumps({n: _pack(v) for n, v in inputs.items()})})"
        return {name: _unpack(value) for name, value in self._tab.evaluate(call, _RUN_SECONDS).items()}

    def close(self) -> None:
        """Ends the browser and its server; a second call does nothing."""
        self._open.close()

    def __enter__(self) -> BrowserModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _resources(tflite: bytes) -> dict[str, Resource]:
    page = files("export.runtimes.browser") / "page"
    return {
        **litertjs_resources(),
        "/": Resource.of("runner.html", (page / "runner.html").read_bytes()),
        "/runner.js": Resource.of("runner.js", (page / "runner.js").read_bytes()),
        "/model.tflite": Resource.of("model.tflite", tflite),
    }


def _check(inputs: Mapping[str, np.ndarray], forms: Forms) -> None:
    """As ``check_inputs`` of the other runtimes, and complete: LiteRT.js would read a missing input as zeros."""
    from export.runtimes.runtime import check_inputs

    check_inputs(inputs, forms)
    absent = forms.keys() - inputs.keys()
    if absent:
        raise ValueError(f"inputs missing: {', '.join(sorted(absent))}")


def _pack(value: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
    return {
        "dtype": str(value.dtype),
        "shape": list(value.shape),
        "data": base64.b64encode(little.tobytes()).decode(),
    }


def _unpack(value: Mapping[str, Any]) -> np.ndarray:
    dtype = str(value["dtype"])
    if dtype not in DTYPES:
        raise BrowserError(f"the page answered a tensor of {dtype}")
    data = np.frombuffer(base64.b64decode(value["data"]), np.dtype(dtype).newbyteorder("<"))
    return data.reshape(value["shape"]).astype(dtype)
