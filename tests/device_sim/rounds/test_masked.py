"""Rounds under masks: the sum is that of whole numbers to the bit, whoever leaves; the server holds nothing else."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.rounds import masked, server_of
from device_sim.rounds.memory import FleetMemory
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round, read_lines
from device_sim.run.loop import restore, simulate, stop_reason
from fl_mobile.codecs.bits.fields import pack_fields
from fl_mobile.codecs.summed import summed
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.secure_sum import client as secure_client
from fl_mobile.secure_sum import server as secure_server
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import TensorSpec, weights_hash
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_engine, numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.fl_mobile.secure_sum.parties import make_free

MASKED = (
    *("data.devices=40", "train.cohort=12", "train.rounds=4", "output.recipes=[]", "masks.group=20"),
    "upload.codec=sketch:k=128",
)
LEAVING = ("fleet.dropout-rate=0.2", "fleet.link=3g", "masks.dropouts=0.45")
"""Devices leave before every step, and transfers of any step break off."""


def played(path: Path, *changes: str) -> tuple[Federation, RunFolder, list[Round]]:
    federation = numpy_federation(parse_experiment(PLAIN, (*MASKED, *changes)))
    folder = create(path, federation.experiment)
    return federation, folder, list(simulate(federation, folder))


def final(federation: Federation, folder: RunFolder) -> str:
    return weights_hash(restore(federation, folder)[0].weights)


RUNS = {
    "all stay": (),
    "they leave": (*LEAVING, "train.rounds=8"),
    "groups": (*LEAVING, "masks.group=5", "train.rounds=8"),
    "given step": ("upload.codec=sketch:k=128,width=9,step=0.01",),
    "levels": (*LEAVING, "upload.codec=linear:clip=0.2,bits=4,devices=20,keep=0.5"),
    "deadline": (
        "fleet.link=3g",
        "fleet.interruptions-per-hour=60",
        "clock.deadline-seconds=4",
        "masks.dropouts=0.45",
    ),
    "poisson": (*LEAVING, "selection.sampler=poisson", "masks.group=8"),
    "fedadam, a mean of rounds": ("server.algorithm=fedadam", "server.averaging=exponential"),
    "forwarded sums": ("download.mode=forward",),
    "attackers": ("attack.name=sign-flip",),
    "pruned, by day": (
        *("train.pruning.sparsity=0.5", "train.pruning.end-round=1", "train.pruning.smallest-kernel=1"),
        *("download.mode=delta", "fleet.availability=diurnal", "selection.sampler=stratified"),
    ),
    "tensors that stay": ("personal.private=*bias", "download.mode=delta"),
}


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_masks_change_no_bit_of_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]
) -> None:
    make_free(monkeypatch)
    *with_masks, told = played(tmp_path / "masked", *changes)
    for module in (secure_client, secure_server):
        monkeypatch.setattr(module, "add_masks", lambda values, masks: None)
    *without, plain = played(tmp_path / "plain", *changes)
    same = [replace(r, wall_seconds=0) for r in told]
    assert same == [replace(r, wall_seconds=0) for r in plain]
    assert final(*with_masks) == final(*without)
    assert sum(r.accepted for r in told) > 0


def test_the_sum_is_that_of_the_packets_of_those_who_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_free(monkeypatch)
    sent: dict[int, np.ndarray] = {}
    means = []
    monkeypatch.setattr(masked, "masked_packet", _noting(sent))
    monkeypatch.setattr(masked, "close_step", _closing(means))
    _, _, rounds = played(tmp_path / "run", *LEAVING, "train.rounds=6")
    assert len(means) == 6
    left = 0
    for folded, layout, receipts, fields in ((*m, sent) for m in means):
        counted = [client for client, receipt in receipts.items() if receipt.accepted]
        codec = folded.total.codec
        assert folded.accepted == len(counted)
        left += 12 - len(counted)
        if not counted:
            continue
        total = sum(fields[layout.codec.name, client] for client in counted) & ((1 << codec.width) - 1)
        assert np.array_equal(codec.signed(total), folded.total.total)
        mean = codec.decode_total(codec.signed(total), layout.coded, len(counted))
        for path, value in folded.total.result().items():
            assert np.array_equal(value, mean[path])
    assert left > 6
    assert [r.accepted for r in rounds] == [m[0].accepted for m in means]


def test_the_sum_is_the_mean_of_what_single_packets_decode_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields so wide that none wraps on its way can be decoded one by one as well."""
    means: list[Any] = []
    alone: dict[int, Any] = {}
    real = masked.masked_packet

    def decoding(client: Any, layout: Any, inbox: bytes, packet: bytes, **noise: Any) -> bytes:
        alone[client.client] = layout.unpack(packet).tensors
        return real(client, layout, inbox, packet, **noise)

    monkeypatch.setattr(masked, "masked_packet", decoding)
    monkeypatch.setattr(masked, "close_step", _closing(means))
    played(tmp_path / "run", "upload.codec=sketch:k=128,width=20,step=0.001", "train.rounds=1")
    ((folded, _, receipts),) = means
    assert len(receipts) == len(alone) == 12
    for path, value in folded.total.result().items():
        mean = np.mean([tensors[path].astype(np.float64) for tensors in alone.values()], axis=0)
        np.testing.assert_allclose(value, mean, atol=1e-6)
        assert np.abs(mean).max() > 1e-3


def _noting(sent: dict[Any, np.ndarray], kept: list[bytes] | None = None) -> Callable[..., bytes]:
    real = masked.masked_packet

    def noting(client: Any, layout: Any, inbox: bytes, packet: bytes, **noise: Any) -> bytes:
        codec = summed(layout.codec)
        assert codec is not None
        _, _, payload = layout.open(packet)
        sent[layout.codec.name, client.client] = codec.read_fields(payload, layout.coded)
        return real(client, layout, inbox, packet, **noise)

    return noting


def _closing(means: list[Any]) -> Callable[..., Any]:
    real = masked.close_step
    rounds: list[Any] = []
    told = masked.MaskedRound.result

    def result(server: Any, revealed: Any) -> Any:
        folded = told(server, revealed)
        rounds.append((folded, server.layout, dict(server.receipts)))
        return folded

    def closing(step: Any, folded: Any) -> Any:
        means.append(rounds[-1])
        return real(step, folded)

    masked.MaskedRound.result, closing.undo = result, told  # type: ignore[method-assign, attr-defined]
    return closing


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    told = masked.MaskedRound.result
    yield
    masked.MaskedRound.result = told  # type: ignore[method-assign]


def reachable(*roots: Any) -> Iterator[Any]:
    """Yields all objects that roots hold, whatever the way; code and modules hold no update."""
    seen, waiting = set(), list(roots)
    while waiting:
        thing = waiting.pop()
        code = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, type)
        if id(thing) in seen or isinstance(thing, code):
            continue
        seen.add(id(thing))
        yield thing
        waiting += gc.get_referents(thing)


def holds(fields: np.ndarray, codec: Any, roots: list[Any], files: list[bytes]) -> bool:
    """Whether a client's integers stand anywhere, as they are, as payload, or as decoded numbers."""
    signed = codec.signed(fields)
    width = np.full(len(fields), codec.width)
    needles = [pack_fields(fields, width)]
    kinds = ("<i8", "<i4", "<u4", "<f4", "<f8", "<i2")
    needles += [x.astype(kind).tobytes() for x in (fields, signed) for kind in kinds]
    found = [thing for thing in reachable(*roots) if isinstance(thing, bytes | bytearray | memoryview | np.ndarray)]
    held = [bytes(thing) if not isinstance(thing, np.ndarray) else thing.tobytes() for thing in found]
    return any(needle in hay for needle in needles for hay in (*held, *files))


STEPS = ("invite", "rosters", "inboxes", "request", "result")


def walked(path: Path, monkeypatch: pytest.MonkeyPatch, *changes: str) -> tuple[int, list[str]]:
    """Plays a run; returns how often the server's side was walked, and the steps after which it held an update."""
    sent: dict[Any, np.ndarray] = {}
    bad: list[str] = []
    looked = 0
    monkeypatch.setattr(masked, "masked_packet", _noting(sent))

    def looking(name: str) -> Callable[..., Any]:
        real = getattr(masked.MaskedRound, name)

        def step(server: Any, given: Any) -> Any:
            nonlocal looked
            out = real(server, given)
            for (codec, _), fields in sent.items():
                if codec == server.layout.codec.name:
                    looked += 1
                    bad.extend([name] * holds(fields, server._codec, [server, out], []))
            return out

        return step

    for name in STEPS:
        monkeypatch.setattr(masked.MaskedRound, name, looking(name))
    federation, folder, _ = played(path, *changes, "train.rounds=2")
    files = [file.read_bytes() for file in path.rglob("*") if file.is_file()]
    state, rounds = restore(federation, folder)
    for (_, _), fields in sent.items():
        looked += 1
        codec = summed(federation.upload)
        bad.extend(["written"] * holds(fields, codec, [state, rounds], files))
    return looked, bad


def test_the_server_holds_nothing_but_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, bad = walked(tmp_path / "run", monkeypatch, *LEAVING, "masks.group=6")
    assert looked > 40
    assert not bad


def test_the_walk_finds_a_server_that_reads_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = masked.MaskedRound.request
    kept = []

    def keeping(server: Any, packets: Any) -> Any:
        kept.extend(packets.values())
        server.kept = [*packets.values()]
        return real(server, packets)

    monkeypatch.setattr(masked.MaskedRound, "request", keeping)
    assert not walked(tmp_path / "blind", monkeypatch)[1], "masked packets say nothing"
    for module in (secure_client, secure_server):
        monkeypatch.setattr(module, "add_masks", lambda values, masks: None)
    assert "request" in walked(tmp_path / "seeing", monkeypatch)[1]


def test_bytes_of_keys_are_counted_and_take_their_time(tmp_path: Path) -> None:
    _, folder, rounds = played(tmp_path / "run", "fleet.link=4g", "output.timeline-rounds=4")
    lines = [line for line, _ in read_lines(folder.timeline)]
    for done, line in zip(rounds, lines, strict=True):
        keys, columns = done.masks, line["devices"]
        assert keys["groups"] == 1
        packets = done.uploads * (44 + 128 * 7 // 8)
        assert done.upload_bytes == packets + keys["up"]
        assert sum(columns["upload_bytes"]) == done.upload_bytes
        assert sum(columns["download_bytes"]) == done.download_bytes
        assert keys["up"] >= 12 * 132 + done.accepted * (96 + 11 * 86)
    bare = numpy_federation(parse_experiment(PLAIN, [c for c in MASKED if "masks" not in c] + ["fleet.link=4g"]))
    plain = list(simulate(bare, create(tmp_path / "bare", bare.experiment)))
    assert rounds[0].sim_seconds > plain[0].sim_seconds + 6 * 0.05, "three more exchanges, two latencies each"
    assert rounds[0].joules > plain[0].joules


def test_a_round_of_which_too_many_leave_changes_nothing_and_three_in_a_row_end_the_run(tmp_path: Path) -> None:
    federation, folder, rounds = played(
        tmp_path / "run", "fleet.dropout-rate=0.7", "masks.dropouts=0.1", "train.rounds=9"
    )
    assert len(rounds) == 3
    assert {r.accepted for r in rounds} == {0}
    assert all(w.any() == federation.initial[p].any() for p, w in restore(federation, folder)[0].weights.items())
    assert "3 rounds in a row gave no sum" in stop_reason(federation.experiment, rounds)
    assert "0.1" in stop_reason(federation.experiment, rounds)


def test_a_run_that_was_cut_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    federation, whole, _ = played(tmp_path / "whole", *LEAVING)
    again = numpy_federation(parse_experiment(PLAIN, (*MASKED, *LEAVING)))
    folder = create(tmp_path / "cut", again.experiment)
    rounds = simulate(again, folder)
    next(rounds)
    next(rounds)
    rounds.close()
    list(simulate(again, folder))
    assert final(federation, whole) == final(again, folder)
    assert whole.rounds.read_bytes().count(b"\n") == folder.rounds.read_bytes().count(b"\n")


def test_the_step_finds_the_size_of_the_updates_from_either_side(tmp_path: Path) -> None:
    federation, folder, rounds = played(tmp_path / "run", "train.rounds=6")
    state, _ = restore(federation, folder)
    assert state.upload_step is not None
    assert state.upload_step > 20 * 2.0**-10
    assert rounds[-1].loss is not None
    fixed, at, _ = played(tmp_path / "fixed", "upload.codec=sketch:k=128,width=9,step=0.01")
    assert restore(fixed, at)[0].upload_step is None


def test_statistics_that_travel_as_they_are_are_refused_by_name() -> None:
    trainer = NumpyTrainer(144, 3)
    trainer.spec["bn/mean"] = TensorSpec((3,), trainable=False)
    trainer.initial["bn/mean"] = np.zeros(3, np.float32)
    with pytest.raises(ConfigError, match=r"'bn/mean'.*batch normalisation"):
        numpy_federation(parse_experiment(PLAIN, MASKED), numpy_engine(trainer))


def test_levels_of_too_few_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"holds the sum of 5 devices.*up to 12.*devices=12"):
        numpy_federation(parse_experiment(PLAIN, (*MASKED, "upload.codec=linear:clip=0.2,bits=4,devices=5")))


def test_a_damaged_packet_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = masked.masked_packet, 0

    def damaged(*given: Any, **noise: Any) -> bytes:
        nonlocal count
        count += 1
        packet = real(*given, **noise)
        return {1: packet[:-1], 2: packet[:50] + b"\0\1" + packet[52:], 3: b""}.get(count, packet)

    monkeypatch.setattr(masked, "masked_packet", damaged)
    federation = numpy_federation(parse_experiment(PLAIN, MASKED))
    memory, state = FleetMemory(Shelf(tmp_path / "m")), federation.algorithm.init(federation.initial, federation.spec)
    _, report, traffic = server_of(federation)(federation, memory, state, tmp_path)
    assert report.accepted == 9
    assert sum(report.dropped.values()) == 3
    assert set(report.dropped) <= {"checksum", "truncated"}
    assert sum(name.startswith("refused") for name in traffic.columns["outcome"]) == 3


def test_a_client_joins_no_other_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, told = masked.join, []

    def other(invitation: bytes, **given: Any) -> Any:
        for wrong in (invitation[:-1], b"\0" + invitation[1:], invitation[:16] + b"\7" + invitation[17:]):
            with pytest.raises(WireError) as error:
                real(wrong, **given)
            told.append(error.value.reason)
        return real(invitation, **given)

    monkeypatch.setattr(masked, "join", other)
    played(tmp_path / "run", "train.rounds=1")
    assert set(told) == {"truncated", "round"}
