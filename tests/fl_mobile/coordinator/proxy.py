"""A network that fails on purpose: a proxy that cuts, stalls, resets or damages connections at a byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("cut", "stall", "reset", "damage")


@dataclass(frozen=True)
class Fault:
    """What happens to one connection.

    Attributes:
        kind: One of `KINDS`.
        up: Whether to what the client sends, or else to what it is answered.
        at: Byte.
    """

    kind: str
    up: bool
    at: int


class Proxy:
    """Passes connections on to ``server``; the first ones meet ``faults``, one each."""

    def __init__(self, server: tuple[str, int], faults: list[Fault]) -> None:
        self._server, self._faults, self.met = server, list(faults), 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                fault = self._faults.pop(0) if self._faults else None
                for up, (here, there) in ((True, (client, server)), (False, (server, client))):
                    mine = fault if fault is not None and fault.up == up else None
                    threading.Thread(target=self._pass, args=(here, there, mine), daemon=True).start()

    def _pass(self, here: socket.socket, there: socket.socket, fault: Fault | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := here.recv(65536):
                if fault is not None and passed + len(data) > fault.at:
                    self.met += 1
                    cut = fault.at - passed
                    there.sendall(data[:cut])
                    if fault.kind == "stall":
                        return
                    if fault.kind == "damage":
                        there.sendall(bytes([data[cut] ^ 0x5A]))
                        there.sendall(data[cut + 1 :])
                        fault = None
                        passed += len(data)
                        continue
                    if fault.kind == "reset":
                        for each in (here, there):
                            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                there.sendall(data)
                passed += len(data)
        for each in (here, there):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR) if fault is None or fault.kind != "reset" else each.close()


@contextlib.contextmanager
def failing(server: tuple[str, int], faults: list[Fault]) -> Iterator[Proxy]:
    proxy = Proxy(server, faults)
    try:
        yield proxy
    finally:
        proxy.close()
