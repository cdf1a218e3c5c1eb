"""Sockets of the coordinator's HTTP server."""

from __future__ import annotations

import socket

from fl_mobile.coordinator.http import _listen


def test_a_reply_of_two_segments_does_not_wait_for_the_first_to_be_acknowledged() -> None:
    """Without TCP_NODELAY every reply was 40 ms late: its body waited for the phone's delayed acknowledgement."""
    listeners = _listen("127.0.0.1", 0)
    try:
        address = listeners[0].getsockname()
        assert {listener.getsockname() for listener in listeners} == {address}
        for listener in listeners:
            listener.setblocking(False)
        with socket.create_connection(address, timeout=10):
            accepted = None
            while accepted is None:
                for listener in listeners:
                    try:
                        accepted, _ = listener.accept()
                    except BlockingIOError:
                        continue
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        for listener in listeners:
            listener.close()
