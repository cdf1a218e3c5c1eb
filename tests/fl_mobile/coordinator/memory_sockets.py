"""The coordinator's HTTP server on connections that are function calls: uvicorn's own protocol without sockets."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.server import ServerState

from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.http import configured


class Wire(asyncio.Transport):
    """What a connection writes to; ``out`` is what it wrote."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.out, self.closed = bytearray(), False

    def write(self, data: Any) -> None:
        self.out += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Answering:
    """Answers bytes as the server of a coordinator does; for use inside one event loop."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._config = configured(coordinator)

    async def answer(self, request: bytes) -> bytes:
        """Returns all that a client gets which sends these bytes and closes its side."""
        state, wire = ServerState(), Wire()
        protocol = self._config.http_protocol_class(  # type: ignore[operator,union-attr]
            config=self._config, server_state=state, app_state={}
        )
        protocol.connection_made(wire)
        protocol.data_received(request)
        while protocol.cycle is not None and not protocol.cycle.response_complete and not wire.closed:
            if protocol.cycle.more_body:  # the rest of its body will not come
                break
            await asyncio.wait(state.tasks, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        protocol.connection_lost(None)
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=30)
        assert not state.tasks, request
        return bytes(wire.out)
