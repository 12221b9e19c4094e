"""`lading join`: one short life of a transport, with a ticket's join secret as the fence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from protocols.codec import encode
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.effects import Close, Send
from protocols.errors import DecodeError, LadingError, Reason, Refused, RemoteError, UsageError
from protocols.gossip.facts import FactKind
from protocols.identity.attested import KnownFence
from protocols.identity.keyfiles import ChainKey, MemberKey, NetworkKey, NodeKey, decode_key_file
from protocols.identity.kit import RecoveryKit, parse_kit, recovery_kit
from protocols.identity.members import member_id
from protocols.identity.peers import peer_id_text
from protocols.identity.tickets import ROLE_DOMAIN, ROLE_MEMBER, Ticket, decode_ticket, ticket_preshared_key
from protocols.join import machine as j
from protocols.limits import JOIN_ATTEMPTS_MAX
from protocols.registry import decode_message, encode_message
from protocols.types import ChainId, MemberId, NetworkId, PeerId
from storage.lock import HomeLock

from .chain_home import ChainFile, file_of_anchor, read_chain_file
from .chain_keys import fresh_chain_key
from .clock import Clock, SystemClock
from .config import FILE_NAME
from .entropy import Entropy, SystemEntropy
from .home import (
    Passphrase,
    asked_once,
    certify_node,
    hold_back_facts,
    member_key_file,
    open_home,
    recovery_kit_text,
    with_ledger,
    write_joined,
    write_rejoined,
)
from .own import OwnKeys
from .services import JOIN
from .transport.port import DialFailed, PresharedKey, StreamBroken, StreamEnded, Transport

DIAL_TIMEOUT_S = 10.0
# Keys of an attempt whose answer was lost: the same ticket with the same keys gets the same certificate again.
PENDING_SUFFIX = ".joining"

Progress = Callable[[Mapping[str, object]], None]


def join_home(
    home: Path,
    ticket_text: str,
    *,
    name: str | None,
    listen: Sequence[str],
    passphrase: bytes | None,
    on_progress: Progress,
    kit_text: str | None = None,
) -> dict[str, object]:
    """Makes ``home`` with what the ticket's domain gives. Keys are made here; what others get to know is public halves.

    kit_text: of a member whose machines are gone: he comes back as himself, with his own keys. Raises LadingError with the
    domain's reason, CONFLICT when there is a home already, DecodeError naming the mistyped line of the kit.
    """
    if (home / FILE_NAME).exists():
        raise LadingError(Reason.CONFLICT, f"{home} already is the home of a node", hint="choose another --home")
    from .transport.libp2p.transport import Libp2pTransport  # the wire is loaded only by those who use it

    entropy, clock = SystemEntropy(), SystemClock()
    ticket = read_ticket(ticket_text, now=int(clock.now()))
    if ticket.role == ROLE_DOMAIN:
        raise UsageError("this ticket is for a domain of its own", hint="lading init --domain NAME --network TICKET")
    kit = parse_kit(kit_text) if kit_text is not None else None
    if kit is not None:
        _check_kit_fits(kit, ticket)
    label = name or "node"
    keys = _pending_keys(home, ticket, entropy, kit)
    transport = Libp2pTransport(keys.node_seed, NetworkId(ticket.network_id), [])

    async def main() -> j.Joined:
        return await ask_to_join(transport, ticket, keys, label, entropy, clock, on_progress)

    joined = trio.run(main)
    data = write_admitted(home, ticket, joined, keys, label, listen, passphrase, entropy, int(clock.now()))
    keys.forget()
    return data


def join_again(home: Path, ticket_text: str, *, passphrase: Passphrase, on_progress: Progress) -> dict[str, object]:
    """A home that was away longer than its network remembers comes back with a ticket: same keys, new certificates and fences. What it
    knows of records is in quarantine until others show that they know it too. Raises LadingError with the domain's reason, Refused
    (LOCKED | WRONG_NETWORK | WRONG_DOMAIN), UsageError for a ticket of the other role."""
    from .transport.libp2p.transport import Libp2pTransport

    entropy, clock = SystemEntropy(), SystemClock()
    ticket = read_ticket(ticket_text, now=int(clock.now()))
    if ticket.role == ROLE_DOMAIN:
        raise UsageError("this ticket is for a domain of its own", hint="lading invite   or   lading invite --node")
    passphrase = asked_once(passphrase)
    with HomeLock(home):
        own = open_home(home, passphrase)
        member = member_key_file(home, passphrase)
        if ticket.network_id != own.network_id or ticket.domain_id != own.domain_id:
            wrong = Reason.WRONG_NETWORK if ticket.network_id != own.network_id else Reason.WRONG_DOMAIN
            raise Refused(wrong, "home and ticket do not belong together", hint="a ticket of this home's own domain is wanted")
        if (ticket.role == ROLE_MEMBER) != (member is not None):
            flag = "" if member is not None else " --node"
            raise UsageError(f"a ticket for a {ticket.role} does not fit this home", hint=f"lading invite{flag}")
        transport = Libp2pTransport(own.node.seed, own.network_id, [])
        keys = _own_keys(own, member, entropy)

        async def main() -> j.Joined:
            return await ask_to_join(transport, ticket, keys, own.identity.host, entropy, clock, on_progress)

        joined = trio.run(main)
        if member is not None:
            member = member.with_chain(joined.chain)
            node = certify_node(member, own.identity.host, entropy, int(clock.now()), seed=own.node.seed)
        else:
            node = NodeKey(seed=own.node.seed, chain=joined.chain)
        held = hold_back_facts(home)
        network = first_network(joined, name=own.network.name)
        with_ledger(home, facts_of(joined))
        chain, seat = _chain_of(joined, ticket, entropy) if read_chain_file(home) is None else (None, None)
        write_rejoined(home, network=network, member=member, node=node, passphrase=passphrase, chain=chain, seat=seat)
    return {"home": str(home), "node": own.identity.host, "member": own.member_id.hex(), "held_back": held}


def _own_keys(own: OwnKeys, member: MemberKey | None, entropy: Entropy) -> PendingKeys:
    """The keys of a home that asks again."""
    if member is None:
        return PendingKeys(None, [own.node.seed, *(entropy.token(32) for _ in range(4))])
    kit = recovery_kit(
        network_id=own.network_id,
        domain=None,
        member_name=own.identity.member,
        member_seed=member.seed,
        hpke_seed=member.hpke_seed,
        root_secret=member.root_secret,
        real_id=member.real_id,
        salt=member.salt,
    )
    return PendingKeys(None, [own.node.seed, member.hpke_seed, member.seed, member.root_secret, member.salt], kit)


def read_ticket(text: str, *, now: int) -> Ticket:
    """Raises LadingError(TICKET_ALTERED | TICKET_EXPIRED | UNKNOWN_FORMAT)."""
    try:
        ticket = decode_ticket(text)
    except DecodeError as error:
        raise LadingError(error.reason, error.message, hint="ask for a new one: lading invite") from error
    if now > ticket.expires:
        raise LadingError(Reason.TICKET_EXPIRED, "this ticket has expired", hint="ask for a new one: lading invite")
    return ticket


def first_network(joined: j.Joined, *, name: str = "", further_fences: tuple[KnownFence, ...] = ()) -> NetworkKey:
    """What the network's key file holds at first: of the roots the founding domain's, then ours if it is another."""
    roots = tuple(dict.fromkeys((joined.founder, joined.domain_root)))
    return NetworkKey(id=joined.network, name=name, roots=roots, fences=(*joined.fences.fences, *further_fences))


def facts_of(joined: j.Joined) -> list[tuple[int, bytes]]:
    """What an admission told of the network, as facts for the new home."""
    facts: list[tuple[int, bytes]] = [(FactKind.DOMAIN, encode(entry.attested)) for entry in joined.domains]
    facts += [(FactKind.REVOCATION, encode(entry)) for entry in joined.revocations.entries]
    facts += [(FactKind.ANNOUNCEMENT, encode(entry.signed)) for entry in joined.address_book.entries]
    return facts


def static_peers(ticket: Ticket) -> tuple[str, ...]:
    """Whom to dial first: where the ticket was made."""
    return tuple(f"{address.multiaddr}/p2p/{peer_id_text(PeerId(address.peer_id))}" for address in ticket.addresses)


class PendingKeys:
    """Keys made for one attempt, on disk until it has worked. member: signing, HPKE, root secret, salt. kit: where those come from
    when the member is not a new one."""

    def __init__(self, path: Path | None, seeds: Sequence[bytes], kit: RecoveryKit | None = None) -> None:
        self.path = path
        self.kit = kit
        self.node_seed, self.hpke_seed, self.member_seed, self.root_secret, self.salt = seeds

    def member_name(self, label: str) -> str:
        """What the member is called: as in his kit, else like its first node."""
        return self.kit.member_name if self.kit is not None else label

    def real_id(self, label: str) -> bytes:
        """What the member id is derived from."""
        return self.kit.real_id if self.kit is not None else label.encode()

    def forget(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _check_kit_fits(kit: RecoveryKit, ticket: Ticket) -> None:
    """Raises Refused(WRONG_NETWORK), UsageError."""
    if kit.network_id != ticket.network_id:
        raise Refused(
            Reason.WRONG_NETWORK, "kit and ticket are of different networks", hint="ask a member of the kit's network for a ticket"
        )
    if ticket.role != ROLE_MEMBER:
        raise UsageError("this ticket brings a further node of another member", hint="ask for a member's ticket: lading invite")


def _pending_keys(home: Path, ticket: Ticket, entropy: Entropy, kit: RecoveryKit | None = None) -> PendingKeys:
    """The keys of an earlier attempt with this ticket, else new ones, written down before anything is sent."""
    path = home.with_name(home.name + PENDING_SUFFIX)
    try:
        data = path.read_bytes()
        if data[:16] == ticket.ticket_id and len(data) == 16 + 5 * 32:
            return PendingKeys(path, [data[16 + 32 * i : 48 + 32 * i] for i in range(5)], kit)
    except FileNotFoundError:
        pass
    seeds = [entropy.token(32) for _ in range(5)]
    if kit is not None:
        seeds[1:] = [kit.hpke_seed, kit.member_seed, kit.root_secret, kit.salt]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(ticket.ticket_id + b"".join(seeds))
    return PendingKeys(path, seeds, kit)


async def ask_to_join(
    transport: Transport, ticket: Ticket, keys: PendingKeys, label: str, entropy: Entropy, clock: Clock, progress: Progress
) -> j.Joined:
    """Comes in as a member or as a further node. Raises LadingError."""
    is_member = ticket.role == ROLE_MEMBER
    key = SigningKey(keys.member_seed if is_member else keys.node_seed)

    def newcomer() -> j.NewcomerMachine:
        return j.NewcomerMachine(
            ticket=ticket,
            key=key,
            hpke=HpkePrivateKey(keys.hpke_seed),
            member_id=member_id(keys.real_id(label), keys.salt) if is_member else None,
            label=keys.member_name(label) if is_member else label,
            ephemeral_seeds=[entropy.token(32) for _ in range(JOIN_ATTEMPTS_MAX)],
            now=int(clock.now()),
        )

    return await come_in(transport, ticket, newcomer, clock, progress)


async def come_in(
    transport: Transport, ticket: Ticket, newcomer: Callable[[], j.NewcomerMachine], clock: Clock, progress: Progress
) -> j.Joined:
    """Dials the ticket's addresses one after the other until one answers; ``newcomer`` makes the machine for each. Raises LadingError."""
    last = LadingError(Reason.UNREACHABLE, "the ticket names no address")
    psk = PresharedKey("join", ticket.ticket_id, ticket_preshared_key(ticket))
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        for address in ticket.addresses:
            progress({"phase": "joining", "waiting_for": address.multiaddr})
            machine = newcomer()
            try:
                with trio.fail_after(DIAL_TIMEOUT_S):
                    connection = await transport.dial(address.multiaddr, PeerId(address.peer_id), psk)
            except (DialFailed, trio.TooSlowError) as error:
                reason = error.reason if isinstance(error, LadingError) else Reason.TIMEOUT
                if reason is Reason.FENCE:
                    text = "the network does not know this ticket (cancelled, expired, or altered)"
                    last = LadingError(Reason.TICKET_UNKNOWN, text, hint="ask for a new one: lading invite")
                else:
                    last = LadingError(reason, f"{address.multiaddr}: {error}", hint="is a node of that network running?")
                continue
            try:
                connection.trust()  # it knows the ticket's secret, and an admission is longer than a stranger's frame
                joined = await _converse(connection.open_stream, machine, clock)
                await connection.close("joined")
                nursery.cancel_scope.cancel()
                return joined
            except LadingError as error:
                await connection.close(str(error))
                last = error
                if error.reason is Reason.TRUNCATED:
                    hint = "join again with the same ticket: it gives the same certificate"
                    last = LadingError(Reason.UNREACHABLE, f"{address.multiaddr}: the answer was lost on the way", hint=hint)
                elif error.reason not in (Reason.UNREACHABLE, Reason.TIMEOUT):
                    break
        nursery.cancel_scope.cancel()
    raise last


async def _converse(open_stream: Callable[[str], object], machine: j.NewcomerMachine, clock: Clock) -> j.Joined:
    stream = await open_stream(JOIN)  # type: ignore[misc]  # Connection.open_stream
    effects = machine.start(clock.monotonic())
    while True:
        for effect in effects:
            match effect:
                case Send(message):
                    await stream.send(encode_message("join", message))
                case j.Joined():
                    return effect
                case j.JoinFailed(reason, text):
                    raise RemoteError(reason, text)
                case Close():
                    pass
                case _:
                    raise AssertionError(effect)
        wake_at = machine.wake_at()
        event: object = j.Tick()
        with trio.move_on_after(max(0.0, (wake_at or 0.0) - clock.monotonic())):
            try:
                event = decode_message("join", await stream.receive())
            except (StreamEnded, StreamBroken):
                event = j.Ended()
        effects = machine.step(event, clock.monotonic())


def _chain_of(joined: j.Joined, ticket: Ticket, entropy: Entropy) -> tuple[ChainFile | None, ChainKey | None]:
    """The chain that a newcomer was told of, and keys for a seat on it: one node of a member has them, the one that came with it."""
    if joined.anchor is None:
        return None, None
    seat = fresh_chain_key(ChainId(joined.anchor.chain), entropy) if ticket.role == ROLE_MEMBER else None
    return file_of_anchor(joined.anchor), seat


def write_admitted(
    home: Path,
    ticket: Ticket,
    joined: j.Joined,
    keys: PendingKeys,
    label: str,
    listen: Sequence[str],
    passphrase: bytes | None,
    entropy: Entropy,
    now: int,
) -> dict[str, object]:
    """The home of the newcomer. A new member certifies its first node itself."""
    network = first_network(joined)
    member: MemberKey | None
    if ticket.role == ROLE_MEMBER:
        member = MemberKey(
            seed=keys.member_seed,
            hpke_seed=keys.hpke_seed,
            root_secret=keys.root_secret,
            real_id=keys.real_id(label),
            salt=keys.salt,
            chain=joined.chain,
        )
        node = certify_node(member, label, entropy, now, seed=keys.node_seed)
    else:
        given = decode_key_file(joined.member_keys).content if joined.member_keys else None
        member = given if isinstance(given, MemberKey) else None
        node = NodeKey(seed=keys.node_seed, chain=joined.chain)
    chain, seat = _chain_of(joined, ticket, entropy)
    write_joined(
        home,
        network=network,
        member=member,
        node=node,
        name=label,
        listen=listen,
        passphrase=passphrase,
        facts=facts_of(joined),
        entropy=entropy,
        extra={"static_peers": static_peers(ticket)},
        chain=chain,
        seat=seat,
    )
    own = open_home(home, passphrase)
    kit = {}
    if ticket.role == ROLE_MEMBER and keys.kit is None:
        assert member is not None
        kit["recovery_kit"] = recovery_kit_text(None, network, member, keys.member_name(label))
    return {
        "home": str(home),
        "node": label,
        "peer_id": peer_id_text(own.peer_id),
        "member": MemberId(own.member_id).hex(),
        "domain": own.identity.domain,
        "domain_id": own.domain_id.hex(),
        "network": own.network_id.hex(),
        "role": ticket.role,
        "protected": passphrase is not None,
        **kit,
    }
