"""`lading init --domain NAME --network TICKET`: a new domain comes into a network that exists, and its first home is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.errors import InvalidObject, LadingError, Reason, UsageError
from protocols.identity.certificates import read_root
from protocols.identity.fences import founding_fence
from protocols.identity.keyfiles import RootKey, key_file, open_key_file, seal_key_file
from protocols.identity.tickets import ROLE_DOMAIN, TICKET_ID_BYTES, Ticket
from protocols.join import machine as j
from protocols.limits import JOIN_ATTEMPTS_MAX
from protocols.types import NetworkId

from .clock import Clock, SystemClock
from .config import FILE_NAME
from .entropy import Entropy, SystemEntropy
from .home import Founding, certify_issuer, make_domain, write_founded, write_private
from .joining import Progress, come_in, facts_of, first_network, read_ticket, static_peers
from .transport.port import Transport

# The root of an attempt whose answer was lost: the same ticket with the same root gets the same answer again.
PENDING_SUFFIX = ".founding"


def found_in_network(
    home: Path,
    ticket_text: str,
    *,
    domain: str,
    name: str | None,
    country: str | None,
    listen: Sequence[str],
    passphrase: bytes | None,
    on_progress: Progress,
) -> dict[str, object]:
    """Makes ``home`` as the first of a new domain. All keys are made here; the network gets to know the domain's root and nothing else.

    Result: as ``home.init_home``. Raises LadingError with the network's reason, CONFLICT when there is a home already, UsageError.
    """
    if (home / FILE_NAME).exists():
        raise LadingError(Reason.CONFLICT, f"{home} already is the home of a node", hint="choose another --home")
    from .transport.libp2p.transport import Libp2pTransport  # the wire is loaded only by those who use it

    entropy, clock = SystemEntropy(), SystemClock()
    ticket = read_ticket(ticket_text, now=int(clock.now()))
    if ticket.role != ROLE_DOMAIN:
        raise UsageError(
            f"this ticket brings a {ticket.role} into a domain that exists, not a domain into the network",
            hint="lading join TICKET   or ask for one with: lading invite --domain",
        )
    pending = home.with_name(home.name + PENDING_SUFFIX)
    root = pending_root(pending, ticket, domain, passphrase, entropy, int(clock.now()))
    # A key for this one conversation: the node's own is made when the domain is in.
    transport = Libp2pTransport(entropy.token(32), NetworkId(ticket.network_id), [])
    joined = trio.run(ask_to_found, transport, ticket, root, entropy, clock, on_progress)
    data = write_in_network(
        home,
        ticket,
        joined,
        root,
        name=name,
        country=country,
        listen=listen,
        passphrase=passphrase,
        entropy=entropy,
        now=int(clock.now()),
    )
    pending.unlink(missing_ok=True)
    return data


def pending_root(path: Path, ticket: Ticket, domain: str, passphrase: bytes | None, entropy: Entropy, now: int) -> RootKey:
    """The root of an earlier attempt with this ticket, else a new one, written down under the passphrase before anything is sent.

    Raises InvalidObject(WRONG_PASSPHRASE), UsageError when the earlier attempt gave the domain another name.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if data[:TICKET_ID_BYTES] == ticket.ticket_id:
        root = open_key_file(data[TICKET_ID_BYTES:], passphrase).content
        if not isinstance(root, RootKey):
            raise InvalidObject(Reason.INTEGRITY, f"{path} is not what its name says")
        before = read_root(root.certificate).name
        if before != domain:
            raise UsageError(f"with this ticket the domain was called {before!r}", hint=f"lading init --domain {before} --network TICKET")
        return root
    root = make_domain(domain, entropy, now)
    path.parent.mkdir(parents=True, exist_ok=True)
    sealed = seal_key_file(key_file(root), passphrase, salt=entropy.token(16), nonce=entropy.token(12))
    write_private(path, ticket.ticket_id + sealed)
    return root


async def ask_to_found(transport: Transport, ticket: Ticket, root: RootKey, entropy: Entropy, clock: Clock, progress: Progress) -> j.Joined:
    """Hands the root over and brings back what the network gives. Raises LadingError."""
    hpke_seed = entropy.token(32)

    def newcomer() -> j.NewcomerMachine:
        return j.NewcomerMachine(
            ticket=ticket,
            key=SigningKey(root.seed),
            hpke=HpkePrivateKey(hpke_seed),
            member_id=None,
            label=read_root(root.certificate).name,
            ephemeral_seeds=[entropy.token(32) for _ in range(JOIN_ATTEMPTS_MAX)],
            now=int(clock.now()),
            root=root.certificate,
        )

    return await come_in(transport, ticket, newcomer, clock, progress)


def write_in_network(
    home: Path,
    ticket: Ticket,
    joined: j.Joined,
    root: RootKey,
    *,
    name: str | None,
    country: str | None,
    listen: Sequence[str],
    passphrase: bytes | None,
    entropy: Entropy,
    now: int,
) -> dict[str, object]:
    """The first home of the domain that came in: issuer, member and node are made here."""
    issuer = certify_issuer(root, entropy, now)
    # The network's nodes learn this fence from ours, and answer it for as long as the domain is in: what the kit can make again.
    network = first_network(joined, further_fences=(founding_fence(root.seed, root.certificate, joined.network),))
    founding = Founding(root.seed, root.certificate, issuer, network)
    return write_founded(
        home,
        founding,
        domain=read_root(root.certificate).name,
        name=name,
        country=country,
        listen=listen,
        passphrase=passphrase,
        entropy=entropy,
        now=now,
        facts=facts_of(joined),
        extra={"static_peers": static_peers(ticket)},
    )
