"""The agreement and the assignments of its rounds as JSON, and back to the same records on the other side.

A client that has read them packs the bytes that the coordinator expects: what the two ends derive, they derive from
equal records by the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from fl_mobile.agreement import MEMORIES, Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError, WireError, check_known
from fl_mobile.privacy.local import MOST_ANSWERS, LocalNoise
from fl_mobile.privacy.shares import ShareNoise
from fl_mobile.protocol.forms import flag, flat, hexadecimal, number, parse, read, text, whole
from fl_mobile.records import Assignment, FitPlan, Receipt
from fl_mobile.secure_sum.plan import MOST_IN_A_GROUP, MaskPlan
from fl_mobile.tensors import Spec, Tensors, TensorSpec, check_finite, cut
from fl_mobile.wire.pruning_mask import PruningPlan

FORMAT = 1
NOISED_FORMAT = 2
"""Of terms under which clients add noise: a client that does not know of it must not take part."""
MASKED_FORMAT = 3
"""Of terms under which updates are added under masks, and perhaps noise in shares: likewise."""

MOST_BYTES = 2**40


@dataclass(frozen=True)
class Blob:
    """Bytes to fetch, by what they are: nobody can swap them on the way."""

    sha256: str
    bytes: int


def blob(value: Any) -> Blob:
    """Reads a `Blob`."""
    return Blob(**read(value, {"sha256": hexadecimal, "bytes": whole(0, MOST_BYTES)}))


@dataclass(frozen=True)
class Terms:
    """What a client has in its app, or fetches once: the agreement, and the parts of the model that do not travel.

    Attributes:
        whole: First weights of all that trains, private tensors too.
        private: Paths of the tensors that never leave a client.
    """

    agreement: Agreement
    whole: Tensors
    private: frozenset[str]


def initial_bytes(whole: Tensors) -> bytes:
    """Returns first weights as little-endian float32, end to end in model order."""
    return b"".join(np.ascontiguousarray(value, "<f4").tobytes() for value in whole.values())


def terms_to_json(
    agreement: Agreement, spec: Spec, private: frozenset[str], initial: Blob, parameters: Mapping[str, Any]
) -> bytes:
    """Returns an agreement as JSON.

    Args:
        spec: Of all that trains, private tensors too.
        initial: Where `initial_bytes` of the same tensors are.
        parameters: Of the algorithm.
    """
    value: dict[str, Any] = {
        "format": MASKED_FORMAT if agreement.masks else NOISED_FORMAT if agreement.local_noise else FORMAT,
        "spec": [[path, list(t.shape), t.trainable] for path, t in spec.items()],
        "private": sorted(private),
        "initial": asdict(initial),
        "algorithm": {"name": agreement.algorithm.name, **parameters},
        "upload": agreement.upload.name,
        "download": agreement.download.name,
        "memory": agreement.memory,
        "delta_step": agreement.delta_step,
        "pruning": asdict(agreement.pruning),
        "seed": agreement.seed,
        "bare_packets": agreement.bare_packets,
        "forward": agreement.forward,
    }
    if agreement.local_noise:
        value["local_noise"] = asdict(agreement.local_noise)
    if agreement.masks:
        value["masks"] = asdict(agreement.masks)
    if agreement.share_noise:
        value["share_noise"] = asdict(agreement.share_noise)
    return json.dumps(value, sort_keys=True).encode()


def initial_of(body: bytes) -> Blob:
    """Returns which first weights the terms name."""
    return _terms(body)["initial"]


def terms_from_json(body: bytes, weights: bytes) -> Terms:
    """Returns the terms.

    Args:
        weights: What `initial_of` names, its hash checked.

    Raises:
        WireError: They are not of this version, or do not fit each other.
    """
    value = _terms(body)
    spec, private = value["spec"], frozenset(value["private"])
    size = 4 * sum(t.size for t in spec.values())
    if len(weights) != size or private - spec.keys():
        raise WireError("terms", f"expected {size} bytes of first weights, got {len(weights)}")
    whole_model = cut(np.frombuffer(weights, "<f4").astype(np.float32), spec)
    check_finite(whole_model, "first weights")
    travels = {path: t for path, t in spec.items() if path not in private}
    algorithm = dict(value["algorithm"])
    try:
        name = str(algorithm.pop("name", ""))
        check_known("algorithm", name, ALGORITHMS)
        check_known("memory", value["memory"], MEMORIES)
        agreement = Agreement(
            spec=travels,
            initial={path: whole_model[path] for path in travels},
            algorithm=ALGORITHMS[name].build(**algorithm),
            upload=parse_codec(value["upload"]),
            download=parse_codec(value["download"]),
            memory=value["memory"],
            delta_step=value["delta_step"],
            pruning=PruningPlan(**value["pruning"]),
            seed=value["seed"],
            bare_packets=value["bare_packets"],
            forward=value["forward"],
            local_noise=_local_noise(value),
            masks=MaskPlan(**value["masks"]) if value["masks"] else None,
            share_noise=ShareNoise(**value["share_noise"]) if value["share_noise"] else None,
        )
    except (ConfigError, TypeError) as error:
        raise WireError("terms", f"{error}. Is this client older than the server?") from None
    return Terms(agreement, whole_model, private)


def plan_to_json(plan: FitPlan) -> dict[str, Any]:
    """Returns local training as JSON."""
    return {**asdict(plan), "trained": list(plan.trained), "class_weights": list(plan.class_weights)}


def plan_from_json(value: Any) -> FitPlan:
    """Reads what `plan_to_json` wrote; raises `WireError`."""
    if not isinstance(value, dict) or value.keys() != {f.name for f in fields(FitPlan)}:
        raise WireError("plan", "expected a plan of local training. Is this client older than the server?")
    try:
        return FitPlan(**{**value, **{name: tuple(value[name]) for name in ("trained", "class_weights")}})
    except (ConfigError, TypeError) as error:
        raise WireError("plan", str(error)) from None


def assignment_to_json(assignment: Assignment) -> dict[str, Any]:
    """Returns what every client of a round is asked, as JSON."""
    return {
        "round": assignment.round_num,
        "plan": plan_to_json(assignment.plan),
        "upload": assignment.upload.name,
        "clip_norm": assignment.clip_norm,
        "max_examples": assignment.max_examples,
    }


def assignment_from_json(value: Any) -> Assignment:
    """Reads what `assignment_to_json` wrote; raises `WireError`."""
    form = {
        "round": whole(0, 2**32 - 1),
        "plan": plan_from_json,
        "upload": text(),
        "clip_norm": number,
        "max_examples": whole(0, 2**63),
    }
    got = read(value, form)
    try:
        codec = parse_codec(got["upload"])
    except ConfigError as error:
        raise WireError("codec", str(error)) from None
    return Assignment(
        round_num=got["round"],
        plan=got["plan"],
        upload=codec,
        clip_norm=got["clip_norm"],
        max_examples=got["max_examples"],
    )


def receipt_to_json(receipt: Receipt) -> dict[str, Any]:
    """Returns a receipt as JSON."""
    return {"accepted": receipt.accepted, **asdict(receipt)}


def receipt_from_json(value: Any) -> Receipt:
    """Reads what `receipt_to_json` wrote; raises `WireError`."""
    form = {"accepted": flag, "reason": text(), "weight": whole(0, 2**63), "local_steps": number}
    got = read(value, form)
    return Receipt(got["reason"], got["weight"], got["local_steps"])


def _terms(body: bytes) -> dict[str, Any]:
    form = {
        "format": whole(FORMAT, MASKED_FORMAT),
        "spec": _spec,
        "private": _paths,
        "initial": blob,
        "algorithm": flat(20),
        "upload": text(),
        "download": text(),
        "memory": text(),
        "delta_step": number,
        "pruning": flat(20),
        "seed": whole(-(2**63), 2**63),
        "bare_packets": flag,
        "forward": flag,
        "local_noise": lambda told: read(told, _LOCAL_NOISE),
        "masks": lambda told: read(told, _MASKS),
        "share_noise": lambda told: read(told, _SHARE_NOISE),
    }
    got = parse(body, form, optional=dict.fromkeys(("local_noise", "masks", "share_noise")))
    if (got["format"] == MASKED_FORMAT) != (got["masks"] is not None) or (got["share_noise"] and not got["masks"]):
        raise WireError("terms", f"terms of format {got['format']} and what they say of masks do not go together")
    return got


_LOCAL_NOISE = {"clip_norm": number, "noise_multiplier": number, "answers": whole(1, MOST_ANSWERS)}
_MASKS = {"group": whole(0, MOST_IN_A_GROUP), "dropouts": number}
_SHARE_NOISE = {
    **_LOCAL_NOISE,
    "numbers": whole(1, 2**31),
    "group": whole(1, MOST_IN_A_GROUP),
    "least": whole(1, MOST_IN_A_GROUP),
}


def _local_noise(terms: Mapping[str, Any]) -> LocalNoise | None:
    """Returns what clients add; raises `WireError` for terms whose format and noise do not fit each other."""
    told = terms["local_noise"]
    if (terms["format"] == NOISED_FORMAT) != (told is not None):
        raise WireError("terms", f"terms of format {terms['format']} and local noise {told} do not go together")
    return LocalNoise(**told) if told else None


def _spec(value: Any) -> Spec:
    if not isinstance(value, list) or not value:
        raise ValueError("expected a list of tensors")
    out: Spec = {}
    for path, shape, trainable in value:
        out[text(1000)(path)] = TensorSpec(tuple(whole(0, 2**31)(size) for size in shape), flag(trainable))
    return out


def _paths(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("expected a list of paths")
    return [text(1000)(path) for path in value]
