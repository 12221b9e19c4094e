"""Members that lost what they promised, and what is denied before it is final."""

from __future__ import annotations

import pytest
import trio

from node.promises import Kept
from protocols.codec import decode
from protocols.ledger.deny import Denial
from protocols.ledger.envelope import NO_SERIAL, Transaction, sign_transaction
from protocols.ledger.transactions import cert_status, key_rotate
from tests.protocols.ledger import chains

from .chain_world import ChainWorld
from .test_chain import first_final, life

ROTATE = "lading council rotate"


def said_by(world: ChainWorld, name: str) -> int:
    return len(world.said.get(chains.account_of(name), {}))


async def make(world: ChainWorld, name: str, salt: bytes) -> Transaction:
    """A KeyRotate of this member's voting key, not told yet; the key is on its node's disk."""
    seat, account = world.seats[name], chains.account_of(name)
    new = await seat.chain.make_key("vote", salt)
    head = seat.chain.head()
    assert head is not None
    old = head.committee.key_of(account)
    assert old is not None
    body = key_rotate.Body("vote", account, old, new.public, b"")
    content = world.template.content("KeyRotate", body, account, NO_SERIAL, **world.times())
    return sign_transaction(content, [chains.key_of(name, "council"), new])


async def goes_on(world: ChainWorld, *, without: str = "", within_s: float = 120) -> None:
    """A transaction becomes final, with one of the others dead where it says so."""
    if without:
        await world.seats[without].kill()
    height = min(world.final_heights())
    await world.live()[0].chain.submit(world.folder())
    await world.until(
        lambda: min(world.final_heights()) > height, within_s=within_s, what=f"finality without {without or 'anybody lacking'}"
    )
    if without:
        await world.seats[without].start()


async def key_in_force(world: ChainWorld, name: str, key: bytes) -> None:
    def holds() -> bool:
        for seat in world.live():
            head, final = seat.chain.head(), seat.chain.checkpoints()[1]
            if head is None or head.committee.key_of(chains.account_of(name)) != key or head.committee.from_height > final.height + 1:
                return False
        return True

    await world.until(holds, within_s=120, what="the new key in force and final")


def test_member_rotates_its_voting_key_while_it_votes() -> None:
    """Goal: a key is replaced live and nothing stops. Method: each of four members rotates in turn; after each finality needs the new key;
    what was promised goes on; nobody says two things, and a restart finds the key again."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        for name, other in zip("abcd", "bcda", strict=True):
            seat = world.seats[name]
            promised = decode(seat.promises.data or b"", Kept).promises.target_height
            rotate = await make(world, name, name.encode() * 32)
            assert seat.ring.rotated[-1].begins == "follows"
            await seat.chain.submit(rotate)
            await key_in_force(world, name, seat.ring.key(seat.ring.rotated[-1]).public)
            await goes_on(world, without=other)
            kept = decode(seat.promises.data or b"", Kept)
            assert kept.may_vote
            assert kept.promises.target_height > promised
            assert "promises" not in seat.chain.alerts
        await world.agree()
        await world.seats["a"].kill()
        await trio.sleep(1)
        await world.seats["a"].start()
        await goes_on(world, without="b")
        await world.agree()

    life(64, story)


@pytest.mark.parametrize("step", ["made", "told", "in a block", "in force"])
@pytest.mark.parametrize("is_lost", [False, True], ids=["promises-known", "promises-lost"])
def test_crash_at_every_step_of_a_rotation_leaves_a_member_that_votes_on_and_never_twice(step: str, is_lost: bool) -> None:
    """Goal: no step leaves a seat without a voter for good, or a voter that breaks a promise. Method: d, with its promises or after they
    were deleted, is killed when the key is made, told, in a block, in force; it starts again, the change is made again where it was never
    told, and then finality needs d's new key. Every vote is compared with all others of the member."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        d = world.seats["d"]
        if is_lost:
            await d.kill()
            d.promises.data = None
            await d.start()
            await world.until(lambda: d.chain.may_act() and ROTATE in d.chain.alerts.get("promises", ""), within_s=60, what="it says so")
        said = said_by(world, "d")
        rotate = await make(world, "d", b"1" * 32)
        new = d.ring.key(d.ring.rotated[-1]).public
        assert d.ring.rotated[-1].begins == ("waits" if is_lost else "follows")
        if step != "made":
            await d.chain.submit(rotate)
        if step == "in a block":
            await world.until(lambda: not len(world.seats["a"].chain.pool) and not len(d.chain.pool), within_s=60, what="a block")
        if step == "in force":
            await key_in_force(world, "d", new)
        await d.kill()
        await trio.sleep(5)
        await d.start()
        await world.until(lambda: d.chain.may_act(), within_s=60, what="its time")
        if step == "made":
            if is_lost:
                await trio.sleep(10)
                assert said_by(world, "d") == said, "a key that was never told changes nothing"
            rotate = await make(world, "d", b"2" * 32)
            new = d.ring.key(d.ring.rotated[-1]).public
            await d.chain.submit(rotate)
        await key_in_force(world, "d", new)
        await goes_on(world, without="a")
        await world.until(lambda: "promises" not in d.chain.alerts, within_s=30, what="nothing to mend")
        assert said_by(world, "d") > said
        await d.kill()
        await d.start()
        await world.until(lambda: d.chain.may_act(), within_s=60, what="its time")
        await goes_on(world, without="b")
        await world.agree()

    life(61, story)


def test_key_whose_promises_began_never_begins_again() -> None:
    """Goal: a crash between the two files, and a second loss, are losses, not beginnings. Method: d's promises are lost and its key is
    rotated; the disk takes that it began and not what it promises; then it did begin, and the promises are deleted again. Both times it is
    silent and says what mends it, and that mends it."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        d = world.seats["d"]
        await d.kill()
        d.promises.data = None
        await d.start()
        await world.until(lambda: d.chain.may_act(), within_s=60, what="its time")
        await d.chain.submit(await make(world, "d", b"1" * 32))
        d.promises.save = broken_disk  # type: ignore[method-assign]
        await world.until(lambda: d.ring.rotated[0].begins == "began", within_s=60, what="the first of the two files")
        await d.kill()
        del d.promises.save
        for salt in (b"2", b"3"):
            d.promises.data = None
            said = said_by(world, "d")
            await d.start()
            await world.until(lambda: ROTATE in d.chain.alerts.get("promises", ""), within_s=60, what="it says so")
            await world.until(lambda: d.chain.may_act(), within_s=60, what="its time")
            await goes_on(world)
            assert said_by(world, "d") == said
            await d.chain.submit(await make(world, "d", salt * 32))
            await key_in_force(world, "d", d.ring.key(d.ring.rotated[-1]).public)
            await goes_on(world, without="a")
            assert said_by(world, "d") > said
            await d.kill()
        await d.start()
        await world.agree()

    life(65, story)


def broken_disk(kept: Kept) -> None:
    raise OSError(5, "input/output error")


def test_seat_whose_key_is_not_on_the_node_says_so_and_is_mended_by_another() -> None:
    """Goal: an identity restored from an old backup. Method: d rotates, its file of rotated keys and its promises go back to what they were
    before: the seat's key is not there; it is silent, says the command, which mends it; two members of two are told of the kit instead."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        d = world.seats["d"]
        old = d.promises.data
        await d.chain.submit(await make(world, "d", b"1" * 32))
        await key_in_force(world, "d", d.ring.key(d.ring.rotated[-1]).public)
        await d.kill()
        d.promises.data, d.ring.rotated = old, ()
        said = said_by(world, "d")
        await d.start()
        await world.until(lambda: "not on this node" in d.chain.alerts.get("promises", ""), within_s=60, what="it says so")
        await world.until(lambda: d.chain.may_act(), within_s=60, what="its time")
        assert ROTATE in d.chain.alerts["promises"]
        await goes_on(world)
        assert said_by(world, "d") == said
        await d.chain.submit(await make(world, "d", b"2" * 32))
        assert d.ring.rotated[-1].begins == "waits"
        await key_in_force(world, "d", d.ring.key(d.ring.rotated[-1]).public)
        await goes_on(world, without="a")
        await world.agree()

    async def of_two(world: ChainWorld) -> None:
        await first_final(world)
        b = world.seats["b"]
        await b.kill()
        b.promises.data = None
        await b.start()
        await world.until(lambda: "lading council recover KIT" in b.chain.alerts.get("promises", ""), within_s=60, what="it says so")

    life(66, story)
    life(67, of_two, members=("a", "b"))


def test_miner_rotates_its_sealing_key_while_it_seals() -> None:
    """Goal: the same for the key with which a node seals. Method: the only miner of three members rotates; the chain goes on by its new
    key, also after a restart."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        a, account = world.seats["a"], chains.account_of("a")
        new = await a.chain.make_key("seal", b"1" * 32)
        body = key_rotate.Body("seal", account, chains.key_of("a", "seal").public, new.public, b"")
        content = world.template.content("KeyRotate", body, account, chains.serial_of("a"), **world.times())
        await a.chain.submit(sign_transaction(content, [chains.key_of("a"), new]))
        await goes_on(world)
        await world.until(lambda: a.chain.keys.seal is not None and a.chain.keys.seal.public == new.public, within_s=60, what="the new key")
        await goes_on(world)
        await a.kill()
        await a.start()
        await goes_on(world)
        await world.agree()

    life(68, story, members=("a", "b", "c"), miners=("a",), seats=1)


def test_revocation_is_denied_before_it_is_final_and_until_then_after_a_restart() -> None:
    """Goal: what takes away works at once. Method: no quorum, so nothing becomes final; ann's certificate is revoked; every node that
    heard of it denies it, a restarted one too; healed, the state says it and the set is empty."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        for name in ("c", "d"):
            await world.seats[name].kill()
        denial = Denial("certificate", chains.serial_of("ann"))
        await world.act("CertStatus", cert_status.Body(chains.serial_of("ann"), "revoke", "left"))
        await world.until(lambda: all(seat.chain.denied.is_denied(denial) for seat in world.live()), within_s=20, what="denied at once")
        await world.until(lambda: not any(len(seat.chain.pool) for seat in world.live()), within_s=120, what="in a block")
        assert all(seat.chain.denied.is_denied(denial) for seat in world.live())
        await world.seats["b"].kill()
        await world.seats["b"].start()
        await world.until(lambda: world.seats["b"].chain.denied.is_denied(denial), within_s=5, what="denied after a restart")
        for name in ("c", "d"):
            await world.seats[name].start()
        await world.until(
            lambda: not any(seat.chain.denied.denials() for seat in world.live()), within_s=120, what="final, so the state says it"
        )
        await world.act("CertStatus", cert_status.Body(chains.serial_of("bob"), "suspend", "why"))
        assert world.live()[0].chain.denied.denials() == {Denial("certificate", chains.serial_of("bob"))}

    life(62, story)
