"""How much one coordinator takes on this machine, over loopback (issue 17).

    python benchmarks/coordinator.py [check-ins|uploads|sustained|population ...] [--format json]

| case       | what comes |
|------------|------------|
| check-ins  | 10,000 connections at once, one signed check-in each |
| uploads    | 1,000 packets of 7 kB and 100 of 1 MB, while 2,000 sockets trickle a byte a second, and come again |
| sustained  | packets of 7 kB on 64 connections, as fast as they are taken; each is on disk before its receipt |
| population | check-ins one after another, in a run with 1,000,000 enrolled devices |

Prints a table a case: what issue 17 asks, and what was measured. The server is a process of its own, its files are
in the working directory; the load is another, on the same cores: each of the two gets about half of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import resource
import selectors
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.codecs import parse_codec
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.http import serving
from fl_mobile.coordinator.judging import judge_by
from fl_mobile.coordinator.records import OpenRound, most_packet_bytes
from fl_mobile.coordinator.tables import devices as device_table
from fl_mobile.protocol.signing import DeviceKey, message, to_base64
from fl_mobile.protocol.terms import assignment_to_json
from fl_mobile.records import Assignment, FitPlan
from fl_mobile.seeds import rng_for
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Folding
from fl_mobile.tensors import TensorSpec
from fl_mobile.wire import UPDATE, Header, Layout

VISITORS = 300
"""Devices of the population that check in."""


@dataclass(frozen=True)
class Case:
    """One run of the server.

    Attributes:
        values: Of the model.
        ask: Clients of the round.
        enrolled: Devices.
    """

    values: int = 55_210
    ask: int = 1_000_000
    enrolled: int = 10_000

    @property
    def layout(self) -> Layout:
        """Of its packets; a coarse absolute step keeps small updates small and lets wild ones travel raw."""
        return Layout({"w": TensorSpec((self.values,))}, parse_codec("ecsq:abs=0.01"))

    def packet(self, kept: int) -> bytes:
        """Returns a packet of an update in which so many values are not zero."""
        rng = np.random.default_rng(0)
        delta = np.zeros(self.values, np.float32)
        where = rng.choice(self.values, kept, replace=False)
        delta[where] = rng.normal(0, 1e6 if kept == self.values else 0.05, kept)
        return self.layout.pack(Header(UPDATE, 0, 0, 10, 0.5), {"w": delta}, rng_for(0, "unused"))


def serve(case: Case, folder: Path, pipe: Connection) -> None:
    """The server's process: answers on a port until it is told to end, then says what it took."""
    coordinator = Coordinator(folder)
    _enrol(coordinator, case.enrolled)
    folding = Folding(0, case.layout, AGGREGATORS["mean"], Admission(), FitPlan())
    blob = coordinator.blobs.put(b"model")
    judge = judge_by(folding)
    judge(case.packet(5), 0)  # compiles the codec's loops
    coordinator.open_round(
        OpenRound(
            number=0,
            assignment=assignment_to_json(Assignment(0, FitPlan(), case.layout.codec)),
            parts_for=lambda held: {"model": blob},
            seed_of=lambda device: device,
            judge=judge,
            ask=case.ask,
            most=10**9,
            most_bytes=most_packet_bytes(case.layout.spec),
        )
    )
    before, began = _rss(), time.process_time()
    with serving(coordinator, host="127.0.0.1", port=0) as url:
        pipe.send((url, coordinator.run))
        pipe.recv()
        counts = coordinator.counts(0)
    spent = time.process_time() - began
    pipe.send({"rss_before_mb": before, "rss_mb": _peak(), "cpu_seconds": spent, "packets": counts.packets})
    coordinator.close()


def _enrol(coordinator: Coordinator, count: int) -> None:
    """Writes devices into the table, all but the keys alike: a million enrolments over HTTP are another benchmark."""

    def write(tx: Any) -> None:
        for at in range(0, count, 50_000):
            rows = [
                {"device": d, "public_key": _public(d, count), "last_ms": 0} for d in range(at, min(count, at + 50_000))
            ]
            tx.db.execute(device_table.insert(), rows)

    coordinator._writer.submit(write).result()


def _public(device: int, population: int) -> bytes:
    """Returns a device's key; of a million, those that never check in have no half that signs."""
    asks = population <= 100_000 or device % (population // VISITORS) == 0
    return _key_of(device).public if asks else hashlib.sha256(f"{device} is silent".encode()).digest()


def _key_of(device: int) -> DeviceKey:
    return DeviceKey(hashlib.sha256(str(device).encode()).digest())


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class Load:
    """Requests to one server and how long they took."""

    address: tuple[str, int]
    run: str
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)

    async def send(self, request: bytes, *, keep: tuple[Any, Any] | None = None) -> tuple[int | str, dict[str, Any]]:
        """Sends one request on a connection, its own unless one is given, and reads the answer."""
        began = time.perf_counter()
        try:
            reader, writer = keep or await asyncio.open_connection(*self.address)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status: int | str = int(head[9:12])
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = json.loads(await reader.readexactly(length))
            if keep is None:
                writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            status, body = type(error).__name__, {}
        self.seconds.append(time.perf_counter() - began)
        self.statuses[status] += 1
        return status, body

    def check_in(self, device: int) -> bytes:
        """Returns a signed check-in."""
        body, path, now = b'{"held": 0}', f"/v1/devices/{device}/check-ins", time.time_ns() // 10**6
        text = message(run=self.run, method="POST", path=path, device=device, time_ms=now, body=body)
        signature = to_base64(_key_of(device).sign(text))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nFL-Time: {now}\r\nFL-Signature: {signature}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def upload(self, device: int, token: str, packet: bytes, digest: str) -> bytes:
        """Returns an upload."""
        path = f"/v1/rounds/0/devices/{device}/attempts/0"
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nRepr-Digest: {digest}\r\n"
        return f"{head}Content-Length: {len(packet)}\r\n\r\n".encode() + packet

    def told(self) -> dict[str, Any]:
        """Returns percentiles and statuses, and forgets them."""
        spent = np.array(self.seconds)
        out = {f"p{q}_s": round(float(np.percentile(spent, q)), 3) for q in (50, 99)} | {
            "statuses": dict(self.statuses)
        }
        self.seconds, self.statuses = [], Counter()
        return out


def _digest(packet: bytes) -> str:
    return f"sha-256=:{to_base64(hashlib.sha256(packet).digest())}:"


async def _tokens(load: Load, count: int) -> list[str]:
    """Checks so many devices in, on a few connections."""
    tokens = [""] * count

    async def some(part: Iterable[int]) -> None:
        keep = await asyncio.open_connection(*load.address)
        for device in part:
            _, body = await load.send(load.check_in(device), keep=keep)
            tokens[device] = body["assignment"]["token"]
        keep[1].close()

    await asyncio.gather(*(some(range(at, count, 16)) for at in range(16)))
    load.told()
    return tokens


def crowd(address: tuple[str, int], requests: list[bytes], seconds: float = 60.0) -> list[tuple[int | str, float]]:
    """Opens a connection for every request at once; returns status and seconds of each.

    Plain sockets: what takes a hundredth of an answer's time on the phones' side must not be half of it here.
    """
    watch, began, out = selectors.DefaultSelector(), time.perf_counter(), list[tuple[int | str, float]]()
    for request in requests:
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(address)
        watch.register(one, selectors.EVENT_WRITE, request)
    while len(out) < len(requests) and time.perf_counter() - began < seconds:
        for key, events in watch.select(1.0):
            one: Any = key.fileobj
            try:
                if events & selectors.EVENT_WRITE:
                    one.sendall(key.data)
                    watch.modify(one, selectors.EVENT_READ)
                    continue
                answer = one.recv(65536)  # short ones come whole
                out.append((int(answer[9:12]) if answer else "closed", time.perf_counter() - began))
            except OSError as error:
                out.append((type(error).__name__, time.perf_counter() - began))
            watch.unregister(one)
            one.close()
    return out + [("no answer", seconds)] * (len(requests) - len(out))


async def check_ins(load: Load, case: Case) -> dict[str, Any]:
    """10,000 connections at once."""
    requests = [load.check_in(device) for device in range(case.enrolled)]
    told = await asyncio.to_thread(crowd, load.address, requests)
    load.statuses.update(status for status, _ in told)
    load.seconds += [seconds for _, seconds in told]
    return {**load.told(), "seconds": round(max(seconds for _, seconds in told), 2)}


async def uploads(load: Load, case: Case) -> dict[str, Any]:
    """Small and large packets while slow sockets trickle."""
    small, large = case.packet(5_000), case.packet(case.values)
    tokens = await _tokens(load, 1_100)
    closed, over = list[float](), asyncio.Event()

    async def trickle() -> None:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(*load.address)
        head = b"POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n"
        with contextlib.suppress(OSError):
            writer.write(head + b"\r\n")
            while not reader.at_eof():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(reader.read(65536), 1)
                writer.write(b"x")
                await writer.drain()
        writer.close()
        closed.append(time.perf_counter() - began)

    async def trickles() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                await trickle()

    slow = [asyncio.create_task(trickles()) for _ in range(2_000)]
    await asyncio.sleep(2)
    digests = {len(p): _digest(p) for p in (small, large)}
    packets = [large if at % 11 == 10 else small for at in range(1_100)]
    gate = asyncio.Semaphore(200)

    async def one(device: int, packet: bytes) -> None:
        async with gate:
            await load.send(load.upload(device, tokens[device], packet, digests[len(packet)]))

    began = time.perf_counter()
    await asyncio.gather(*(one(device, packet) for device, packet in enumerate(packets)))
    out = {**load.told(), "seconds": round(time.perf_counter() - began, 2)}
    over.set()
    _, left = await asyncio.wait(slow, timeout=150)
    for task in left:
        task.cancel()
    lengths = {"small_bytes": len(small), "large_bytes": len(large)}
    return {
        **out,
        **lengths,
        "slow_closed": len(closed),
        "slow_left": len(left),
        "slow_longest_s": round(max(closed, default=0), 1),
    }


async def sustained(load: Load, case: Case) -> dict[str, Any]:
    """Uploads as fast as they are taken."""
    count, packet = 4_000, case.packet(7_000)
    tokens, digest = await _tokens(load, count), _digest(packet)

    async def some(part: Iterable[int]) -> None:
        keep = await asyncio.open_connection(*load.address)
        for device in part:
            await load.send(load.upload(device, tokens[device], packet, digest), keep=keep)

    began = time.perf_counter()
    await asyncio.gather(*(some(range(at, count, 64)) for at in range(64)))
    rate = count / (time.perf_counter() - began)
    return {**load.told(), "uploads_per_s": round(rate), "packet_bytes": len(packet)}


async def population(load: Load, case: Case) -> dict[str, Any]:
    """Check-ins one after another."""
    keep = await asyncio.open_connection(*load.address)
    for device in range(0, case.enrolled, case.enrolled // VISITORS):
        await load.send(load.check_in(device), keep=keep)
    return load.told()


CASES: dict[str, tuple[Case, Callable[[Load, Case], Awaitable[dict[str, Any]]]]] = {
    "check-ins": (Case(ask=1_000), check_ins),
    "uploads": (Case(values=410_000, enrolled=1_100), uploads),
    "sustained": (Case(enrolled=4_000), sustained),
    "population": (Case(enrolled=1_000_000, ask=1_000), population),
}


def measure(name: str) -> dict[str, Any]:
    """Returns what a case took."""
    case, play = CASES[name]
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(case, Path(folder), there))
        server.start()
        url, run = here.recv()
        host, _, port = url.removeprefix("http://").partition(":")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16), hard))
        out = asyncio.run(play(Load((host, int(port)), run), case))
        here.send("end")
        out["server"] = {k: round(v, 1) for k, v in here.recv().items()}
        server.join()
    return out


ASKED = {
    "check-ins": "0 errors, p99 ≤ 3 s, ≤ 400 MB",
    "uploads": "honest p99 ≤ 2 s; slow ones closed within their deadline (5 s and the bytes they sent)",
    "sustained": "≥ 300 uploads a second, each durable before its receipt",
    "population": "≤ 300 MB, check-in ≤ 5 ms",
}


def main() -> None:
    """Prints a table a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    for name in options.cases or list(CASES):
        told = measure(name)
        if options.format == "json":
            print(json.dumps({name: told}), flush=True)
            continue
        print(f"| {name} | {ASKED[name]} |\n|---|---|")
        for what, value in {**told, **told["server"]}.items():
            if what != "server":
                print(f"| {what} | {value} |")
        print(flush=True)


if __name__ == "__main__":
    main()
