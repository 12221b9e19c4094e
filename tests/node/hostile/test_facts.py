"""What a certified member can do with facts: what it signs, how much of it, and in whose name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

import node.actors.knowledge as knowledge_module
import protocols.identity.revocation as revocation_module
from node.wiring import Node
from protocols.codec import decode, encode
from protocols.crypto import FORMAT, SUITE, SigningKey, sha256
from protocols.exchange import messages as m
from protocols.files.holdings import Receipt, ReceiptItem, Withdrawal, WithdrawnItem, sign_receipt, sign_withdrawal
from protocols.files.objects import Pin, Statement, make_wrap, sign_pin, sign_wrap
from protocols.files.sequences import sequence_root
from protocols.gossip import messages as g
from protocols.gossip.facts import FactKind
from protocols.identity.attested import Attested
from protocols.identity.certificates import make_member
from protocols.identity.keyfiles import MemberKey
from protocols.identity.members import member_id
from protocols.identity.revocation import RevocationKind, RevocationSet, check_revocation, sign_revocation
from protocols.limits import REVOCATIONS_PER_MEMBER_MAX
from protocols.merkle import merkle_path
from protocols.signed import Signed
from protocols.types import Digest, HashId, NetworkId, OwnerKey, PeerId, SequenceRoot, StoreId, UnixSeconds

from .scene import EPOCH, Enemy, Scene, play, scene

STORE = StoreId(b"s" * 16)


def receipt_of(enemy: Enemy, items: Sequence[ReceiptItem], counter: int) -> bytes:
    receipt = Receipt(
        format=FORMAT,
        suite=SUITE,
        network=enemy.own.network_id,
        holder=enemy.own.peer_id,
        store_id=STORE,
        generation=1,
        counter=counter,
        from_s=UnixSeconds(EPOCH),
        until_s=UnixSeconds(EPOCH + 86400),
        items=tuple(items),
    )
    return encode(sign_receipt(receipt, enemy.own.node))


def withdrawal_of(enemy: Enemy, owner: OwnerKey, hash_id: HashId, roots: Sequence[bytes], time_s: int) -> bytes:
    withdrawal = Withdrawal(
        format=FORMAT,
        suite=SUITE,
        network=enemy.own.network_id,
        holder=enemy.own.peer_id,
        store_id=STORE,
        generation=1,
        counter=time_s,
        time_s=UnixSeconds(time_s),
        items=(WithdrawnItem(owner=owner, hash_id=hash_id, sequence_roots=tuple(SequenceRoot(root) for root in sorted(roots))),),
    )
    return encode(sign_withdrawal(withdrawal, enemy.own.node))


def item_of(owner: bytes, hash_id: bytes, roots: Sequence[bytes], object_hash: bytes = b"o" * 32) -> ReceiptItem:
    return ReceiptItem(
        owner=OwnerKey(owner),
        hash_id=HashId(hash_id),
        seq=1,
        object_hash=Digest(object_hash),
        wraps=Digest(b"w" * 32),
        sequence_roots=tuple(SequenceRoot(root) for root in sorted(roots)),
    )


def revoked(stage: Scene, member: bytes, time: int) -> Attested:
    """The issuer puts a member out."""
    issuer = stage.founding.issuer
    return sign_revocation(
        SigningKey(issuer.seed),
        issuer.chain,
        NetworkId(stage.founding.network.id),
        domain_id=next(iter(stage.roots)),
        kind=RevocationKind.MEMBER,
        subject=member,
        time=time,
        reason="test",
    )


async def entered(stage: Scene, name: str = "enemy", node: Node | None = None) -> tuple[Node, Enemy]:
    node = node or await stage.start()
    enemy = Enemy(stage, stage.own(name))
    await enemy.enter(node)
    return node, enemy


def test_member_that_revokes_made_up_certificates_without_end_then_issuers_can_still_put_it_out() -> None:
    """Goal: a member cannot fill the set of revocations, which would keep its own out and stop the facts actor at every start.
    Method: more than a member's share through gossip, then the issuer's."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            own = enemy.own
            assert own.member is not None
            flood = [
                sign_revocation(
                    own.member.signing,
                    own.member.chain,
                    own.network_id,
                    domain_id=own.domain_id,
                    kind=RevocationKind.CERTIFICATE,
                    subject=number.to_bytes(16, "big"),
                    time=EPOCH,
                    reason="",
                )
                for number in range(REVOCATIONS_PER_MEMBER_MAX + 40)
            ]
            await enemy.tell(*((FactKind.REVOCATION, encode(one)) for one in flood))
            assert len(node.knowledge.revocations) == REVOCATIONS_PER_MEMBER_MAX
            await enemy.say(g.Seen((), 0, 0))
            await node.facts.submit_own((FactKind.REVOCATION, encode(revoked(stage, own.member_id, EPOCH + 10))))
            await trio.sleep(8)
            assert not node.peers.is_connected(own.peer_id)

    play(story)


def test_revocations_of_many_members_when_there_is_no_room_then_those_of_issuers_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the set never refuses an issuer. Method: a small set, members that fill it, in two orders."""
    monkeypatch.setattr(revocation_module, "REVOCATIONS_MAX", 10)
    stage = Scene()
    enemies = [stage.own(f"e{number}") for number in range(3)]
    entries = []
    for own in enemies:
        assert own.member is not None
        for number in range(5):
            entry = sign_revocation(
                own.member.signing,
                own.member.chain,
                own.network_id,
                domain_id=own.domain_id,
                kind=RevocationKind.CERTIFICATE,
                subject=number.to_bytes(16, "big"),
                time=EPOCH,
                reason="",
            )
            entries.append(check_revocation(entry, own.network_id, own.roots))
    issued = [check_revocation(revoked(stage, own.member_id, EPOCH), own.network_id, own.roots) for own in enemies]
    one = RevocationSet(entries).with_checked(issued)
    other = RevocationSet(issued).with_checked(reversed(entries))
    assert one == other
    assert len(one) == 10
    assert all(entry.hash in one for entry in issued)


def test_member_that_certifies_nodes_without_end_then_few_are_remembered() -> None:
    """Goal: the address book, and whom everybody dials, is bounded by what the issuer granted."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            member = stage.member("breeder", nodes_max=2)
            first = Enemy(stage, stage.own("b0", member=member))
            await first.enter(node)
            minted = [Enemy(stage, stage.own(f"b{number}", member=member, now=EPOCH + number)) for number in range(1, 30)]
            await first.tell(*((FactKind.ANNOUNCEMENT, encode(one.announcement())) for one in minted))
            known = [entry for entry in node.knowledge.book.entries if entry.identity.member == "breeder"]
            assert len(known) == 2 * knowledge_module.NODES_KNOWN_FACTOR
            assert minted[-1].own.peer_id in {entry.value.peer_id for entry in known}
            assert node.knowledge.sketch.count < 20

    play(story)


def test_receipts_for_records_that_nobody_knows_when_without_end_then_a_member_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no member can fill our memory with what it signs. Method: a small bound, receipts beyond it; others still speak."""
    monkeypatch.setattr(knowledge_module, "FACTS_WEIGHT_PER_MEMBER_MAX", 500)

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            floods = [
                receipt_of(enemy, [item_of(b"x" * 32, sha256(bytes([n, i])), [sha256(bytes([n, i, 1]))]) for i in range(100)], n)
                for n in range(1, 20)
            ]
            for flood in floods:
                await enemy.tell((FactKind.RECEIPT, flood))
            assert 100 <= len(node.knowledge.records) <= 500
            second = Enemy(stage, stage.own("other"))
            await second.enter(node)
            await second.tell((FactKind.RECEIPT, receipt_of(second, [item_of(b"y" * 32, b"h" * 32, [b"r" * 32])], 1)))
            assert (OwnerKey(b"y" * 32), HashId(b"h" * 32)) in node.knowledge.records

    play(story)


def test_one_holders_words_about_one_record_when_without_end_then_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: looking at a record costs what its sequences cost, not what a liar signs for it. Newer words still replace older ones."""
    monkeypatch.setattr(knowledge_module, "ROOTS_PER_HOLDER_MAX", 8)

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            key = (OwnerKey(b"x" * 32), HashId(b"h" * 32))
            for n in range(1, 20):
                await enemy.tell((FactKind.RECEIPT, receipt_of(enemy, [item_of(*key, [sha256(bytes([n]))])], n)))
            facts = node.knowledge.records[key]
            assert len(facts.receipts) == 8
            await enemy.tell((FactKind.RECEIPT, receipt_of(enemy, [item_of(*key, [sha256(bytes([n])) for n in range(1, 9)])], 100)))
            assert len(facts.receipts) == 1

    play(story)


def test_a_frame_of_a_hundred_thousand_tiny_facts_then_it_is_refused_unread() -> None:
    """Goal: no frame holds the loop. Method: as many items as a frame can have."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            await enemy.say(g.Bodies(tuple((0, b"") for _ in range(100_000))))
            await trio.sleep(2)
            assert not node.peers.is_connected(enemy.own.peer_id)

    play(story)


def test_facts_twice_in_one_submission_and_crosswise_in_two_then_nobody_waits_for_ever() -> None:
    """Goal: whoever chooses the order of facts cannot make two submissions wait for each other."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            one = (FactKind.RECEIPT, receipt_of(enemy, [item_of(b"x" * 32, b"h" * 32, [b"r" * 32])], 1))
            two = (FactKind.RECEIPT, receipt_of(enemy, [item_of(b"y" * 32, b"h" * 32, [b"r" * 32])], 2))
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(node.facts.submit, [one, two, one], enemy.own.peer_id)
                    nursery.start_soon(node.facts.submit, [two, one, two], enemy.own.peer_id)
            assert (OwnerKey(b"y" * 32), HashId(b"h" * 32)) in node.knowledge.records

    play(story)


async def placed(stage: Scene, node: Node, owner: Enemy, count: int = 2) -> tuple[Signed, list[bytes]]:
    """A record of ``count`` sequences of one chunk, placed at the node."""
    bodies = [bytes([number + 1]) * 1024 for number in range(count)]
    roots: list[bytes] = [sequence_root([sha256(body)]) for body in bodies]
    signed = owner.statement(roots)
    stream = await owner.open_exchange()
    for index, body in enumerate(bodies):
        authority = m.ByStatement(signed, index, count, merkle_path(roots, index))
        place = m.Place(index + 1, roots[index], (sha256(body),), (len(body),), authority)
        assert isinstance(await owner.ask(stream, place), m.Need)
        assert isinstance(await owner.ask(stream, m.Chunk(index + 1, 0, body)), m.Placed)
    return signed, roots


def test_receipts_for_sequences_that_a_record_does_not_have_then_they_neither_help_nor_harm() -> None:
    """Goal: a lying holder neither makes a record seem kept nor lost. Method: a receipt for a root of its own making."""

    async def story() -> None:
        async with scene() as stage:
            node, owner = await entered(stage, "owner")
            signed, roots = await placed(stage, node, owner)
            statement = decode(signed.body, Statement)
            await owner.say(g.Seen((), 0, 0))
            await trio.sleep(7)
            await owner.say(g.Seen((), 0, 0))
            liar = Enemy(stage, stage.own("liar"))
            await liar.enter(node)
            item = item_of(statement.owner, statement.hash_id, [b"fake" * 8], signed.object_hash)
            await liar.tell((FactKind.RECEIPT, receipt_of(liar, [item], EPOCH * 1000)))
            facts = node.knowledge.records[(statement.owner, statement.hash_id)]
            assert len(facts.receipts) >= 2
            assert set(node.replication.holders(facts)) == set(roots)
            assert node.replication.survives(facts, statement) == 0

    play(story)


def test_what_is_no_receipt_in_place_of_one_then_replication_stands() -> None:
    """Goal: a holder's answer is opened before it is believed. Method: garbage, and a receipt of another node."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            other = Enemy(stage, stage.own("other"))
            foreign = decode(receipt_of(other, [item_of(b"x" * 32, b"h" * 32, [b"r" * 32])], 1), Signed)
            garbage = Signed(body=b"\x90", signer=b"k" * 32, signature=b"s" * 64)
            forged = Signed(body=foreign.body, signer=enemy.own.node.public, signature=foreign.signature)
            for answer in (foreign, garbage, forged, Signed(body=b"", signer=b"", signature=b"")):
                assert node.replication._opened(answer, enemy.own.peer_id) is None
            assert node.replication._opened(foreign, other.own.peer_id) is not None

    play(story)


def pin_by(
    issuer: object, domain: bytes, node: PeerId, owner: bytes, hash_id: bytes, network: bytes, *, wish: str = "out", seq: int = 1
) -> bytes:
    key = SigningKey(issuer.seed)  # type: ignore[attr-defined]  # an IssuerKey
    pin = Pin(
        format=FORMAT,
        suite=SUITE,
        network=network,  # type: ignore[arg-type]  # bytes
        domain=domain,  # type: ignore[arg-type]  # bytes
        operator=OwnerKey(key.public),
        node=node,
        owner=OwnerKey(owner),
        hash_id=HashId(hash_id),
        wish=wish,
        seq=seq,
        time_s=UnixSeconds(EPOCH),
    )
    return encode(Attested(envelope=sign_pin(pin, key), chain=issuer.chain))  # type: ignore[attr-defined]  # an IssuerKey


def test_pin_by_another_domains_issuer_then_it_changes_nothing() -> None:
    """Goal: no other domain of the network takes records off our nodes. Method: its issuer pins "out"; our own may."""

    async def story() -> None:
        async with scene() as stage:
            foreign = stage.foreign_domain()
            domains = list(stage.roots)
            node, enemy = await entered(stage)
            key = (OwnerKey(b"x" * 32), HashId(b"h" * 32))
            theirs = pin_by(foreign.issuer, domains[1], node.own.peer_id, *key, node.own.network_id)
            ours = pin_by(stage.founding.issuer, domains[0], node.own.peer_id, *key, node.own.network_id)
            await enemy.tell((FactKind.PIN, theirs))
            assert key not in node.knowledge.records
            await enemy.tell((FactKind.PIN, ours))
            assert node.knowledge.records[key].pinned("out") == {node.own.peer_id}

    play(story)


def test_pins_with_an_old_or_an_equal_number_then_all_nodes_keep_the_same_one() -> None:
    """Goal: an old wish does not come back, and two under one number are no quarrel. Method: "out" 2, then "in" 1; then "in" 3 and "out" 3,
    told to two nodes that do not know each other in opposite orders."""

    async def story() -> None:
        async with scene() as stage:
            (domain,) = stage.roots
            key = (OwnerKey(b"x" * 32), HashId(b"h" * 32))
            enemy = Enemy(stage, stage.own("enemy"))
            pinned = enemy.own.peer_id

            def pin(wish: str, seq: int) -> tuple[int, bytes]:
                return FactKind.PIN, pin_by(stage.founding.issuer, domain, pinned, *key, enemy.own.network_id, wish=wish, seq=seq)

            in_force = []
            for number, order in enumerate((("in", "out"), ("out", "in"))):
                stage.nodes.clear()  # the second is not told of the first
                node = await stage.start(f"n{number}", issues=False)
                await enemy.enter(node)
                await enemy.tell(pin("out", 2))
                await enemy.tell(pin("in", 1))
                assert node.knowledge.records[key].pinned("out") == {pinned}
                for wish in order:
                    await enemy.tell(pin(wish, 3))
                in_force.append(node.knowledge.records[key].pinned("in"))
            assert in_force[0] == in_force[1]

    play(story)


def test_another_domain_that_certifies_our_members_key_then_the_member_still_speaks() -> None:
    """Goal: who belongs to a domain is that domain's matter. Method: a foreign issuer certifies the victim's public key."""

    async def story() -> None:
        async with scene() as stage:
            foreign = stage.foreign_domain()
            node, victim = await entered(stage, "victim")
            assert victim.own.member is not None
            certificate = make_member(
                SigningKey(foreign.issuer.seed),
                foreign.issuer.chain[0],
                member_id=member_id(b"twin", b"s" * 32),
                signing_public=victim.own.owner,
                hpke_public=victim.own.member.hpke.public,
                name="twin",
                nodes_max=1,
                weight_total_max=100,
                serial=b"t" * 16,
                not_before=EPOCH - 300,
                not_after=EPOCH + 86400,
            )
            # The foreign domain cannot sign for the victim's key, so the victim's own key is borrowed for the node's certificate here:
            # a node certificate is what a careless member could be talked into.
            secret = stage.entropy.fork("member victim").token(32)
            chain = (certificate, *foreign.issuer.chain)
            twin = MemberKey(seed=secret, hpke_seed=b"h" * 32, root_secret=b"r" * 32, real_id=b"twin", salt=b"s" * 32, chain=chain)
            assert SigningKey(secret).public == victim.own.owner
            await victim.tell((FactKind.ANNOUNCEMENT, encode(Enemy(stage, stage.own("twin", member=twin)).announcement())))
            signed = victim.statement([b"r" * 32])
            await victim.tell((FactKind.STATEMENT, encode(signed)))
            statement = decode(signed.body, Statement)
            assert (statement.owner, statement.hash_id) in node.knowledge.records

    play(story)


def test_stolen_card_that_is_revoked_then_its_member_still_speaks() -> None:
    """Goal: revoking a node's certificate puts out the node, not the member. Method: the stolen node is the last that announced itself."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            member = stage.member("owner")
            home_node = Enemy(stage, stage.own("desk", member=member))
            stolen = Enemy(stage, stage.own("card", member=member))
            await home_node.enter(node)
            await home_node.tell((FactKind.ANNOUNCEMENT, encode(stolen.announcement())))
            out = sign_revocation(
                SigningKey(member.seed),
                member.chain,
                home_node.own.network_id,
                domain_id=home_node.own.domain_id,
                kind=RevocationKind.CERTIFICATE,
                subject=stolen.own.identity.serials[0],
                time=EPOCH,
                reason="stolen",
            )
            await home_node.tell((FactKind.REVOCATION, encode(out)))
            assert node.knowledge.revocations.is_revoked(stolen.own.identity.path)
            signed = home_node.statement([b"r" * 32])
            await home_node.tell((FactKind.STATEMENT, encode(signed)))
            assert (OwnerKey(member_public(member.seed)), decode(signed.body, Statement).hash_id) in node.knowledge.records

    play(story)


def member_public(seed: bytes) -> bytes:
    return SigningKey(seed).public


def test_tombstones_of_a_member_that_is_put_out_then_only_what_others_saw_before_holds() -> None:
    """Goal: who is put out cannot delete in parting. Method: two records; another member's node withdrew one of them before the cut-off,
    after its tombstone; the other tombstone is as old by its own word."""

    async def story() -> None:
        async with scene() as stage:
            node, owner = await entered(stage, "leaver")
            witness = Enemy(stage, stage.own("witness"))
            await witness.enter(node)
            seen, unseen = owner.statement([b"1" * 32]), owner.statement([b"2" * 32])
            tombs = [owner.tombstone(signed, EPOCH + 1) for signed in (seen, unseen)]
            await owner.tell(*((FactKind.STATEMENT, encode(one)) for one in (seen, unseen)))
            await owner.tell(*((FactKind.TOMBSTONE, encode(one)) for one in tombs))
            first = decode(seen.body, Statement)
            await witness.tell((FactKind.WITHDRAWAL, withdrawal_of(witness, first.owner, first.hash_id, [b"1" * 32], EPOCH + 2)))
            records = [node.knowledge.records[(first.owner, decode(one.body, Statement).hash_id)] for one in (seen, unseen)]
            assert [node.knowledge.verdict(record).statement for record in records] == [None, None]
            await node.facts.submit_own((FactKind.REVOCATION, encode(revoked(stage, owner.own.member_id, EPOCH + 10))))
            assert [node.knowledge.verdict(record).statement for record in records] == [None, unseen.object_hash]

    play(story)


def test_member_put_out_while_it_proves_itself_then_it_does_not_come_in() -> None:
    """Goal: rights end with the revocation, however slowly a peer speaks. Method: the revocation lands before its last message."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            enemy = Enemy(stage, stage.own("slow"))
            sent = []

            async def before(message: object) -> None:
                sent.append(message)
                if len(sent) == 2:
                    await node.facts.submit_own((FactKind.REVOCATION, encode(revoked(stage, enemy.own.member_id, EPOCH + 10))))

            await enemy.prove(await enemy.dial(node), before=before)
            await trio.sleep(3)
            assert len(sent) >= 2
            assert not node.peers.is_connected(enemy.own.peer_id)

    play(story)


def test_objects_pins_and_wraps_of_one_record_when_without_end_then_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: finding out what holds of a record takes milliseconds, whatever its owner signs. Method: small bounds, statements, pins and
    wraps beyond them; of statements the newest stay, of pins the last."""
    monkeypatch.setattr(knowledge_module, "OBJECTS_PER_RECORD_MAX", 4)
    monkeypatch.setattr(knowledge_module, "WRAPS_PER_RECORD_MAX", 3)

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            c = b"c" * 32
            signed = [
                enemy.statement([bytes([seq]) * 32], c=c, seq=seq, follows=b"" if seq == 1 else bytes([seq]) * 32) for seq in range(1, 12)
            ]
            for one in signed:
                await enemy.tell((FactKind.STATEMENT, encode(one)))
            statement = decode(signed[-1].body, Statement)
            facts = node.knowledge.records[(statement.owner, statement.hash_id)]
            assert set(facts.objects) == {one.object_hash for one in signed[-4:]}
            assert enemy.own.member is not None
            for number in range(6):
                wrap = make_wrap(
                    statement,
                    b"k" * 32,
                    grantee=enemy.own.member_id,
                    recipient=enemy.own.member.hpke.public,
                    ephemeral_seed=bytes([number]) * 32,
                    time_s=UnixSeconds(EPOCH),
                )
                await enemy.tell((FactKind.WRAP, encode(sign_wrap(wrap, enemy.own.member.signing))))
            assert len(facts.wraps) == 3
            before = node.knowledge.sketch.count
            for seq in range(1, 6):
                pin = Pin(
                    format=FORMAT,
                    suite=SUITE,
                    network=enemy.own.network_id,
                    domain=enemy.own.domain_id,
                    operator=enemy.own.owner,
                    node=enemy.own.peer_id,
                    owner=statement.owner,
                    hash_id=statement.hash_id,
                    wish="in" if seq % 2 else "out",
                    seq=seq,
                    time_s=UnixSeconds(EPOCH),
                )
                signed_pin = Attested(envelope=sign_pin(pin, enemy.own.member.signing), chain=enemy.own.member.chain)
                await enemy.tell((FactKind.PIN, encode(signed_pin)))
            assert facts.pinned("in") == {enemy.own.peer_id}
            assert node.knowledge.sketch.count == before + 1

    play(story)
