"""Years pass in minutes: everybody's clock is set forward together, step by step, and whole nodes go on living on the same disks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node import home
from node.actors.puts import PutOptions
from node.own import IssuerKeys, MemberKeys, OwnKeys
from node.recovery import new_issuer
from node.wiring import Node
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.errors import LadingError, Reason
from protocols.identity.certificates import MEMBER, chain_validity, make_node, verify_chain
from protocols.identity.fences import founding_fence
from protocols.identity.keyfiles import MemberKey
from protocols.identity.peers import peer_id_of
from storage.engine import Env
from tests.node.hostile.scene import EPOCH, Scene, play, scene

DAY = 86400
YEAR = 365 * DAY
PATIENCE_S = 3600.0
# Virtual seconds between two looks at the nodes, as the world's own checkers look.
LOOK_S = 5.0


def holder_only(stage: Scene, name: str, member: MemberKey) -> OwnKeys:
    """Keys of a member's node that has none of the member's."""
    own = stage.own(name, member=member)
    key = SigningKey(stage.entropy.fork(f"card {name}").token(32))
    assert own.member is not None
    certificate = make_node(
        own.member.signing,
        member.chain[0],
        peer_id=peer_id_of(key.public),
        node_public=key.public,
        host_label=name,
        weight=home.NODE_WEIGHT,
        holder_only=True,
        serial=bytes(16),
        not_before=EPOCH,
        not_after=EPOCH + YEAR,
    )
    chain = (certificate, *member.chain)
    identity = verify_chain(chain, stage.roots, now=EPOCH, revocations=None)
    return OwnKeys(
        network=own.network,
        domain_id=own.domain_id,
        roots=own.roots,
        node=key,
        node_chain=chain,
        identity=identity,
        member=None,
        issuer=None,
        fences=own.fences,
    )


async def until(found: Callable[[], object], what: str) -> None:
    deadline = trio.current_time() + PATIENCE_S
    while not found():
        assert trio.current_time() < deadline, f"waited an hour for {what}"
        await trio.sleep(LOOK_S)


def is_meshed(nodes: list[Node]) -> bool:
    return all(len(node.peers.sessions) == len(nodes) - 1 for node in nodes)


def member_ends(node: Node) -> int:
    return chain_validity(node.membership.own.node_chain[1:], MEMBER)[1]


def ends(node: Node) -> int:
    return node.membership.own.identity.not_after


def test_nobody_drops_out_in_seven_years_of_renewals() -> None:
    """Goal: member and node certificates pass two thirds again and again, of full and holder-only nodes, and all stay connected under valid
    chains. Method: a founder, a member with two full nodes and a holder-only one, another member; 43 times sixty days pass."""

    async def story() -> None:
        async with scene() as stage:
            alice = stage.member("alice")
            founder = await stage.start("founder")
            first = await stage.start("first", own=stage.own("first", member=alice), issues=False)
            second = await stage.start("second", own=stage.own("second", member=alice), issues=False)
            card = await stage.start("card", own=holder_only(stage, "card", alice), issues=False)
            bob = await stage.start("bob", issues=False)
            nodes = [founder, first, second, card, bob]
            await until(lambda: is_meshed(nodes), "the beginning")
            member, bounds = first.own.member_id, (first.own.identity.nodes_max, first.own.identity.hpke)
            seen: dict[Node, set[tuple[bytes, ...]]] = {node: set() for node in nodes}
            for _ in range(43):
                stage.clock.let_pass(60 * DAY)
                now = int(stage.clock.now())
                # Two thirds of a lifetime, and a step: nobody is renewed later than due.
                late = now + 120 * DAY - 60 * DAY
                await until(lambda late=late: all(ends(node) > late for node in nodes), "the nodes to be renewed")  # type: ignore[misc]  # bound now
                late = now + 240 * DAY - 60 * DAY
                await until(lambda late=late: all(member_ends(node) > late for node in nodes), "the members to be renewed")  # type: ignore[misc]  # bound now
                await until(lambda: is_meshed(nodes), "all to be connected")
                await until(lambda: len({member_ends(node) for node in (first, second, card)}) == 1, "one certificate of one member")
                for node in nodes:
                    verify_chain(node.membership.own.node_chain, node.own.roots, now=now, revocations=node.knowledge.revocations)
                    seen[node].add(node.membership.own.node_chain[1:])
            assert all(len(chains) >= 5 for chains in seen.values()), {node: len(chains) for node, chains in seen.items()}
            for node in (first, second, card):
                identity = node.membership.own.identity
                assert (identity.member_id, (identity.nodes_max, identity.hpke)) == (member, bounds)
            rows = {str(row["name"]): row for row in bob.membership.members()}
            assert rows["alice"]["not_after"] == member_ends(first)
            # What was renewed is on the disks: a node that comes back has it.
            await stage.stop(second)
            again = await stage.start(
                "second", own=second.own.with_node_chain(stage.own("second", member=alice).node_chain, second.own.identity)
            )
            assert member_ends(again) == member_ends(first)
            await until(lambda: is_meshed([founder, first, again, card, bob]), "it to be back")

    play(story)


def test_member_whose_issuer_is_away_is_renewed_when_it_or_another_one_comes() -> None:
    """Goal: renewal survives an issuer that is away. Method: the only issuing node is off when Alice's certificate is due, then comes back;
    at the next time it stays off and another issuing node is there; at the third Alice reaches an issuer through Bob alone."""

    async def story() -> None:
        async with scene(2) as stage:
            founder_keys, issuing_keys = stage.own("founder", issues=True), stage.own("other", issues=True)
            founder = await stage.start("founder", own=founder_keys)
            alice = await stage.start("alice", issues=False)
            bob = await stage.start("bob", issues=False)
            await until(lambda: is_meshed([founder, alice, bob]), "the beginning")
            await stage.stop(founder)
            stage.clock.let_pass(500 * DAY)
            before = member_ends(alice)
            with pytest.raises(LadingError) as refused:
                await alice.membership.renewal.renew_now()
            assert refused.value.reason is Reason.UNREACHABLE
            assert member_ends(alice) == before
            founder = await stage.start("founder", own=founder_keys)
            await until(lambda: member_ends(alice) > before, "the issuer that came back")
            await until(lambda: member_ends(bob) > before, "Bob's as well")
            await stage.stop(founder)
            other = await stage.start("other", own=issuing_keys)
            await until(lambda: is_meshed([alice, bob, other]), "another issuer to be there")
            before = member_ends(alice)
            stage.clock.let_pass(500 * DAY)
            await until(lambda: member_ends(alice) > before, "another issuer")
            stage.network.cut(alice.own.peer_id, other.own.peer_id)
            stage.network.reset(alice.own.peer_id, other.own.peer_id)
            await until(lambda: other.own.peer_id not in alice.peers.sessions, "the cut")
            before = member_ends(alice)
            stage.clock.let_pass(30 * DAY)
            assert (await alice.membership.renewal.renew_now())["member_not_after"] == member_ends(alice)
            assert member_ends(alice) > before

    play(story)


def test_revoked_member_is_not_renewed_and_stays_out() -> None:
    """Goal: renewal is no way back. Method: Alice is put out, asks at once, and again after years."""

    async def story() -> None:
        async with scene(3) as stage:
            founder = await stage.start("founder")
            alice = await stage.start("alice", issues=False)
            bob = await stage.start("bob", issues=False)
            await until(lambda: is_meshed([founder, alice, bob]), "the beginning")
            request_chain = alice.membership.own.node_chain[1:]
            await founder.membership.revoke("alice", "left")
            await until(lambda: not alice.peers.sessions, "Alice to be dropped")
            stage.clock.let_pass(500 * DAY)
            await trio.sleep(PATIENCE_S)
            assert alice.membership.own.node_chain[1:] == request_chain
            assert not alice.peers.sessions
            assert founder.peers.is_connected(bob.own.peer_id)

    play(story)


async def pass_days(stage: Scene, nodes: list[Node], days: int) -> None:
    """Days pass, sixty at a time, and whoever is on renews."""
    for _ in range(days // 60):
        stage.clock.let_pass(60 * DAY)
        late = int(stage.clock.now()) + 60 * DAY
        await until(lambda late=late: all(ends(node) > late for node in nodes), "the nodes to be renewed")  # type: ignore[misc]  # bound now
        await until(lambda: is_meshed(nodes), "all to be connected")


async def put(node: Node, path: Path, text: str, ack: str) -> bytes:
    """HashID of a small record."""
    await trio.Path(path).write_text(text)
    data, _ = await node.files.put([path], PutOptions(ack=ack), progress=lambda facts: None)
    return bytes.fromhex(str(data["record"]))


def statement_of(node: Node, hash_id: bytes) -> bytes | None:
    """Hash of the statement in force at a node."""
    found = [facts for (_, one), facts in node.knowledge.records.items() if one == hash_id]
    return node.knowledge.verdict(found[0]).statement if found else None


def test_node_away_for_more_than_400_days_is_told_so_and_what_it_alone_knows_waits_for_its_owner(tmp_path: Path) -> None:
    """Goal: a long absence neither resurrects nor deletes anything, and the way back is named. Method: alone, Alice publishes a record
    and deletes another that all have; she is off while the fence rotates and 480 days pass; her old fences open nothing, and an alert says
    what to do; with new fences and her old disks she is back: what Bob knows counts, what he does not is held until she re-affirms it."""

    async def story() -> None:
        async with scene(4) as stage:
            keys = stage.own("alice")
            founder = await stage.start("founder")
            bob = await stage.start("bob", issues=False)
            alice = await stage.start("alice", own=keys, issues=False)
            await until(lambda: is_meshed([founder, bob, alice]), "the beginning")
            common = await put(alice, tmp_path / "common", "known to all", "full")
            await until(lambda: statement_of(bob, common), "the record to be known")
            for node in (founder, bob):
                stage.network.cut(alice.own.peer_id, node.own.peer_id)
                stage.network.reset(alice.own.peer_id, node.own.peer_id)
            await until(lambda: not alice.peers.sessions, "Alice to be alone")
            lonely = await put(alice, tmp_path / "lonely", "known to nobody", "local")
            await alice.files.remove(common.hex(), "delete", dry_run=False)
            assert statement_of(alice, common) is None
            await stage.stop(alice)
            stage.network.heal_all()
            await founder.membership.rotate_fence()
            await pass_days(stage, [founder, bob], 480)

            alice = await stage.start("alice", own=keys, issues=False)
            await until(lambda: "away" in alice.membership.alerts, "the others to say why not")
            assert "400 days" in alice.membership.alerts["away"]
            assert "lading join TICKET --again" in alice.membership.alerts["away"]
            assert not alice.peers.sessions
            await stage.stop(alice)

            # What `join --again` writes down: new fences, and everything held back.
            ledger = stage.disks["alice"][Env.LEDGER]
            with ledger.snapshot() as snapshot:
                held = home.held_back(snapshot)
            ledger.write(held)
            assert len(held) == 3
            alice = await stage.start("alice", own=replace(keys, fences=founder.knowledge.fences.fences), issues=False)
            await until(lambda: is_meshed([founder, bob, alice]), "Alice to be back")
            await until(lambda: len(alice.knowledge.held) == 2, "what others know to count again")
            assert "away" not in alice.membership.alerts
            await trio.sleep(PATIENCE_S)
            assert statement_of(alice, common) == statement_of(bob, common) is not None
            assert statement_of(alice, lonely) is None
            assert statement_of(bob, lonely) is None
            assert len(alice.knowledge.held_records()) == 2

            assert (await alice.files.reaffirm(lonely.hex()))["reaffirmed"] == 1
            await until(lambda: statement_of(bob, lonely), "the re-affirmed record to spread")
            assert statement_of(bob, common) is not None
            await stage.stop(alice)
            alice = await stage.start("alice", own=alice.own, issues=False)
            assert [facts.key[1] for facts in alice.knowledge.held_records()] == [common]

    play(story)


def test_founder_restored_long_after_the_last_issuer_died_is_let_in_and_renews_the_others() -> None:
    """Goal: the kit works as long as anybody lives. Method: the fence has rotated, the founder dies; 540 days later, when its
    secret opens nothing else any more, a founder made of what the kit holds comes, and a member that is due gets its certificate."""

    async def story() -> None:
        async with scene(5) as stage:
            founder = await stage.start("founder")
            await founder.membership.rotate_fence()
            alice = await stage.start("alice", issues=False)
            bob = await stage.start("bob", issues=False)
            await until(lambda: is_meshed([founder, alice, bob]), "the beginning")
            await stage.stop(founder)
            await pass_days(stage, [alice, bob], 540)
            before, now = member_ends(alice), int(stage.clock.now())
            assert alice.membership.dial_keys()[-1].id == stage.founding.network.fences[0].attested.envelope.body[-32:]

            root = stage.founding.network.roots[0]
            again = home.Founding(
                root_seed=stage.founding.root_seed,
                root=root,
                issuer=new_issuer(SigningKey(stage.founding.root_seed), root, stage.entropy.fork("kit"), now),
                network=stage.founding.network,
            )
            member = home.certify_member(again, "founder", stage.entropy.fork("kit"), now, nodes_max=4, weight_max=400)
            node = home.certify_node(member, "again", stage.entropy.fork("kit"), now)
            identity = verify_chain(node.chain, stage.roots, now=now, revocations=None)
            own = replace(
                founder.own,
                node=SigningKey(node.seed),
                node_chain=node.chain,
                identity=identity,
                member=MemberKeys(SigningKey(member.seed), HpkePrivateKey(member.hpke_seed), founder.own.member.secrets, member.chain),  # type: ignore[union-attr]  # a full node
                issuer=IssuerKeys(SigningKey(again.issuer.seed), HpkePrivateKey(again.issuer.hpke_seed), again.issuer.chain),
                fences=(founding_fence(again.root_seed, root, stage.founding.network.id),),  # type: ignore[arg-type]  # a NetworkId
            )
            restored = await stage.start("again", own=own)
            await until(lambda: is_meshed([alice, bob, restored]), "the founder to be let in")
            await until(lambda: member_ends(alice) > before, "Alice's renewal by the new issuer")

    play(story)
