"""What the recovery kit of a founder does when nothing else is left, or while a node stands still: a new issuing key for the domain, a home
for the founder without anybody's ticket, an issuer put out. The domain's root key comes off the page, signs, and is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protocols.codec import decode, encode
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.errors import InvalidObject, LadingError, Reason, Refused, UsageError
from protocols.gossip.facts import FactKind, fact_id
from protocols.identity.announce import Announcement
from protocols.identity.attested import Attested, KnownFence
from protocols.identity.certificates import ISSUER, chain_validity, fingerprint, make_issuer, make_member, read_root, verify_issuer_chain
from protocols.identity.domains import DomainSet, check_domain
from protocols.identity.fences import CheckedFence, FenceSet, check_fence, founding_fence, sign_fence
from protocols.identity.keyfiles import IssuerKey, MemberKey, NetworkKey, is_protected
from protocols.identity.kit import DomainRoot, RecoveryKit, parse_kit, root_certificate
from protocols.identity.members import member_id
from protocols.identity.peers import peer_id_from_text, peer_id_text
from protocols.identity.revocation import RevocationKind, check_revocation, sign_revocation
from protocols.signed import Signed
from protocols.types import DomainId, NetworkId
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.lock import HomeLock
from storage.tables import FACTS

from .clock import SystemClock
from .entropy import Entropy, SystemEntropy
from .home import (
    FOUNDER_NODES_MAX,
    FOUNDER_WEIGHT_MAX,
    IDENTITY_FOLDER,
    ISSUER_LIFETIME_S,
    LEDGER_BUDGET_BYTES,
    LEDGER_FOLDER,
    LEDGER_RESERVE_BYTES,
    MEMBER_LIFETIME_S,
    NOT_BEFORE_MARGIN_S,
    Passphrase,
    asked_once,
    certify_node,
    open_home,
    with_ledger,
    write_issuer,
    write_joined,
)
from .own import OwnKeys


@dataclass(frozen=True, slots=True, repr=False)
class _Root:
    """A domain's root, out of a kit."""

    key: SigningKey
    certificate: bytes

    @property
    def domain_id(self) -> DomainId:
        return fingerprint(self.certificate)


def _root_of(kit: RecoveryKit) -> _Root:
    """Raises UsageError for the kit of somebody who founded no domain, InvalidObject(INTEGRITY)."""
    domain: DomainRoot | None = kit.domain
    if domain is None:
        raise UsageError("this kit holds no domain's root", hint="the kit that was printed at `lading init` does")
    return _Root(SigningKey(domain.seed), root_certificate(domain))


def new_issuer(root: SigningKey, certificate: bytes, entropy: Entropy, now: int) -> IssuerKey:
    """A new issuing key, certified by the root. A new key each time: whoever has stolen an old one gains nothing by it."""
    seed, hpke_seed = entropy.token(32), entropy.token(32)
    begins = now - NOT_BEFORE_MARGIN_S
    issuer = make_issuer(
        root,
        certificate,
        issuer_public=SigningKey(seed).public,
        hpke_public=HpkePrivateKey(hpke_seed).public,
        serial=entropy.token(16),
        not_before=begins,
        not_after=min(begins + ISSUER_LIFETIME_S, read_root(certificate).not_after),
    )
    return IssuerKey(seed=seed, hpke_seed=hpke_seed, chain=(issuer,))


# --- a home for the founder -------------------------------------------------------------------------------------------


def restore_founder(
    home: Path, text: str, *, peers: Sequence[str], name: str, listen: Sequence[str], passphrase: bytes | None
) -> dict[str, object]:
    """A new home for the founder when no issuer lives that could give a ticket: an issuing key certified by the root from the kit, and the
    founder as the member he was. peers: multiaddrs ending in /p2p/ID of nodes that still run; the network is entered under its founding
    fence. Raises UsageError, LadingError(CONFLICT), DecodeError naming the mistyped line of the kit.
    """
    for peer in peers:
        _check_peer(peer)
    kit = parse_kit(text)
    root = _root_of(kit)
    entropy, now = SystemEntropy(), int(SystemClock().now())
    issuer = new_issuer(root.key, root.certificate, entropy, now)
    begins = now - NOT_BEFORE_MARGIN_S
    certificate = make_member(
        SigningKey(issuer.seed),
        issuer.chain[0],
        member_id=member_id(kit.real_id, kit.salt),
        signing_public=SigningKey(kit.member_seed).public,
        hpke_public=HpkePrivateKey(kit.hpke_seed).public,
        name=kit.member_name,
        nodes_max=FOUNDER_NODES_MAX,
        weight_total_max=FOUNDER_WEIGHT_MAX,
        serial=entropy.token(16),
        not_before=begins,
        not_after=begins + MEMBER_LIFETIME_S,
    )
    member = MemberKey(
        seed=kit.member_seed,
        hpke_seed=kit.hpke_seed,
        root_secret=kit.root_secret,
        real_id=kit.real_id,
        salt=kit.salt,
        chain=(certificate, *issuer.chain),
    )
    network = NetworkId(kit.network_id)
    fence = founding_fence(root.key.seed, root.certificate, network)
    # The network's other domains are known by the word of the one that founded it, which may be another than this.
    roots = tuple(dict.fromkeys((kit.founder or root.certificate, root.certificate)))
    write_joined(
        home,
        network=NetworkKey(id=network, name=read_root(roots[0]).name, roots=roots, fences=(fence,)),
        member=member,
        node=certify_node(member, name, entropy, now),
        name=name,
        listen=listen,
        passphrase=passphrase,
        facts=(),
        entropy=entropy,
        extra={"static_peers": tuple(peers)},
    )
    write_issuer(home, issuer, passphrase, entropy)
    own = open_home(home, passphrase)
    return {
        "home": str(home),
        "node": name,
        "peer_id": peer_id_text(own.peer_id),
        "member": own.member_id.hex(),
        "domain": own.identity.domain,
        "domain_id": own.domain_id.hex(),
        "network": own.network_id.hex(),
        "role": "issuer",
        "protected": passphrase is not None,
    }


def _check_peer(text: str) -> None:
    address, mark, peer = text.rpartition("/p2p/")
    try:
        sound = bool(mark) and address.startswith("/") and bool(peer_id_from_text(peer))
    except LadingError:
        sound = False
    if not sound:
        raise UsageError(f"--peer: got {text!r}, wanted a multiaddr with the node's id, like /ip4/10.0.0.7/tcp/4747/p2p/12D3Koo…")


# --- on a home that stands still --------------------------------------------------------------------------------------


def renew_issuer(home: Path, text: str, *, passphrase: Passphrase) -> dict[str, object]:
    """A new issuing key for the node of this home, which need not have had one. Members come under it as they are renewed; what the old key
    certified stays valid until it ends. Raises UsageError, Refused(LOCKED | WRONG_NETWORK | WRONG_DOMAIN)."""
    passphrase = asked_once(passphrase)
    with HomeLock(home):
        own, root = _opened(home, text, passphrase)
        entropy, now = SystemEntropy(), int(SystemClock().now())
        issuer = new_issuer(root.key, root.certificate, entropy, now)
        protected = is_protected((home / IDENTITY_FOLDER / "node.key").read_bytes())
        secret = passphrase() if callable(passphrase) and protected else passphrase
        write_issuer(home, issuer, secret if isinstance(secret, bytes) and protected else None, entropy)
    ends = chain_validity(issuer.chain, ISSUER)[1]
    return {"home": str(home), "domain": own.identity.domain, "had_one": own.issuer is not None, "not_after": ends}


def revoke_issuer(
    home: Path, text: str, *, serial: str | None, cutoff: int | None, cause: str, passphrase: Passphrase
) -> dict[str, object]:
    """Puts an issuer out, with all that it signed after the cut-off, and rotates the fence: two signed facts in this home's database, told
    to the others when its node runs. serial: hex or a unique beginning; None only lists the issuers that are known here. cutoff: unix
    seconds, now if None. Raises UsageError, Refused, LadingError(NOT_FOUND)."""
    with HomeLock(home):
        own, root = _opened(home, text, asked_once(passphrase))
        facts = _read_facts(home)
        issuers = _known_issuers(own, facts)
        rows = [
            {"issuer": one.hex(), "not_before": begins, "not_after": ends, "own": bool(own.issuer and own.issuer.chain == (der,))}
            for one, (der, begins, ends) in sorted(issuers.items())
        ]
        if serial is None:
            return {"issuers": rows}
        found = [one for one in issuers if one.hex().startswith(serial.lower())]
        if not serial or len(found) != 1:
            raise LadingError(Reason.NOT_FOUND, f"{len(found)} issuers begin with {serial!r}", hint="leave it out to see them all")
        if own.issuer is not None and own.issuer.chain == (issuers[found[0]][0],):
            raise Refused(Reason.REFUSED, "this node holds that key itself", hint="give it a new one first: lading keys renew-issuer KIT")
        now = int(SystemClock().now())
        at = now if cutoff is None else cutoff
        if not 0 <= at <= now:
            raise UsageError(f"--cutoff: {at} is not in the past")
        entry = sign_revocation(
            root.key,
            (),
            own.network_id,
            domain_id=own.domain_id,
            kind=RevocationKind.ISSUER,
            subject=found[0],
            time=now,
            reason=cause,
            cutoff=at,
        )
        check_revocation(entry, own.network_id, own.roots)
        number = _known_fences(own, facts).next_number()
        fence = sign_fence(root.key, (), own.network_id, domain_id=own.domain_id, number=number, time=now, secret=SystemEntropy().token(32))
        with_ledger(home, ((FactKind.REVOCATION, encode(entry)), (FactKind.FENCE, encode(fence))))
    return {"issuer": found[0].hex(), "cutoff": at, "fence": number}


def _opened(home: Path, text: str, passphrase: Passphrase) -> tuple[OwnKeys, _Root]:
    """This home's keys and the root in the kit, if they belong together."""
    own = open_home(home, passphrase)
    kit = parse_kit(text)
    root = _root_of(kit)
    if kit.network_id != own.network_id:
        raise Refused(Reason.WRONG_NETWORK, "kit and home are of different networks", hint="use the kit of this network's founder")
    if root.domain_id != own.domain_id:
        raise Refused(Reason.WRONG_DOMAIN, "kit and home are of different domains", hint="use the kit of this domain's founder")
    return own, root


def _read_facts(home: Path) -> list[tuple[int, bytes]]:
    engine = LmdbEngine(home / LEDGER_FOLDER, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)
    try:
        with engine.snapshot() as snapshot:
            return [(value[0], value[1:]) for key, value in snapshot.scan(FACTS) if fact_id(value[0], value[1:]) == key]
    finally:
        engine.close()


def _known_issuers(own: OwnKeys, facts: Sequence[tuple[int, bytes]]) -> dict[bytes, tuple[bytes, int, int]]:
    """Serial -> (certificate, not-before, not-after) of the issuers of our domain, as nodes show and announce them."""
    shown = {own.node_chain[-1], *(own.issuer.chain if own.issuer is not None else ())}
    for kind, body in facts:
        if kind == FactKind.ANNOUNCEMENT:
            shown.add(decode(decode(body, Signed).body, Announcement).chain[-1])
        elif kind in (FactKind.FENCE, FactKind.REVOCATION, FactKind.TICKET_STATE):
            attested = decode(body, KnownFence).attested if kind == FactKind.FENCE else decode(body, Attested)
            shown.update(attested.chain[-1:])
    found: dict[bytes, tuple[bytes, int, int]] = {}
    for der in shown:
        try:
            begins, ends = chain_validity((der,), ISSUER)
            issuer = verify_issuer_chain((der,), {own.domain_id: own.roots[own.domain_id]}, now=begins, revocations=None)
        except InvalidObject:
            continue  # of another domain
        found[issuer.path.serials[0]] = (der, begins, ends)
    return found


def _known_fences(own: OwnKeys, facts: Sequence[tuple[int, bytes]]) -> FenceSet:
    """The fences of all domains of the network."""
    founder = own.roots[own.founder]
    words = [decode(body, Attested) for kind, body in facts if kind == FactKind.DOMAIN]
    domains = DomainSet(check_domain(word, own.network_id, founder=founder) for word in words)
    roots = {**own.roots, **{domain.id: domain.value.root for domain in domains.entries}}
    known: list[CheckedFence] = []
    for fence in (*own.fences, *(decode(body, KnownFence) for kind, body in facts if kind == FactKind.FENCE)):
        try:
            known.append(check_fence(fence, own.network_id, roots))
        except InvalidObject:
            continue  # of a domain that is not in the network any more
    return FenceSet(known)
