"""Sums of rounds travel down: whoever holds a version lands on the server's model, to the bit, or is told why not."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_mobile import wire
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.client.receive import Held, receive
from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.codecs.sketch.projection import codes_of
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.records import Assignment, FitPlan, ServerState
from fl_mobile.server.publish import Publication, publish
from fl_mobile.server.step import ServerRules, folding_of, step
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors, TensorSpec
from fl_mobile.wire.download import forwarding_of
from fl_mobile.wire.forward import Sums
from tests.fl_mobile.samples import laplace, philox

SPEC = {
    "conv/kernel": TensorSpec((3, 3, 4, 8)),
    "none": TensorSpec((0, 5)),
    "norm/moving_mean": TensorSpec((7,), trainable=False),
    "dense/kernel": TensorSpec((41, 23)),
    "bias": TensorSpec(()),
}
CODEC = Sketch(64, seed=77)
ROUNDS = 6


def agreement_of(algorithm: str = "fedavg") -> Agreement:
    upload, whole = CODEC, parse_codec("none")
    return Agreement(
        spec=SPEC,
        initial={p: v * np.float32(0.1) for p, v in laplace(SPEC, key=50).items()},
        algorithm=ALGORITHMS[algorithm].build(),
        upload=upload,
        download=whole,
        delta_step=0.001,
        forward=True,
    )


def one_step(
    agreement: Agreement, state: ServerState, version: Publication, clients: int = 3, ternary: float = 0.0
) -> ServerState:
    rules, t = ServerRules(ternary=ternary), state.round_num
    assignment = Assignment(t, FitPlan(), agreement.upload)
    layout = wire.Layout(SPEC, agreement.upload)
    updates = [{p: v * np.float32(0.01) for p, v in laplace(SPEC, key=10 * t + c).items()} for c in range(clients)]
    packets = [layout.pack(wire.Header(wire.UPDATE, t, t, 5 + c), u, philox(0)) for c, u in enumerate(updates)]
    folded = folding_of(agreement, rules, assignment)(packets)
    return step(
        agreement=agreement,
        rules=rules,
        state=state,
        assignment=assignment,
        decoded=version.decoded,
        folded=folded,
    )[0]


def played(
    agreement: Agreement, shelf: Shelf, silent: int = -1, ternary: float = 0.0
) -> tuple[ServerState, Publication]:
    state = agreement.algorithm.init(agreement.initial, agreement.spec)
    version = publish(agreement, state, shelf)
    for t in range(ROUNDS):
        state = one_step(agreement, state, version, clients=0 if t == silent else 3, ternary=ternary)
        version = publish(agreement, state, shelf)
    return state, version


def points_of(shelf: Shelf, agreement: Agreement, version: int) -> Tensors | None:
    return shelf.get_exactly("point", version) if version else None


@pytest.mark.parametrize("ternary", [0.0, 0.15, 1.0])
@pytest.mark.parametrize("silent", [-1, 2])
@pytest.mark.parametrize("algorithm", ["fedavg", "fedprox", "fedsgd", "fednova"])
def test_from_every_version_a_client_lands_on_the_servers_model_to_the_bit(
    tmp_path: Path, algorithm: str, silent: int, ternary: float
) -> None:
    agreement, shelf = agreement_of(algorithm), Shelf(tmp_path)
    state, version = played(agreement, shelf, silent, ternary)
    moved = [p for p in SPEC if SPEC[p].size and not np.array_equal(state.weights[p], agreement.initial[p])]
    assert len(moved) >= (3 if 0 < ternary < 1 else 4), "all, or a scalar was never among the largest"
    for held in range(ROUNDS + 1):
        download = version.download_for(held)
        assert wire.kind_of(download.model) == wire.MODEL_SUMS
        decoded, now = receive(agreement, download, version=ROUNDS, held=Held(held, points_of(shelf, agreement, held)))
        assert now.version == ROUNDS
        for path, value in state.weights.items():
            assert decoded.weights[path].tobytes() == value.tobytes(), (held, path)
    assert len(version.download_for(0)) < 44 + 4 * 7 + ROUNDS * ((13 if ternary else 64) + 3) + 20
    assert len(version.download_for(ROUNDS)) == 44 + 4 * 7, "nothing to say but the statistics"


@pytest.mark.parametrize("ternary", [0.0, 0.3])
def test_a_decoder_in_plain_integers_gets_the_same_point(tmp_path: Path, ternary: float) -> None:
    agreement, shelf = agreement_of(), Shelf(tmp_path)
    _, version = played(agreement, shelf, ternary=ternary)
    packet = version.download_for(2).model
    payload, point = packet[40 + 28 : -4], [int(v) for v in _flat(shelf.get_exactly("point", 2))]
    heads, at = [], 0
    for _ in range(2, ROUNDS):
        head, shift = 0, 0
        while True:
            byte, at = payload[at], at + 1
            head, shift = head | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        heads.append(head)
    assert all(head % 2 == bool(ternary) for head in heads)
    numbers = zlib.decompress(payload[at:])
    for t, head in zip(range(2, ROUNDS), heads, strict=True):
        if head % 2:
            row = [byte // 3**j % 3 - 1 for byte in numbers[:13] for j in range(5)]
            numbers = numbers[13:]
        else:
            row, numbers = list(struct.unpack("64b", numbers[:64])), numbers[64:]
        for i, code in enumerate(codes_of(CODEC.for_round(t).seed, len(point), 64).tolist()):
            point[i] += (-1 if code & 1 else 1) * (head // 2) * row[code >> 1]
    assert not numbers
    assert point == _flat(shelf.get_exactly("point", ROUNDS)).tolist()


def _flat(point: Tensors | None) -> np.ndarray:
    assert point is not None
    return np.concatenate([value.ravel() for value in point.values()])


def test_the_shorter_of_sums_and_lattice_difference_travels(tmp_path: Path) -> None:
    """Sums of many rounds are longer than the difference they come to."""
    agreement, shelf = agreement_of(), Shelf(tmp_path)
    coarse = replace(agreement, delta_step=0.02, upload=Sketch(256, seed=77))
    state = coarse.algorithm.init(coarse.initial, coarse.spec)
    version = publish(coarse, state, shelf)
    kinds = set()
    for _ in range(40):
        state = one_step(coarse, state, version)
        version = publish(coarse, state, shelf)
        download = version.download_for(0).model
        kinds.add(wire.kind_of(download))
        if wire.kind_of(download) == wire.MODEL_DELTA:
            decoded, _ = receive(coarse, version.download_for(0), version=state.round_num, held=Held())
            assert all(decoded.weights[p].tobytes() == v.tobytes() for p, v in state.weights.items())
    assert kinds == {wire.MODEL_SUMS, wire.MODEL_DELTA}


def test_a_history_with_a_gap_is_not_forwarded_and_the_client_still_lands(tmp_path: Path) -> None:
    agreement, shelf = agreement_of(), Shelf(tmp_path)
    state, _ = played(agreement, shelf)
    (tmp_path / "sums.3.npz").unlink()
    version = publish(agreement, state, Shelf(tmp_path))
    assert wire.kind_of(version.download_for(2).model) == wire.MODEL_DELTA
    assert wire.kind_of(version.download_for(3).model) == wire.MODEL_SUMS
    decoded, _ = receive(
        agreement, version.download_for(2), version=ROUNDS, held=Held(2, shelf.get_exactly("point", 2))
    )
    assert all(decoded.weights[p].tobytes() == v.tobytes() for p, v in state.weights.items())


def test_points_that_were_forgotten_are_led_back_to_by_the_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client away for longer than points are kept ended the run: its sums were applied to the app's model."""
    agreement, kept, shelf = agreement_of(), Shelf(tmp_path / "all"), Shelf(tmp_path / "few")
    played(agreement, kept)
    monkeypatch.setattr("fl_mobile.server.publish.VERSIONS_KEPT", 2)
    state, version = played(agreement, shelf)
    assert shelf.get_exactly("point", 1) is None
    for held in range(ROUNDS):
        download = version.download_for(held)
        assert wire.kind_of(download.model) == wire.MODEL_SUMS
        decoded, _ = receive(agreement, download, version=ROUNDS, held=Held(held, points_of(kept, agreement, held)))
        assert all(decoded.weights[p].tobytes() == v.tobytes() for p, v in state.weights.items())


@pytest.mark.parametrize("algorithm", ["fedavgm", "fedadam"])
def test_a_step_that_sums_do_not_say_is_refused(tmp_path: Path, algorithm: str) -> None:
    with pytest.raises(ConfigError, match=r"download.mode forward: the server's step is no multiple.*fedavg"):
        played(agreement_of(algorithm), Shelf(tmp_path))


def test_sums_of_another_run_version_or_length_are_refused(tmp_path: Path) -> None:
    agreement, shelf = agreement_of(), Shelf(tmp_path)
    _, version = played(agreement, shelf)
    download, held = version.download_for(2), Held(2, shelf.get_exactly("point", 2))
    with pytest.raises(WireError, match="codec"):
        receive(replace(agreement, upload=Sketch(64, seed=78)), download, version=ROUNDS, held=held)
    with pytest.raises(WireError, match="starts from version 2, this client holds 3"):
        receive(agreement, download, version=ROUNDS, held=Held(3, shelf.get_exactly("point", 3)))
    forwarding = forwarding_of(agreement, agreement.lattice(0))
    assert forwarding is not None
    sums = [Sums(int(s["gain"][0]), s["numbers"]) for t in (3, 4) if (s := shelf.get_exactly("sums", t))]
    weights = version.decoded.weights
    for history in (sums[:1], [*sums, *sums]):  # two rounds by their versions
        packet = forwarding.pack(weights, history, version=4, held_version=2)
        with pytest.raises(WireError):
            forwarding.unpack(packet, shelf.get_exactly("point", 2) or {})
    far = Sums(1 << 19, np.full(64, 127, np.int8))
    with pytest.raises(WireError, match="lattice steps away"):
        forwarding.unpack(forwarding.pack(weights, [far], version=3, held_version=2), held.point or {})


@pytest.mark.parametrize(
    ("head", "numbers", "why"),
    [
        (3, bytes([121] * 12 + [243]), "below 243, got 243"),
        (3, bytes([121] * 12 + [121 + 81]), "64 numbers are filled up with zeros"),
        (1, bytes([121] * 13), "in which nothing moved"),
        (3, bytes([121] * 12), "take 13 bytes, got 12"),
        (2, bytes([121] * 13), "take 64 bytes, got 13"),
    ],
)
def test_five_numbers_in_a_byte_are_read_one_way(head: int, numbers: bytes, why: str) -> None:
    agreement = agreement_of()
    lattice = agreement.lattice(0)
    forwarding = forwarding_of(agreement, lattice)
    assert forwarding is not None
    assert lattice is not None
    layout = wire.Layout(SPEC, forwarding)
    packet = layout.seal(wire.Header(wire.MODEL_SUMS, 3, 2), agreement.initial, bytes([head]) + zlib.compress(numbers))
    with pytest.raises(WireError, match=why):
        forwarding.unpack(packet, lattice.start)
    good = layout.seal(wire.Header(wire.MODEL_SUMS, 3, 2), agreement.initial, b"\x03" + zlib.compress(b"\x79" * 13))
    assert all(np.array_equal(v, lattice.start[p]) for p, v in forwarding.unpack(good, lattice.start)[0].items())


@pytest.mark.parametrize("ternary", [0.0, 0.3])
def test_damaged_sums_raise_nothing_but_wire_errors(tmp_path: Path, ternary: float) -> None:
    agreement, shelf = agreement_of(), Shelf(tmp_path)
    _, version = played(agreement, shelf, ternary=ternary)
    packet, held, rng = version.download_for(2).model, Held(2, shelf.get_exactly("point", 2)), philox(4)
    refused = 0
    for _ in range(400):
        data = bytearray(packet[:-4])
        for _ in range(int(rng.integers(1, 5))):
            at = int(rng.integers(8, len(data)))
            match int(rng.integers(0, 4)):
                case 0:
                    data[at] ^= 1 << int(rng.integers(0, 8))
                case 1:
                    del data[at : at + int(rng.integers(1, 9))]
                case 2:
                    data[at:at] = rng.bytes(int(rng.integers(1, 9)))
                case _:
                    data[at : at + 4] = rng.bytes(4)
            if len(data) <= 44:
                break
        if rng.random() < 0.7 and len(data) > 68:
            data[36:40] = struct.pack("<I", len(data) - 68)
        download = replace(version.download_for(2), model=bytes(data) + struct.pack("<I", zlib.crc32(data)))
        try:
            receive(agreement, download, version=ROUNDS, held=held)
        except WireError:
            refused += 1
    assert refused > 200
