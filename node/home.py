"""The home directory: made by `init`, `join` or `testnet`; its keys opened at every start. Synchronous but for joining."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocols.codec import Record, decode, encode, replace
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.errors import DecodeError, InvalidObject, InvalidTransaction, LadingError, Reason, UsageError
from protocols.files.keys import OwnerSecrets
from protocols.gossip.facts import FactKind, fact_id
from protocols.identity.certificates import (
    chain_validity,
    fingerprint,
    is_name,
    make_issuer,
    make_member,
    make_node,
    make_root,
    verify_chain,
)
from protocols.identity.fences import founding_fence
from protocols.identity.keyfiles import (
    ChainKey,
    IssuerKey,
    MemberKey,
    NetworkKey,
    NodeKey,
    RootKey,
    is_protected,
    key_file,
    open_key_file,
    seal_key_file,
)
from protocols.identity.kit import domain_root, kit_text, recovery_kit
from protocols.identity.members import member_id
from protocols.identity.networks import Network, network_id
from protocols.identity.peers import peer_id_of, peer_id_text
from protocols.ledger.block import Block
from protocols.ledger.envelope import ZERO_CHAIN
from protocols.types import AccountId, MemberId, NetworkId
from storage.engine import Env, Put, Snapshot, Write
from storage.folders import sync_folder
from storage.lmdb_engine import LmdbEngine
from storage.migrations import migrate
from storage.tables import FACTS, HELD_FACTS

from . import config
from .chain_founding import SEATS, Founder, found_chain
from .chain_home import ChainFile, chain_files, file_of_first
from .chain_keys import fresh_chain_key, recovery_key
from .clock import SystemClock
from .entropy import Entropy, SystemEntropy
from .own import IssuerKeys, MemberKeys, OwnKeys

IDENTITY_FOLDER = "identity"
LEDGER_FOLDER = "ledger.lmdb"
CHUNKS_FOLDER = "chunks.lmdb"
WRITTEN_BY = "lading 0.1.0"

ROOT_LIFETIME_S = 20 * 365 * 86400
ISSUER_LIFETIME_S = 10 * 365 * 86400
MEMBER_LIFETIME_S = 2 * 365 * 86400
NODE_LIFETIME_S = 365 * 86400
# Boards without a clock battery boot a little in the past; a certificate made by a neighbour must hold at once.
NOT_BEFORE_MARGIN_S = 300
FOUNDER_NODES_MAX = 64
FOUNDER_WEIGHT_MAX = 6400
# Of a test network; a pool takes so many from one account that a few hundred fill it.
SIGNERS_MAX = 256
SIGNERS_FOLDER = "signers"
NODE_WEIGHT = 100
LEDGER_BUDGET_BYTES = 16 * 1024**3
LEDGER_RESERVE_BYTES = 8 * 1024**2

Passphrase = bytes | None | Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Founding:
    """What exists while a domain is being founded or others are let in by hand: never written as a whole."""

    root_seed: bytes
    root: bytes
    issuer: IssuerKey
    network: NetworkKey


# --- writing ------------------------------------------------------------------------------------------------------


def _prepare(home: Path) -> None:
    """A folder that is empty or new. Raises LadingError(CONFLICT) when it already is a home."""
    if (home / config.FILE_NAME).exists() or (home / IDENTITY_FOLDER).exists():
        raise LadingError(Reason.CONFLICT, f"{home} already is the home of a node", hint="choose another --home")
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / IDENTITY_FOLDER).mkdir(mode=0o700)
        for folder in ("logs", "backup"):
            (home / folder).mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise LadingError(Reason.FAILED, f"{home} cannot be made: {error.strerror}") from error
    migrate(home, written_by=WRITTEN_BY)


def _write_key(
    home: Path, name: str, content: IssuerKey | MemberKey | NodeKey | NetworkKey, passphrase: bytes | None, entropy: Entropy
) -> None:
    data = seal_key_file(key_file(content), passphrase, salt=entropy.token(16), nonce=entropy.token(12))
    write_private(home / IDENTITY_FOLDER / f"{name}.key", data)


def write_private(path: Path, data: bytes) -> None:
    """Mode 0600, whole or not at all, durable."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def _write_chain(home: Path, chain: ChainFile, key: ChainKey | None, passphrase: bytes | None, entropy: Entropy) -> None:
    """Which chain this home follows, and with which keys."""
    for file in chain_files(chain, key, passphrase, entropy):
        write_private(home / IDENTITY_FOLDER / file.name, file.data)


def _write_config(home: Path, *, name: str, country: str, listen: Sequence[str], extra: Mapping[str, object]) -> None:
    path = home / config.FILE_NAME
    for key, value in {"name": name, "country": country, "listen": tuple(listen), **extra}.items():
        if value not in ("", ()):
            config.set_key(path, key, value)


def _host_label(name: str) -> str:
    label = name or socket.gethostname() or "node"
    return label if is_name(label) else "node"


def found_domain(domain: str, entropy: Entropy, now: int) -> Founding:
    """Root, issuer, network and its first fence. Raises UsageError for a name that cannot stand in a certificate."""
    root_key = make_domain(domain, entropy, now)
    root, issuer = root_key.certificate, certify_issuer(root_key, entropy, now)
    identifier = network_id(fingerprint(root), entropy.token(32))
    fence = founding_fence(root_key.seed, root, identifier)
    network = NetworkKey(id=identifier, name=domain, roots=(root,), fences=(fence,))
    return Founding(root_key.seed, root, issuer, network)


def make_domain(domain: str, entropy: Entropy, now: int) -> RootKey:
    """The root of a new domain. Raises UsageError for a name that cannot stand in a certificate."""
    if not is_name(domain):
        raise UsageError(f"--domain {domain!r}: 1 to 64 bytes of printable text wanted")
    key = SigningKey(entropy.token(32))
    begins = now - NOT_BEFORE_MARGIN_S
    root = make_root(key, domain, serial=entropy.token(16), not_before=begins, not_after=begins + ROOT_LIFETIME_S)
    return RootKey(seed=key.seed, certificate=root)


def certify_issuer(root: RootKey, entropy: Entropy, now: int) -> IssuerKey:
    """The first issuing key of a domain."""
    seed, hpke_seed = entropy.token(32), entropy.token(32)
    begins = now - NOT_BEFORE_MARGIN_S
    certificate = make_issuer(
        SigningKey(root.seed),
        root.certificate,
        issuer_public=SigningKey(seed).public,
        hpke_public=HpkePrivateKey(hpke_seed).public,
        serial=entropy.token(16),
        not_before=begins,
        not_after=begins + ISSUER_LIFETIME_S,
    )
    return IssuerKey(seed=seed, hpke_seed=hpke_seed, chain=(certificate,))


def certify_member(founding: Founding, name: str, entropy: Entropy, now: int, *, nodes_max: int, weight_max: int) -> MemberKey:
    """A new member with its secrets, certified by the issuer."""
    if not is_name(name):
        raise UsageError(f"--name {name!r}: 1 to 64 bytes of printable text wanted")
    seed, hpke_seed, root_secret, salt = (entropy.token(32) for _ in range(4))
    real_id = name.encode()
    begins = now - NOT_BEFORE_MARGIN_S
    certificate = make_member(
        SigningKey(founding.issuer.seed),
        founding.issuer.chain[0],
        member_id=member_id(real_id, salt),
        signing_public=SigningKey(seed).public,
        hpke_public=HpkePrivateKey(hpke_seed).public,
        name=name,
        nodes_max=nodes_max,
        weight_total_max=weight_max,
        serial=entropy.token(16),
        not_before=begins,
        not_after=begins + MEMBER_LIFETIME_S,
    )
    chain = (certificate, *founding.issuer.chain)
    return MemberKey(seed=seed, hpke_seed=hpke_seed, root_secret=root_secret, real_id=real_id, salt=salt, chain=chain)


def certify_node(member: MemberKey, host: str, entropy: Entropy, now: int, *, seed: bytes | None = None) -> NodeKey:
    """A new node of a member."""
    seed = seed or entropy.token(32)
    key = SigningKey(seed)
    begins = now - NOT_BEFORE_MARGIN_S
    certificate = make_node(
        SigningKey(member.seed),
        member.chain[0],
        peer_id=peer_id_of(key.public),
        node_public=key.public,
        host_label=host,
        weight=NODE_WEIGHT,
        holder_only=False,
        serial=entropy.token(16),
        not_before=begins,
        not_after=begins + NODE_LIFETIME_S,
    )
    return NodeKey(seed=seed, chain=(certificate, *member.chain))


def recovery_kit_text(founding: Founding | None, network: NetworkKey, member: MemberKey, name: str) -> str:
    """The kit that brings a member, and the domain that it founded if it did, back when all its machines are gone."""
    return kit_text(
        recovery_kit(
            network_id=network.id,
            domain=domain_root(founding.root_seed, founding.root) if founding is not None else None,
            member_name=name,
            member_seed=member.seed,
            hpke_seed=member.hpke_seed,
            root_secret=member.root_secret,
            real_id=member.real_id,
            salt=member.salt,
            founder=network.roots[0] if founding is not None and network.roots[0] != founding.root else b"",
        )
    )


def init_home(
    home: Path,
    *,
    domain: str,
    name: str | None,
    country: str | None,
    listen: Sequence[str],
    passphrase: bytes | None,
) -> dict[str, object]:
    """A new home that founds a domain, and with it a network. Result: ids, and the recovery kit, which is nowhere else.

    Raises UsageError, Refused, LadingError(CONFLICT) when there is a home already.
    """
    entropy, now = SystemEntropy(), int(SystemClock().now())
    founding = found_domain(domain, entropy, now)
    return write_founded(
        home, founding, domain=domain, name=name, country=country, listen=listen, passphrase=passphrase, entropy=entropy, now=now
    )


def write_founded(
    home: Path,
    founding: Founding,
    *,
    domain: str,
    name: str | None,
    country: str | None,
    listen: Sequence[str],
    passphrase: bytes | None,
    entropy: Entropy,
    now: int,
    facts: Sequence[tuple[int, bytes]] = (),
    extra: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The first home of a domain, of a new member. facts: (kind, body) known from the start; extra: settings. Result: as ``init_home``."""
    label = _host_label(name or "")
    member = certify_member(founding, name or domain, entropy, now, nodes_max=FOUNDER_NODES_MAX, weight_max=FOUNDER_WEIGHT_MAX)
    node = certify_node(member, label, entropy, now)
    _prepare(home)
    _write_key(home, "issuer", founding.issuer, passphrase, entropy)
    _write_key(home, "member", member, passphrase, entropy)
    _write_key(home, "node", node, passphrase, entropy)
    _write_key(home, "network", founding.network, passphrase, entropy)
    seat = fresh_chain_key(ZERO_CHAIN, entropy)
    first = _first_block(founding, [Founder(member, seat)], domain, entropy, now, country=country or "")
    _write_chain(home, file_of_first(first), replace(seat, chain=first.info.chain), passphrase, entropy)
    _write_config(home, name=label, country=country or "", listen=listen, extra=extra or {})
    with_ledger(home, facts)
    own = open_home(home, passphrase)
    return {
        "home": str(home),
        "node": label,
        "peer_id": peer_id_text(own.peer_id),
        "member": own.member_id.hex(),
        "domain": domain,
        "domain_id": own.domain_id.hex(),
        "network": own.network_id.hex(),
        "protected": passphrase is not None,
        "recovery_kit": recovery_kit_text(founding, founding.network, member, name or domain),
    }


def _first_block(
    founding: Founding,
    founders: Sequence[Founder],
    domain: str,
    entropy: Entropy,
    now: int,
    *,
    country: str,
    clocks: Mapping[str, int] | None = None,
) -> Block:
    """The domain's chain begins: the first founder lets others in; lost voting keys are replaced with the founder's kit."""
    root_id = fingerprint(founding.root)
    first = founders[0].member
    return found_chain(
        founders,
        network=NetworkId(founding.network.id),
        domain=root_id,
        root=founding.root,
        name=domain,
        country=country,
        managers={AccountId(member_id(first.real_id, first.salt))},
        recovery=(recovery_key(founding.root_seed, root_id).public,),
        now=now,
        salt=entropy.token(32),
        profile=clocks or {},
    )


def write_issuer(home: Path, issuer: IssuerKey, passphrase: bytes | None, entropy: Entropy) -> None:
    """The issuing key of this home from now on."""
    _write_key(home, "issuer", issuer, passphrase, entropy)


def write_joined(
    home: Path,
    *,
    network: NetworkKey,
    member: MemberKey | None,
    node: NodeKey,
    name: str,
    listen: Sequence[str],
    passphrase: bytes | None,
    facts: Sequence[tuple[int, bytes]],
    entropy: Entropy,
    extra: Mapping[str, object] | None = None,
    chain: ChainFile | None = None,
    seat: ChainKey | None = None,
) -> None:
    """A home from what an admission brought; facts: (kind, body) known from the start (address book, revocations).

    chain: that of its domain. seat: what it seals and votes with there; None only follows.
    """
    _prepare(home)
    if member is not None:
        _write_key(home, "member", member, passphrase, entropy)
    _write_key(home, "node", node, passphrase, entropy)
    _write_key(home, "network", network, passphrase, entropy)
    if chain is not None:
        _write_chain(home, chain, seat, passphrase, entropy)
    _write_config(home, name=name, country="", listen=listen, extra=extra or {})
    with_ledger(home, facts)


def with_ledger(home: Path, facts: Sequence[tuple[int, bytes]]) -> None:
    """Puts facts into a home's database while no node runs on it."""
    if not facts:
        return
    engine = LmdbEngine(home / LEDGER_FOLDER, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)
    try:
        engine.write([Put(FACTS, fact_id(kind, body), bytes([kind]) + body) for kind, body in facts])
    finally:
        engine.close()


HELD_KINDS = frozenset({FactKind.STATEMENT, FactKind.TOMBSTONE})


def hold_back_facts(home: Path) -> int:
    """Puts all statements and tombstones of a home into quarantine while no node runs on it: each counts again when another node shows
    that it knows it, or its owner re-affirms it (RECORDS, Going away). Result: how many there are."""
    engine = LmdbEngine(home / LEDGER_FOLDER, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)
    try:
        with engine.snapshot() as snapshot:
            held = held_back(snapshot)
        engine.write(held)
    finally:
        engine.close()
    return len(held)


def held_back(snapshot: Snapshot) -> list[Write]:
    """What to write to hold back every statement and tombstone."""
    return [Put(HELD_FACTS, key, value[:1]) for key, value in snapshot.scan(FACTS) if value[0] in HELD_KINDS]


def write_rejoined(
    home: Path,
    *,
    network: NetworkKey,
    member: MemberKey | None,
    node: NodeKey,
    passphrase: Passphrase,
    chain: ChainFile | None = None,
    seat: ChainKey | None = None,
) -> None:
    """Newer certificates and fences over those of an existing home, protected as its keys are. chain: one that it did not know before."""
    protected = is_protected((home / IDENTITY_FOLDER / "node.key").read_bytes())
    secret = (passphrase() if callable(passphrase) else passphrase) if protected else None
    entropy = SystemEntropy()
    # The network last: until it is there, the node still knows only its old fences and asks for a ticket again.
    if member is not None:
        _write_key(home, "member", member, secret, entropy)
    _write_key(home, "node", node, secret, entropy)
    if chain is not None:
        _write_chain(home, chain, seat, secret, entropy)
    _write_key(home, "network", network, secret, entropy)


# --- opening ------------------------------------------------------------------------------------------------------


def _read_key(home: Path, name: str, passphrase: Passphrase) -> IssuerKey | MemberKey | NodeKey | NetworkKey | None:
    path = home / IDENTITY_FOLDER / f"{name}.key"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LadingError(Reason.FAILED, f"{path}: {error.strerror}") from error
    secret = passphrase() if callable(passphrase) and is_protected(data) else passphrase
    assert not callable(secret) or not is_protected(data)
    content = open_key_file(data, None if callable(secret) else secret).content
    assert isinstance(content, IssuerKey | MemberKey | NodeKey | NetworkKey)
    return content


def asked_once(passphrase: Passphrase) -> Passphrase:
    """A prompt that is answered once serves all key files."""
    if not callable(passphrase):
        return passphrase
    answers: list[bytes] = []

    def ask() -> bytes:
        if not answers:
            answers.append(passphrase())
        return answers[0]

    return ask


def open_home(home: Path, passphrase: Passphrase) -> OwnKeys:
    """The node's keys. passphrase: the passphrase, None, or a function that is asked when a file turns out to be protected.

    Raises LadingError(NOT_INITIALISED), InvalidObject(WRONG_PASSPHRASE | INTEGRITY | BAD_CERTIFICATE).
    """
    passphrase = asked_once(passphrase)
    node = _read_key(home, "node", passphrase)
    network = _read_key(home, "network", passphrase)
    if node is None or network is None:
        raise LadingError(
            Reason.NOT_INITIALISED, f"{home} is not the home of a node", hint="lading init --domain NAME   or   lading join TICKET"
        )
    if not isinstance(node, NodeKey) or not isinstance(network, NetworkKey):
        raise InvalidObject(Reason.INTEGRITY, "the key files are not what their names say")
    member = _read_key(home, "member", passphrase)
    issuer = _read_key(home, "issuer", passphrase)
    roots = {fingerprint(root): root for root in network.roots}
    # Starting never depends on the validity of a certificate: whoever is expired still serves what it holds and can renew.
    identity = verify_chain(node.chain, roots, now=_issued_at(node), revocations=None)
    return OwnKeys(
        network=Network(format=1, suite=1, id=network.id, name=network.name),
        domain_id=identity.domain_id,
        roots=roots,
        node=SigningKey(node.seed),
        node_chain=node.chain,
        identity=identity,
        member=_member_keys(member),
        issuer=_issuer_keys(issuer),
        fences=network.fences,
    )


def _issued_at(node: NodeKey) -> int:
    """A time at which the chain was valid: now, or if it has ended the last second of it."""
    not_before, not_after = chain_validity(node.chain)
    return max(not_before, min(int(SystemClock().now()), not_after - 1))


def _member_keys(member: object) -> MemberKeys | None:
    if not isinstance(member, MemberKey):
        return None
    return MemberKeys(SigningKey(member.seed), HpkePrivateKey(member.hpke_seed), OwnerSecrets(member.root_secret), member.chain)


def _issuer_keys(issuer: object) -> IssuerKeys | None:
    if not isinstance(issuer, IssuerKey):
        return None
    return IssuerKeys(SigningKey(issuer.seed), HpkePrivateKey(issuer.hpke_seed), issuer.chain)


def member_key_file(home: Path, passphrase: Passphrase) -> MemberKey | None:
    """The member's key file, for an admission of its further node."""
    member = _read_key(home, "member", asked_once(passphrase))
    return member if isinstance(member, MemberKey) else None


# --- keys as a file -----------------------------------------------------------------------------------------------


class _KeyBundle(Record, frozen=True):
    """An exported file: key files as they lie in a home, each under its own protection. parts: (name, bytes of the file)."""

    magic: str
    format: int
    parts: tuple[tuple[str, bytes], ...]


BUNDLE_MAGIC = "lading-keys"
BUNDLE_BYTES_MAX = 1024 * 1024
EXPORTED = ("member", "issuer")


def export_keys(home: Path, target: Path, *, passphrase: Passphrase) -> dict[str, object]:
    """The member's keys, and the domain's issuing key where this home has one, as one file under the same protection.

    With it the member's records can be read, and newcomers let in, from another machine. Raises LadingError(NOT_FOUND) on a
    holder-only node.
    """
    passphrase = asked_once(passphrase)
    parts: list[tuple[str, bytes]] = []
    for name in EXPORTED:
        source = home / IDENTITY_FOLDER / f"{name}.key"
        if source.exists():
            _read_key(home, name, passphrase)  # what cannot be opened is no backup
            parts.append((name, source.read_bytes()))
    if not parts:
        raise LadingError(Reason.NOT_FOUND, "this home has no member's keys", hint="export them on the member's full node")
    try:
        write_private(target, encode(_KeyBundle(BUNDLE_MAGIC, 1, tuple(parts))))
    except OSError as error:
        raise LadingError(Reason.FAILED, f"{target}: {error.strerror}") from error
    return {"file": str(target), "keys": [name for name, _ in parts], "protected": all(is_protected(data) for _, data in parts)}


def import_keys(home: Path, source: Path, *, passphrase: Passphrase) -> dict[str, object]:
    """Keys from an exported file into this home: what it lacks. Raises LadingError(CONFLICT) when it has others of every kind."""
    if not (home / IDENTITY_FOLDER).is_dir():
        raise LadingError(Reason.NOT_INITIALISED, f"{home} is not the home of a node", hint="lading join TICKET first")
    try:
        bundle = decode(source.read_bytes(), _KeyBundle, bytes_max=BUNDLE_BYTES_MAX)
    except DecodeError as error:
        raise InvalidObject(Reason.INTEGRITY, f"{source} is no file of exported keys") from error
    if bundle.magic != BUNDLE_MAGIC or bundle.format != 1 or any(name not in EXPORTED for name, _ in bundle.parts):
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"{source} is of a kind that this version does not read")
    passphrase = asked_once(passphrase)
    taken: list[str] = []
    other: list[str] = []
    for name, data in bundle.parts:
        secret = passphrase() if callable(passphrase) and is_protected(data) else passphrase
        content = open_key_file(data, None if callable(secret) else secret).content
        if not isinstance(content, MemberKey if name == "member" else IssuerKey):
            raise InvalidObject(Reason.INTEGRITY, f"{source} does not hold what it says")
        target = home / IDENTITY_FOLDER / f"{name}.key"
        if target.exists() and target.read_bytes() != data:
            other.append(name)
            continue
        write_private(target, data)
        taken.append(name)
    if not taken:
        raise LadingError(Reason.CONFLICT, f"this home has its own {' and '.join(other)} keys already", hint="use a new home")
    return {"file": str(source), "keys": taken, "kept_own": other}


# --- a network on one machine -------------------------------------------------------------------------------------


def make_testnet(
    count: int,
    directory: Path,
    *,
    names: Sequence[str] | None = None,
    folders: Sequence[str] | None = None,
    signers: int = 0,
    clocks: Mapping[str, int] | None = None,
) -> dict[str, object]:
    """Homes of one domain founded by the first, each node its own member, loopback ports chosen free, no passphrase; and start.sh.

    signers: members without a node, whose keys go into ``directory/signers``: they sign for themselves (`lading ledger submit`).
    clocks: fields of the chain's profile that differ from the default one.
    """
    if not 1 <= count <= 100:
        raise UsageError(f"{count} nodes, 1 to 100 wanted")
    if not 0 <= signers <= SIGNERS_MAX:
        raise UsageError(f"{signers} signers, at most {SIGNERS_MAX} wanted")
    entropy, now = SystemEntropy(), int(SystemClock().now())
    chosen = [(names or ())[i] if names else f"n{i + 1}" for i in range(count)]
    places = [directory / (folders[i] if folders else f"n{i + 1}") for i in range(count)]
    founding = found_domain("testnet", entropy, now)
    ports = _free_ports(count)
    nodes: list[NodeKey] = []
    members: list[MemberKey] = []
    for name in chosen:
        member = certify_member(founding, name, entropy, now, nodes_max=FOUNDER_NODES_MAX, weight_max=FOUNDER_WEIGHT_MAX)
        members.append(member)
        nodes.append(certify_node(member, name, entropy, now))
    peers = [
        f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id_text(peer_id_of(SigningKey(node.seed).public))}"
        for port, node in zip(ports, nodes, strict=True)
    ]
    seats = [fresh_chain_key(ZERO_CHAIN, entropy) if index < SEATS else None for index in range(count)]
    founders = [Founder(member, seat) for member, seat in zip(members, seats, strict=True)]
    signing = [
        certify_member(founding, f"s{number}", entropy, now, nodes_max=FOUNDER_NODES_MAX, weight_max=FOUNDER_WEIGHT_MAX)
        for number in range(1, signers + 1)
    ]
    founders += [Founder(member, None) for member in signing]
    try:
        first = _first_block(founding, founders, "testnet", entropy, now, country="", clocks=clocks or {})
    except InvalidTransaction as error:
        raise UsageError(f"no chain can be so: {error.message}") from error
    chain = file_of_first(first)
    rows: list[dict[str, object]] = []
    for index, (home, name) in enumerate(zip(places, chosen, strict=True)):
        seat = seats[index]
        # Everybody knows the founder, and the founder nobody: the rest is told by announcements.
        extra: dict[str, object] = {"mdns": False, "static_peers": (peers[0],) if index else ()}
        listen = (f"/ip4/127.0.0.1/tcp/{ports[index]}",)
        write_joined(
            home,
            network=founding.network,
            member=members[index],
            node=nodes[index],
            name=name,
            listen=listen,
            passphrase=None,
            facts=(),
            entropy=entropy,
            extra=extra,
            chain=chain,
            seat=replace(seat, chain=chain.chain) if seat is not None else None,
        )
        if index == 0:
            _write_key(home, "issuer", founding.issuer, None, entropy)
        rows.append({"node": name, "home": str(home), "listen": list(listen), "member": _id_of(members[index]).hex()})
    if signing:
        (directory / SIGNERS_FOLDER).mkdir(mode=0o700)
    for member in signing:
        sealed = seal_key_file(key_file(member), None, salt=entropy.token(16), nonce=entropy.token(12))
        write_private(directory / SIGNERS_FOLDER / f"{member.real_id.decode()}.key", sealed)
    script = directory / "start.sh"
    script.write_text(_start_script(places))
    script.chmod(0o755)
    return {"directory": str(directory), "nodes": rows, "start": str(script)}


def slot_clocks(slot_ms: int) -> dict[str, int]:
    """The clocks of a chain's profile that follow from the length of its slots, as the default ones do."""
    return {"slot_ms": slot_ms, "drift_ms_max": max(1, slot_ms // 4), "late_ms": slot_ms}


def _id_of(member: MemberKey) -> MemberId:
    return member_id(member.real_id, member.salt)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _start_script(homes: Sequence[Path]) -> str:
    names = " ".join(f'"{home.resolve()}"' for home in homes)
    return f"""#!/bin/sh
# Starts all nodes of this test network and returns when every one is ready. Stop them with: lading --home HOME stop
set -eu
for home in {names}; do
    lading --home "$home" start --json >"$home/logs/start.out" 2>"$home/logs/start.err" </dev/null &
done
for home in {names}; do
    tries=0
    until grep -q '"ready": *true' "$home/logs/start.out" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ]; then
            echo "$home did not become ready:" >&2
            tail -n 20 "$home/logs/start.err" >&2
            exit 7
        fi
        sleep 0.1
    done
    echo "$home ready"
done
"""


def first_facts(own: OwnKeys) -> tuple[tuple[FactKind, bytes], ...]:
    """What a home knows before its database does: the fences of its key file."""
    return tuple((FactKind.FENCE, encode(fence)) for fence in own.fences)
