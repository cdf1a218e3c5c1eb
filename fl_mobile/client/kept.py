"""What a client keeps on its own disk: its key, the version it holds, what `ClientState` has, and an answer under way.

One file, replaced whole: a client that is killed at any moment goes on from what it had, and an answer that was on its
way is asked after before anything is trained again.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile.client.answer import Answer
from fl_mobile.client.receive import IN_THE_APP, Held
from fl_mobile.client.state import ClientState
from fl_mobile.errors import RunError
from fl_mobile.protocol.signing import DeviceKey
from fl_mobile.storage.files import write_atomic
from fl_mobile.storage.npz import read_arrays, write_arrays
from fl_mobile.tensors import Tensors

_STATE = ("residual", "variate", "private")


@dataclass(frozen=True)
class UnderWay:
    """An answer that has been made, and whose receipt has not come.

    Attributes:
        assignment: As it came.
        attempt: Which one it is.
    """

    assignment: Mapping[str, Any]
    attempt: int
    answer: Answer


@dataclass(frozen=True)
class Kept:
    """All that a client remembers.

    Attributes:
        answers: That it has made in this run, each charged before it leaves; counted where it adds noise.
        summed_in: The last round in which it has advertised keys of a masked sum; it takes part in a later one alone.
    """

    run: str = ""
    device: int | None = None
    held: Held = IN_THE_APP
    state: ClientState = field(default_factory=ClientState)
    under_way: UnderWay | None = None
    answers: int = 0
    summed_in: int = -1


def device_key(folder: Path) -> DeviceKey:
    """Returns the client's key pair; the first time one is made, readable by its owner alone."""
    path = folder / "device.key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, secrets.token_bytes(32))
        os.chmod(path, 0o600)
    seed = path.read_bytes()
    if len(seed) != 32:
        raise RunError(f"{path}: expected a key of 32 bytes, got {len(seed)}; remove it to enrol as another device")
    return DeviceKey(seed)


def save(folder: Path, kept: Kept) -> None:
    """Writes what a client keeps; a crash leaves what it kept before."""
    under_way = kept.under_way
    meta: dict[str, Any] = {"run": kept.run, "device": kept.device, "held": kept.held.version, "under_way": None}
    meta |= {"answers": kept.answers, "summed_in": kept.summed_in}
    arrays: dict[str, np.ndarray] = {}
    tensors = {"point": kept.held.point, **{name: getattr(kept.state, name) for name in _STATE}}
    if under_way is not None:
        made = under_way.answer
        meta["under_way"] = {
            "assignment": under_way.assignment,
            "attempt": under_way.attempt,
            "examples": made.examples,
            "loss": made.loss,
        }
        arrays["packet"] = np.frombuffer(made.packet, np.uint8)
        tensors |= {"wanted": made.wanted, "own": made.private}
    meta["paths"] = {name: list(value) for name, value in tensors.items() if value is not None}
    for name, value in tensors.items():
        arrays |= {f"{name}/{i}": array for i, array in enumerate((value or {}).values())}
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    write_arrays(folder / "client.npz", {"meta": text, **arrays})


def load(folder: Path) -> Kept:
    """Returns what a client keeps; nothing yet if it never ran.

    Raises:
        RunError: The file is damaged.
    """
    path = folder / "client.npz"
    if not path.exists():
        return Kept()
    try:
        arrays = read_arrays(path)
        meta = json.loads(arrays["meta"].tobytes())

        def tensors(name: str) -> Tensors | None:
            paths = meta["paths"].get(name)
            return None if paths is None else {p: arrays[f"{name}/{i}"] for i, p in enumerate(paths)}

        under_way = None
        if (told := meta["under_way"]) is not None:
            packet, own = arrays["packet"].tobytes(), tensors("own") or {}
            made = Answer(
                packet=packet,
                examples=told["examples"],
                loss=told["loss"],
                norm=float("nan"),
                wanted=tensors("wanted"),
                delta=None,
                private=own,
            )
            under_way = UnderWay(told["assignment"], told["attempt"], made)
        state = ClientState(**{name: tensors(name) for name in _STATE})
        return Kept(
            run=meta["run"],
            device=meta["device"],
            held=Held(meta["held"], tensors("point")),
            state=state,
            under_way=under_way,
            answers=int(meta.get("answers", 0)),
            summed_in=int(meta.get("summed_in", -1)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({error}); remove it to begin as a client that holds nothing") from None
