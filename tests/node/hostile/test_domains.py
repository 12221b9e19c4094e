"""What a certified member of another domain of the network can do at our nodes: what its standing allows, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from msgspec.structs import replace

import node.actors.knowledge as knowledge_module
from node import home
from node.own import MemberKeys, OwnKeys
from node.services import EXCHANGE, FACTS, JOIN, Standing
from node.transport.port import StreamBroken, StreamEnded
from node.wiring import Node
from protocols.codec import decode, encode
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.errors import LadingError
from protocols.exchange import messages as m
from protocols.files.keys import OwnerSecrets
from protocols.files.objects import Statement
from protocols.gossip import messages as g
from protocols.gossip.facts import FactKind, fact_id
from protocols.identity.certificates import MEMBER, NodeIdentity, chain_validity, fingerprint, make_member, verify_chain
from protocols.identity.domains import sign_domain
from protocols.identity.fences import sign_fence
from protocols.identity.keyfiles import MemberKey
from protocols.identity.revocation import RevocationKind, sign_revocation
from protocols.registry import decode_message
from protocols.types import PeerId, UnixSeconds

from .scene import EPOCH, Enemy, Scene, play, scene
from .test_facts import item_of, receipt_of

STAYS = sorted(kind for kind, may in FACTS.items() if Standing.NETWORK not in may)


@dataclass
class TwoDomains:
    """An honest node of the founding domain, and another domain whose word is signed and not yet told."""

    stage: Scene
    node: Node
    other: home.Founding
    word: tuple[FactKind, bytes]

    def foreigner(self, name: str, *, twin: NodeIdentity | None = None) -> Enemy:
        """A node of a member of the other domain, with the network's fence. twin: whose name and member id the domain gave it too."""
        entropy = self.stage.entropy.fork(f"foreign {name}")
        member = home.certify_member(self.other, name, entropy, EPOCH, nodes_max=4, weight_max=400)
        if twin is not None:
            issuer = self.other.issuer
            certificate = make_member(
                SigningKey(issuer.seed),
                issuer.chain[0],
                member_id=twin.member_id,
                signing_public=SigningKey(member.seed).public,
                hpke_public=HpkePrivateKey(member.hpke_seed).public,
                name=twin.member,
                nodes_max=1,
                weight_total_max=100,
                serial=entropy.token(16),
                not_before=EPOCH - 300,
                not_after=EPOCH + 10 * 365 * 86400 - 300,
            )
            member = replace(member, chain=(certificate, *issuer.chain))
        keys = home.certify_node(member, name, entropy, EPOCH)
        roots = {**self.stage.roots, fingerprint(self.other.root): self.other.root}
        identity = verify_chain(keys.chain, roots, now=EPOCH, revocations=None)
        own = OwnKeys(
            network=self.node.own.network,
            domain_id=identity.domain_id,
            roots=roots,
            node=SigningKey(keys.seed),
            node_chain=keys.chain,
            identity=identity,
            member=MemberKeys(SigningKey(member.seed), HpkePrivateKey(member.hpke_seed), OwnerSecrets(member.root_secret), member.chain),
            issuer=None,
            fences=self.node.own.fences,
        )
        return Enemy(self.stage, own)


@asynccontextmanager
async def two_domains(*, known: bool = True) -> AsyncIterator[TwoDomains]:
    """known: the node has heard of the other domain."""
    async with scene() as stage:
        node = await stage.start()
        other = home.found_domain("customs", stage.entropy.fork("customs"), EPOCH)
        issuer, own = stage.founding.issuer, node.own
        word = sign_domain(
            SigningKey(issuer.seed), issuer.chain, own.network_id, founder=own.domain_id, time=UnixSeconds(EPOCH + 10), root=other.root
        )
        story = TwoDomains(stage, node, other, (FactKind.DOMAIN, encode(word)))
        if known:
            await node.facts.submit_own(story.word)
        yield story


def facts_of(node: Node) -> set[bytes]:
    return {one for bucket in range(256) for one in node.knowledge.sketch.ids_of(bucket)}


async def is_thrown_out(enemy: Enemy) -> bool:
    """Whether the connection ends within its next words."""
    assert enemy.connection is not None
    with trio.move_on_after(5):
        await enemy.connection.closed.wait()
    return enemy.connection.closed.is_set()


def test_domain_nobody_has_spoken_of_is_not_let_in_and_is_once_it_was() -> None:
    """Goal: `auth` takes a chain to any domain of the network and to no other. Method: before and after the founding domain's word."""

    async def story() -> None:
        async with two_domains(known=False) as two:
            enemy = two.foreigner("eve")
            with pytest.raises(StreamBroken):
                await enemy.enter(two.node)
            assert enemy.own.peer_id not in two.node.peers.sessions
            await two.node.facts.submit_own(two.word)
            await enemy.enter(two.node)
            assert enemy.own.peer_id in two.node.peers.sessions
            assert two.node.knowledge.book.get(enemy.own.peer_id) is not None
            assert two.node.domains() == ["honest", "customs"]
            assert enemy.own.peer_id not in two.node.peers.partners()

    play(story)


@pytest.mark.parametrize("kind", STAYS)
def test_fact_of_our_domains_kind_from_another_domain_ends_the_connection_and_changes_nothing(kind: int) -> None:
    """Goal: nothing of the kind is taken, whatever it says. Method: each kind, announced as a lawful fact would be and sent when asked."""

    async def story() -> None:
        async with two_domains() as two:
            enemy = two.foreigner("eve")
            await enemy.enter(two.node)
            before = facts_of(two.node)
            if kind == FactKind.STATEMENT:
                body = encode(enemy.statement([b"r" * 32]))
            elif kind == FactKind.RECEIPT:
                body = receipt_of(enemy, [item_of(b"x" * 32, b"h" * 32, [b"r" * 32])], 1)
            else:
                body = b"whatever"
            with contextlib.suppress(StreamBroken, StreamEnded):
                await enemy.tell((kind, body))
            assert await is_thrown_out(enemy)
            assert facts_of(two.node) == before
            assert two.node.knowledge.records == {}

    play(story)


def test_streams_of_our_domain_are_refused_to_another() -> None:
    """Goal: no exchange, no joining through. Method: open each; it is reset, and the session lives on."""

    async def story() -> None:
        async with two_domains() as two:
            enemy = two.foreigner("eve")
            await enemy.enter(two.node)
            assert enemy.connection is not None
            signed = enemy.statement([b"r" * 32])
            for protocol in (EXCHANGE, JOIN):
                stream = await enemy.connection.open_stream(protocol)
                with pytest.raises((StreamBroken, StreamEnded)):  # which of the two notices it is chance
                    await enemy.ask(stream, m.Place(1, b"r" * 32, (b"n" * 32,), (16,), m.ByOffer(signed)))
            assert enemy.own.peer_id in two.node.peers.sessions
            with pytest.raises(StreamBroken):
                await two.node.peers.exchange(enemy.own.peer_id)

    play(story)


def test_what_stays_at_home_is_neither_told_nor_given_on_demand() -> None:
    """Goal: another domain learns of no record, holder or ticket. Method: our node keeps a statement and a ticket; the foreigner reads
    its summary, announcements and buckets, and asks for the bodies by id."""

    async def story() -> None:
        async with two_domains() as two:
            enemy = two.foreigner("eve")
            await enemy.enter(two.node)
            assert enemy.gossip is not None
            friend = Enemy(two.stage, two.stage.own("friend"))
            await friend.enter(two.node)
            signed = encode(friend.statement([b"r" * 32]))
            await friend.tell((FactKind.STATEMENT, signed))
            await two.node.membership.invite(node=False, holder_only=False, expires_s=60)
            secret = {one for one in facts_of(two.node) if one not in two.node.knowledge.shared}
            assert fact_id(FactKind.STATEMENT, signed) in secret
            assert len(secret) == 2
            await enemy.say(g.Summary(0, bytes(2048)))
            await enemy.say(g.Want(tuple(sorted(secret))))
            told: set[bytes] = set()
            bodies: list[int] = []
            with trio.move_on_after(5):
                while True:
                    message = decode_message("gossip", await enemy.gossip.receive())
                    if isinstance(message, g.Announce | g.BucketIds):
                        told.update(message.ids)
                    elif isinstance(message, g.Bodies):
                        bodies += [kind for kind, _ in message.items]
                    elif isinstance(message, g.Seen):
                        assert message.entries == ()
                        await enemy.say(g.Seen((), 0, message.ping))
            assert bodies == []
            assert told == {one for one in facts_of(two.node) if one in two.node.knowledge.shared}
            assert two.node.own.peer_id in {PeerId(entry.value.peer_id) for entry in two.node.knowledge.book.entries}

    play(story)


def test_record_of_another_domain_is_refused_also_from_a_member_of_ours() -> None:
    """Goal: a colluding member brings no foreign record in, nor a foreign node's receipt. Method: our domain's enemy tells both."""

    async def story() -> None:
        async with two_domains() as two:
            foreigner = two.foreigner("eve")
            await foreigner.enter(two.node)
            traitor = Enemy(two.stage, two.stage.own("traitor"))
            await traitor.enter(two.node)
            before = facts_of(two.node)
            signed = foreigner.statement([b"r" * 32])
            statement = decode(signed.body, Statement)
            receipt = receipt_of(foreigner, [item_of(statement.owner, statement.hash_id, [b"r" * 32])], 1)
            await traitor.tell((FactKind.STATEMENT, encode(signed)), (FactKind.RECEIPT, receipt))
            assert facts_of(two.node) == before
            assert two.node.knowledge.records == {}
            assert traitor.own.peer_id in two.node.peers.sessions
            assert not two.node.knowledge.is_known_owner(foreigner.own.owner)
            assert not any(c.peer == foreigner.own.peer_id for c in two.node.knowledge.candidates(EPOCH))

    play(story)


def test_signs_of_life_from_another_domain_are_not_believed() -> None:
    """Goal: a foreigner does not delay our repairs. Method: it claims to see a node of ours that is away."""

    async def story() -> None:
        async with two_domains() as two:
            gone = Enemy(two.stage, two.stage.own("gone"))
            await gone.enter(two.node)
            assert gone.connection is not None
            await gone.connection.close("unplugged")
            await trio.sleep(30)
            enemy = two.foreigner("eve")
            await enemy.enter(two.node)
            await enemy.say(g.Seen(((gone.own.peer_id, 0),), 0, 0))
            await trio.sleep(1)
            assert two.node.peers.silence_s(gone.own.peer_id) > 25

    play(story)


def test_time_that_another_domains_members_tell_does_not_count() -> None:
    """Goal: two members of another domain do not set our clock. Method: one of ours and one of theirs prove themselves."""

    async def story() -> None:
        async with two_domains() as two:
            heard: list[bytes] = []
            two.node.membership.hear_time = lambda member, time: heard.append(member)
            foreigner, friend = two.foreigner("eve"), Enemy(two.stage, two.stage.own("friend"))
            await foreigner.enter(two.node)
            await friend.enter(two.node)
            assert heard == [friend.own.member_id]

    play(story)


def test_other_domains_issuer_speaks_for_its_own_members_and_rotates_the_fence() -> None:
    """Goal: revocation and fence of another domain are what its nodes are judged by here. Method: its issuer puts a member out, whose
    session ends, and one of ours, which changes nothing; then it makes a fence, which is dialled with."""

    async def story() -> None:
        async with two_domains() as two:
            node, issuer = two.node, two.other.issuer
            key, network = SigningKey(issuer.seed), node.own.network_id
            eve, mallory = two.foreigner("eve"), two.foreigner("mallory")
            await eve.enter(node)
            await mallory.enter(node)
            assert eve.own.domain_id == fingerprint(two.other.root)

            def out(subject: bytes) -> tuple[FactKind, bytes]:
                entry = sign_revocation(
                    key,
                    issuer.chain,
                    network,
                    domain_id=eve.own.domain_id,
                    kind=RevocationKind.MEMBER,
                    subject=subject,
                    time=EPOCH + 1,
                    reason="",
                )
                return FactKind.REVOCATION, encode(entry)

            await eve.tell(out(mallory.own.member_id), out(node.own.member_id))
            assert mallory.own.peer_id not in node.peers.sessions
            assert eve.own.peer_id in node.peers.sessions
            assert not node.knowledge.revocations.is_revoked(node.own.identity.path)
            fence = sign_fence(key, issuer.chain, network, domain_id=eve.own.domain_id, number=7, time=EPOCH + 1, secret=b"7" * 32)
            await eve.tell((FactKind.FENCE, encode(fence)))
            greatest = node.knowledge.fences.greatest()
            assert greatest is not None
            assert node.membership.dial_keys()[0].id == greatest.value.secret_hash
            assert greatest.value.number == 7
            await node.membership.rotate_fence()
            assert node.membership.dial_keys()[0].id != greatest.value.secret_hash

    play(story)


def test_domain_that_a_stolen_issuing_key_brought_in_goes_when_the_root_says_so() -> None:
    """Goal: the founding domain's root undoes it. Method: revoke the issuer before its word; sessions, addresses and fences of the domain
    are gone, and its members are strangers."""

    async def story() -> None:
        async with two_domains() as two:
            node, issuer = two.node, two.other.issuer
            enemy = two.foreigner("eve")
            await enemy.enter(node)
            fence = sign_fence(
                SigningKey(issuer.seed),
                issuer.chain,
                node.own.network_id,
                domain_id=enemy.own.domain_id,
                number=7,
                time=EPOCH,
                secret=b"7" * 32,
            )
            await enemy.tell((FactKind.FENCE, encode(fence)))
            assert len(node.knowledge.fences) == 2
            serial = node.own.identity.path.serials[-1]
            entry = sign_revocation(
                SigningKey(two.stage.founding.root_seed),
                (),
                node.own.network_id,
                domain_id=node.own.domain_id,
                kind=RevocationKind.ISSUER,
                subject=serial,
                time=EPOCH + 20,
                reason="stolen",
                cutoff=EPOCH + 5,
            )
            await node.facts.submit_own((FactKind.REVOCATION, encode(entry)))
            assert await is_thrown_out(enemy)
            assert node.domains() == ["honest"]
            assert node.knowledge.book.get(enemy.own.peer_id) is None
            assert all(fence.attested.envelope.signer != SigningKey(issuer.seed).public for fence in node.knowledge.fences.fences)
            with pytest.raises(StreamBroken):
                await enemy.enter(node)

    play(story)


def test_other_domain_that_certifies_without_end_then_only_so_many_nodes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: another domain does not fill our memory. Method: a bound of 2; five of its nodes, then ours still come in, and a known one
    still moves."""
    monkeypatch.setattr(knowledge_module, "NODES_PER_OTHER_DOMAIN_MAX", 2)

    async def story() -> None:
        async with two_domains() as two:
            enemy = two.foreigner("eve")
            await enemy.enter(two.node)
            others = [two.foreigner(f"e{number}") for number in range(4)]
            await enemy.tell((FactKind.ANNOUNCEMENT, encode(others[0].announcement())))
            for other in others[1:]:
                await enemy.tell((FactKind.ANNOUNCEMENT, encode(other.announcement())))
            known = {PeerId(entry.value.peer_id) for entry in two.node.knowledge.book.entries}
            assert known == {two.node.own.peer_id, enemy.own.peer_id, others[0].own.peer_id}
            friend = Enemy(two.stage, two.stage.own("friend"))
            await friend.enter(two.node)
            assert two.node.knowledge.book.get(friend.own.peer_id) is not None
            await enemy.tell((FactKind.ANNOUNCEMENT, encode(enemy.announcement(EPOCH * 1000 + 1, addresses=("/memory/moved",)))))
            assert two.node.knowledge.addresses()[enemy.own.peer_id] == ("/memory/moved",)

    play(story)


def test_other_domain_that_revokes_without_end_then_our_own_revocations_find_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no other domain keeps us from putting our members out. Method: a bound of 2; five entries of its issuer, then one of ours."""
    monkeypatch.setattr(knowledge_module, "REVOCATIONS_PER_OTHER_DOMAIN_MAX", 2)

    async def story() -> None:
        async with two_domains() as two:
            issuer, enemy = two.other.issuer, two.foreigner("eve")
            await enemy.enter(two.node)
            for number in range(5):
                entry = sign_revocation(
                    SigningKey(issuer.seed),
                    issuer.chain,
                    two.node.own.network_id,
                    domain_id=enemy.own.domain_id,
                    kind=RevocationKind.MEMBER,
                    subject=bytes([number]) * 32,
                    time=EPOCH,
                    reason="",
                )
                await enemy.tell((FactKind.REVOCATION, encode(entry)))
            assert len(two.node.knowledge.revocations) == 2
            friend = Enemy(two.stage, two.stage.own("friend"))
            await friend.enter(two.node)
            await two.node.membership.revoke(friend.own.member_id.hex(), "left")
            assert len(two.node.knowledge.revocations) == 3

    play(story)


def test_facts_of_other_domains_survive_a_restart_of_the_node() -> None:
    """Goal: domains are read back before whatever is judged by them. Method: load all facts anew from the disk."""

    async def story() -> None:
        async with two_domains() as two:
            enemy = two.foreigner("eve")
            await enemy.enter(two.node)
            before = facts_of(two.node)
            await two.node._facts_actor.load()
            assert facts_of(two.node) == before
            assert enemy.own.domain_id in two.node.knowledge.roots
            assert two.node.knowledge.book.get(enemy.own.peer_id) is not None

    play(story)


def test_other_domain_that_gives_a_member_of_ours_twins_then_ours_stays_whom_it_was() -> None:
    """Goal: ids and names that another domain chooses mean nothing here. Method: it certifies six nodes of six members under the victim's
    member id and name, with one node each at most; the victim is still known, named, shared with, and put out alone."""

    async def story() -> None:
        async with two_domains() as two:
            victim = Enemy(two.stage, two.stage.own("victim"))
            await victim.enter(two.node)
            twins = [two.foreigner(f"t{number}", twin=victim.own.identity) for number in range(6)]
            await twins[0].enter(two.node)
            for twin in twins[1:]:
                await twins[0].tell((FactKind.ANNOUNCEMENT, encode(twin.announcement())))
            node, membership = two.node, two.node.membership
            assert node.knowledge.book.get(victim.own.peer_id) is not None
            assert sum(entry.identity.domain_id != node.own.domain_id for entry in node.knowledge.book.entries) == 4
            assert membership.member_named("victim") == victim.own.member_id
            assert node.knowledge.members()[victim.own.member_id].domain_id == node.own.domain_id
            rows = [row for row in membership.members() if row["name"] == "victim"]
            assert [(row["domain"], len(row["nodes"])) for row in rows] == [("honest", 1), ("customs", 4)]  # type: ignore[arg-type]
            await membership.revoke("victim", "left")
            await trio.sleep(1)
            assert victim.own.peer_id not in node.peers.sessions
            assert not node.knowledge.revocations.is_revoked(twins[0].own.identity.path)

    play(story)


def later_chain(two: TwoDomains, ends: int) -> MemberKey:
    """The member of the honest node, renewed by our domain's issuer."""
    issuer, own = two.stage.founding.issuer, two.node.own
    member = two.stage.member(own.identity.host)
    assert SigningKey(member.seed).public == own.owner
    certificate = make_member(
        SigningKey(issuer.seed),
        issuer.chain[0],
        member_id=own.member_id,
        signing_public=own.owner,
        hpke_public=HpkePrivateKey(member.hpke_seed).public,
        name=own.identity.member,
        nodes_max=4,
        weight_total_max=400,
        serial=two.stage.entropy.token(16),
        not_before=chain_validity(member.chain, MEMBER)[0],
        not_after=ends,
    )
    return member.with_chain((certificate, *issuer.chain))


def test_member_of_another_domain_with_our_members_id_does_not_hide_its_renewal() -> None:
    """Goal: a node learns its member's newer certificate, whatever another domain certifies. Method: the other domain gives the member id a
    certificate that ends later than any of ours; then our member's second node announces a renewed one."""

    async def story() -> None:
        async with two_domains() as two:
            twin = two.foreigner("eve", twin=two.node.own.identity)
            await twin.enter(two.node)
            assert two.node.knowledge.book.get(twin.own.peer_id) is not None
            ends = EPOCH + 3 * 365 * 86400
            second = Enemy(two.stage, two.stage.own("second", member=later_chain(two, ends)))
            await second.enter(two.node)
            await trio.sleep(120)
            assert chain_validity(two.node.membership.own.node_chain[1:], MEMBER)[1] == ends

    play(story)


def test_renewal_is_asked_of_nobody_in_another_domain() -> None:
    """Goal: the few that are asked to ask on are of our domain. Method: a node without an issuing key renews, beside an enemy of each
    domain; which streams it opens to them."""

    async def story() -> None:
        async with two_domains() as two:
            asker = await two.stage.start("asker", issues=False)
            await asker.facts.submit_own(two.word)
            await two.stage.stop(two.node)
            enemies = [two.foreigner("eve"), Enemy(two.stage, two.stage.own("ours"))]
            seen: list[list[str]] = [[], []]

            async def watch(enemy: Enemy, protocols: list[str]) -> None:
                assert enemy.connection is not None
                while True:
                    stream = await enemy.connection.accept_stream()
                    protocols.append(stream.protocol)
                    stream.reset()

            async with trio.open_nursery() as nursery:
                for enemy, protocols in zip(enemies, seen, strict=True):
                    await enemy.enter(asker)
                    nursery.start_soon(enemy.keep_alive)
                    nursery.start_soon(watch, enemy, protocols)
                with pytest.raises(LadingError):
                    await asker.membership.renewal.renew_now()
                nursery.cancel_scope.cancel()
            assert [JOIN in protocols for protocols in seen] == [False, True]

    play(story)
