"""The server's state on disk: one ``.npz`` file, replaced atomically, read without pickle.

``meta`` is UTF-8 JSON (layout, round, fingerprint, slots, upload step, under differential privacy what the next release
needs, its secret key included, and whatever the caller adds); ``w/<i>`` is weight ``i`` in spec order,
``s/<slot>/<i>`` the slot's ``i``-th tensor, ``m/<i>`` the last mean update under CAFe, ``a/<name>/<i>`` what a mean
over rounds is made of.
Every member has zip's CRC-32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile.errors import RunError, SpecMismatch
from fl_mobile.privacy.keys import KEY_BYTES
from fl_mobile.records import PrivacyState, ServerState
from fl_mobile.storage.npz import read_arrays, write_arrays
from fl_mobile.tensors import Spec, check_fits, fingerprint

LAYOUT = 3
"""Counts up whenever what a checkpoint holds changes its meaning; 2 held no means over rounds."""


def save(path: Path, state: ServerState, extra: Mapping[str, Any]) -> None:
    """Writes the state and a JSON-able ``extra``; a crash leaves the previous checkpoint."""
    meta = {
        "layout": LAYOUT,
        "upload_step": state.upload_step,
        "round": state.round_num,
        "fingerprint": f"{fingerprint(state.spec):016x}",
        "slots": {name: list(tensors) for name, tensors in state.slots.items()},
        "averages": list(state.averages),
        "extra": extra,
        "privacy": asdict(state.privacy) | {"key": state.privacy.key.hex()} if state.privacy else None,
    }
    arrays = {f"w/{i}": value for i, value in enumerate(state.weights.values())}
    for name, tensors in state.slots.items():
        arrays |= {f"s/{name}/{i}": value for i, value in enumerate(tensors.values())}
    for name, tensors in state.averages.items():
        arrays |= {f"a/{name}/{i}": value for i, value in enumerate(tensors.values())}
    arrays |= {f"m/{i}": value for i, value in enumerate((state.mean or {}).values())}
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    write_arrays(path, {"meta": text, **arrays}, secret=state.privacy is not None or "secret" in extra)


def load(path: Path, spec: Spec) -> tuple[ServerState, dict[str, Any]]:
    """Returns the state and ``extra`` of a checkpoint for this spec.

    Raises:
        RunError: The file is damaged, or belongs to another model.
        OSError: The disk refused.
    """
    try:
        file = read_arrays(path)
        meta = json.loads(file["meta"].tobytes())
        if (found := meta.get("layout", 0)) != LAYOUT:
            age = "a newer" if isinstance(found, int) and found > LAYOUT else "an older"
            raise RunError(
                f"{path}: a checkpoint of {age} fl-mobile (layout {found!r}, this version reads {LAYOUT}); continue it"
                " with the version that made it, or start again with another --out"
            )
        if meta["fingerprint"] != f"{fingerprint(spec):016x}":
            raise RunError(f"{path}: the checkpoint is of another model; start a new run folder")
        weights = {p: file[f"w/{i}"] for i, p in enumerate(spec)}
        slots = {name: {p: file[f"s/{name}/{i}"] for i, p in enumerate(paths)} for name, paths in meta["slots"].items()}
        mean = {p: file[f"m/{i}"] for i, p in enumerate(spec)} if "m/0" in file else None
        step = None if meta["upload_step"] is None else float(meta["upload_step"])
        averages = {name: {p: file[f"a/{name}/{i}"] for i, p in enumerate(spec)} for name in meta["averages"]}
        state = ServerState(
            round_num=int(meta["round"]),
            weights=weights,
            spec=spec,
            slots=slots,
            mean=mean,
            upload_step=step,
            averages=averages,
            privacy=_privacy(meta.get("privacy"), int(meta["round"])),
        )
        extra = dict(meta["extra"])
        check_fits(weights, spec, str(path))
        if mean:
            check_fits(mean, spec, f"{path}, mean update")
        for name, tensors in averages.items():
            check_fits(tensors, spec, f"{path}, average {name}")
        for name, tensors in slots.items():
            check_fits(tensors, {p: spec[p] for p in tensors}, f"{path}, slot {name}")
        return state, extra
    except (ValueError, KeyError, TypeError, AttributeError, SpecMismatch) as error:
        raise RunError(
            f"{path}: the checkpoint is damaged ({error!r}). Restore it from a copy, or start"
            " again with another --out; it is never written in place, so the disk or another program changed it."
        ) from None


def _privacy(kept: dict[str, Any] | None, round_num: int) -> PrivacyState | None:
    """Returns what the next private release needs; every finished round has been booked, or the file is damaged."""
    if kept is None:
        return None
    state = PrivacyState(float(kept["clip_norm"]), bytes.fromhex(kept["key"]), int(kept["charged"]))
    if len(state.key) != KEY_BYTES or state.charged != round_num or not 0 < state.clip_norm < math.inf:
        raise ValueError(f"{state.charged} releases are booked for {round_num} rounds, clipped to {state.clip_norm}")
    return state
