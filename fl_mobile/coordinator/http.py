"""The coordinator's HTTP server, on a thread of its own: uvicorn with our limits, stopped without losing a receipt."""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from fl_mobile.coordinator.front import Front
from fl_mobile.coordinator.limits import punctual
from fl_mobile.coordinator.web import make_app
from fl_mobile.errors import ConfigError, RunError

_log = logging.getLogger("fl_mobile.coordinator")
BACKLOG = 4096
"""Of one socket that listens: as many as Linux lets one have unless it is told otherwise."""
GRACE_SECONDS = 5
"""Requests that are being answered when the server ends have this long."""
RARELY = (50_000, 20, 20)
"""When the garbage collector looks: a crowd's connections are a million objects that live, and looking through them as
often as it is used to is a fifth of what their answers cost."""
END_SECONDS = 30.0
"""After this the server's thread is taken for stuck, and left alone."""


@dataclass(frozen=True)
class Tls:
    """Files of a certificate chain and its key, PEM."""

    certificate: Path
    key: Path


@contextlib.contextmanager
def serving(coordinator: Front, *, host: str, port: int, tls: Tls | None = None) -> Iterator[str]:
    """Serves a coordinator while the block runs; gives its URL.

    Args:
        port: 0 takes a free one.

    Raises:
        ConfigError: The address or the certificate cannot be used.
        RunError: The server did not start, or a request of it does not end.
    """
    listeners = _listen(host, port)
    _allow_many_connections()
    try:
        config = configured(coordinator, tls)
    except (OSError, ValueError) as error:
        _close(listeners)
        raise ConfigError(f"--tls-cert, --tls-key: the certificate cannot be used: {error}") from None
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_run, args=(server, listeners, coordinator), name="coordinator-http", daemon=True)
    thread.start()
    often = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        while not server.started:
            thread.join(0.01)
            if not thread.is_alive():
                raise RunError("the HTTP server did not start")
        address, bound = listeners[0].getsockname()[:2]
        yield f"{'http' if tls is None else 'https'}://{f'[{address}]' if ':' in address else address}:{bound}"
    finally:
        server.should_exit = True
        thread.join(END_SECONDS)
        _close(listeners)
        gc.set_threshold(*often)
        if thread.is_alive():
            raise RunError(f"a request did not end within {END_SECONDS:g} s after the server was told to; see its log")


def configured(coordinator: Front, tls: Tls | None = None) -> uvicorn.Config:
    """Returns uvicorn's settings for a coordinator, loaded.

    Raises:
        OSError, ValueError: The certificate cannot be used.
    """
    config = uvicorn.Config(
        make_app(coordinator),  # type: ignore[arg-type]
        http=punctual(coordinator.limits, coordinator.refused),
        ws="none",
        timeout_keep_alive=int(max(1, coordinator.limits.header_seconds)),
        backlog=BACKLOG,
        lifespan="off",
        log_config=None,
        log_level="error",  # what is no HTTP is counted; a line for each would let strangers fill a disk
        access_log=False,
        proxy_headers=False,  # nothing here asks who is at the other end
        server_header=False,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    config.load()
    return config


def _close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _run(server: uvicorn.Server, listeners: list[socket.socket], coordinator: Front) -> None:
    """Serves until it is told to end; if it ends otherwise, nobody waits for packets any more."""
    error: BaseException = RuntimeError("nobody told it to")
    try:
        server.run(sockets=listeners)
    except BaseException as caught:
        error = caught
    if not server.should_exit:
        _log.error("the HTTP server ended by itself", exc_info=error)
        coordinator.lose(error)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Returns sockets that listen on one port; together they hold a crowd until the server has time for it.

    Connections that find the queue full are dropped, and asked for again by their phones a second later, or three.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        first = socket.create_server((host, port), family=family, backlog=BACKLOG)
        if sys.platform != "linux":
            return [_at_once(first)]
        port = first.getsockname()[1]
        first.close()  # nobody else had the port: it is opened again to be shared, by us alone
        return [
            _at_once(socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=True))
            for _ in range(4)
        ]
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Choose another --port."
        ) from None


def _at_once(listener: socket.socket) -> socket.socket:
    """Lets its connections send small segments at once: a reply is a head and a body, and the body would wait 40 ms.

    asyncio does that itself only for sockets that say their protocol, which those of ``create_server`` do not.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _allow_many_connections() -> None:
    """Raises the number of open files as far as the system lets us: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
