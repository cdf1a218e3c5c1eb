"""The client's half of a masked round: it checks what it is to add to, and sends its packet with the payload masked."""

from __future__ import annotations

from collections.abc import Mapping

from fl_mobile.codecs.summed import summed
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.privacy.shares import ShareNoise, add_share
from fl_mobile.secure_sum.client import MaskedClient
from fl_mobile.secure_sum.plan import run_of
from fl_mobile.secure_sum.shamir import Random
from fl_mobile.secure_sum.terms import read_terms
from fl_mobile.wire import Layout


def join(
    invitation: bytes,
    *,
    layout: Layout,
    round_num: int,
    run: str,
    client: int,
    identity: bytes,
    identities: Mapping[int, bytes],
    random: Random,
) -> MaskedClient:
    """Returns the client in the sum it is invited to.

    Args:
        layout: Of the round's upload packets.
        run: Names the federation.
        identity: Its Ed25519 private key.
        identities: Client → Ed25519 public key, as its app or a registrar holds them; never from the server that adds.
        random: Where its secrets come from.

    Raises:
        WireError: The sum is of another run, model, codec or round.
    """
    terms, codec = read_terms(invitation), summed(layout.codec)
    if codec is None:
        raise ConfigError(f"payloads of '{layout.codec.name}' do not add up; use sketch or linear")
    expected = (
        run_of(run, layout.fingerprint, codec.name),
        round_num,
        codec.count_fields(layout.coded),
        codec.width,
    )
    if (terms.run, terms.round_num, terms.values, terms.width) != expected:
        raise WireError("round", f"the sum is of another run, model, codec or round than round {round_num}'s")
    return MaskedClient(terms, client, identity, identities, random)


def masked_packet(
    client: MaskedClient,
    layout: Layout,
    inbox: bytes,
    packet: bytes,
    *,
    noise: ShareNoise | None = None,
    secret: bytes = b"",
) -> bytes:
    """Returns the packet as it leaves the client: as long as before, its payload readable in the sum alone.

    Args:
        inbox: What its neighbours sealed for it.
        packet: What `answer` returned.
        noise: What it adds a share of, if the sum is to be private.
        secret: The device's own 32 bytes, where it adds noise.

    Raises:
        WireError: As `MaskedClient.mask`.
    """
    codec = summed(layout.codec)
    assert codec is not None
    header, exact, payload = layout.open(packet)
    values = codec.read_fields(payload, layout.coded)
    if noise:
        values = add_share(codec.signed(values), noise, client.terms.least, secret=secret, roster=client.roster_digest)
    return layout.seal(header, exact, client.mask(inbox, values))
