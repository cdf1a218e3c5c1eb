"""What codecs and their stages promise."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from device_sim.check.law import SEED, SPEC, Law, ask, check_tensors, updates
from fl_mobile.errors import WireError
from fl_mobile.tensors import Tensors

_HEADER = 40


def _hard_updates() -> Iterator[tuple[str, Tensors]]:
    yield "of Laplace values", updates(1)[0]
    for name, value in (("of zeros", 0.0), ("of denormals", 1e-42), ("of large values", 1e6)):
        yield name, {p: np.full(t.shape, value, np.float32) for p, t in SPEC.items()}


def _packed(name: str, update: Tensors, seed: int = SEED) -> bytes:
    from fl_mobile import wire
    from fl_mobile.codecs import parse_codec
    from fl_mobile.seeds import rng_for

    header = wire.Header(wire.UPDATE, 0, 0, 1)
    return wire.pack(header, update, spec=SPEC, codec=parse_codec(name), rng=rng_for(seed, 0, "check"))


def _codec_decodes(row: Any, name: str) -> None:
    from fl_mobile import wire
    from fl_mobile.codecs import parse_codec

    for what, update in _hard_updates():
        found = wire.unpack(_packed(name, update), SPEC, parse_codec(name)).tensors
        check_tensors(f"what is decoded of an update {what}", found)


def _codec_repeats(row: Any, name: str) -> None:
    update = updates(1)[0]
    ask(_packed(name, update) == _packed(name, update), "two packets of one update and one seed differ")


def _codec_refuses(row: Any, name: str) -> None:
    from fl_mobile import wire
    from fl_mobile.codecs import parse_codec

    codec, whole = parse_codec(name), _packed(name, updates(1)[0])
    rng = np.random.default_rng(SEED)
    for _ in range(200):
        damaged = bytearray(whole[:-4])
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(_HEADER, len(damaged)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            del damaged[int(rng.integers(_HEADER, len(damaged))) :]
        try:
            packet = bytes(damaged) + zlib.crc32(damaged).to_bytes(4, "little")
            found = wire.unpack(packet, SPEC, codec).tensors
        except WireError:
            continue
        check_tensors("what is decoded of a damaged packet", found)


def _codec_bias(row: Any, name: str) -> None:
    from fl_mobile.codecs import parse_codec
    from fl_mobile.measurements.measurement import measure_codec

    found = measure_codec(parse_codec(name), updates(2), SPEC, repeats=24)
    told = f"the mean of 24 encodings errs {found.bias:.2f} times as much as that of an unbiased codec"
    ask(found.unbiased or not found.claims_unbiased, told)


CODEC = (
    Law("every update decodes to its own shapes, finite", _codec_decodes),
    Law("the same seed gives the same bytes", _codec_repeats),
    Law("damaged packets are a WireError and nothing else", _codec_refuses),
    Law("it is unbiased, or does not say so", _codec_bias),
)
