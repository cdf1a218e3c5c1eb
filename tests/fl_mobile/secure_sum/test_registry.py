"""Who is a device: a file of public keys, and rosters that travel with the keys of their clients."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from fl_mobile.errors import ConfigError
from fl_mobile.secure_sum.registry import read_registry, roster_of, with_keys, without_keys
from tests.fl_mobile.secure_sum.parties import Parties, refused, terms

KEYS = [bytes([i]) * 32 for i in (1, 2)]


def test_a_file_of_keys_is_read_and_what_is_none_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "registry.txt"
    lines = [base64.b64encode(key).decode() for key in KEYS]
    path.write_text("# devices\n\n" + "\n".join(lines) + "\n")
    assert read_registry(path) == frozenset(KEYS)
    for wrong in ("AAAA", "no base64!", lines[0][:-4]):
        path.write_text(f"{lines[0]}\n{wrong}\n")
        with pytest.raises(ConfigError, match="line 2: expected base64 of the 32 bytes"):
            read_registry(path)
    with pytest.raises(ConfigError, match="expected a text file"):
        read_registry(tmp_path / "nothing")


def test_a_roster_with_keys_comes_back_and_only_devices_are_believed() -> None:
    parties = Parties(terms(4), 4)
    roster = parties.server.roster({i: client.advertise() for i, client in parties.clients.items()})
    packet, trusted = with_keys(roster, parties.identities), frozenset(parties.identities.values())
    assert without_keys(packet, trusted) == (roster, parties.identities)
    assert roster_of(packet) == roster
    refused(lambda: without_keys(packet, trusted - {parties.identities[2]}), "identity")
    refused(lambda: without_keys(packet[:-32] + parties.identities[0], trusted), "identity")
    for cut in (1, 32, len(packet) - 1, len(packet)):
        refused(lambda cut=cut: without_keys(packet[:-cut], trusted), "truncated")  # type: ignore[misc]
