"""Members that lost what they promised, and what is denied before it is final."""

from __future__ import annotations

from dataclasses import replace

import trio

from protocols.ledger.deny import Denial
from protocols.ledger.envelope import NO_SERIAL, sign_transaction
from protocols.ledger.transactions import cert_status, key_rotate
from tests.protocols.ledger import chains

from .chain_world import ChainWorld
from .test_chain import first_final, life


def test_member_whose_promises_were_deleted_votes_again_with_a_rotated_key_alone() -> None:
    """Goal: an amnesiac endangers nothing and comes back. Method: d's promise file is gone: it is silent, finality needs the other three;
    its key is rotated, and then one of the three may die."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        lost = world.seats["d"]
        await lost.kill()
        lost.promises.data = None
        await lost.start()
        await trio.sleep(15)
        said = len(world.said[chains.account_of("d")])
        height = min(world.final_heights())
        await world.submit("a")
        await world.until(lambda: min(world.final_heights()) > height, within_s=60, what="finality by three")
        assert len(world.said[chains.account_of("d")]) == said
        assert "promises" in lost.chain.alerts
        new = chains.key_of("d", "second vote")
        body = key_rotate.Body("vote", chains.account_of("d"), chains.key_of("d", "vote").public, new.public, b"")
        content = world.template.content("KeyRotate", body, chains.account_of("d"), NO_SERIAL, **world.times())
        await lost.chain.submit(sign_transaction(content, [chains.key_of("d", "council"), new]))
        lost.keys = replace(lost.keys, vote=new)
        await lost.chain.take_vote_key(new)
        await world.agree()
        await world.seats["a"].kill()
        height = min(world.final_heights())
        await world.submit("b")
        await world.until(lambda: min(world.final_heights()) > height, within_s=120, what="finality that needs the new key")
        assert "promises" not in lost.chain.alerts
        await lost.kill()
        await lost.start()
        await trio.sleep(15)
        height = min(world.final_heights())
        await world.submit("b")
        await world.until(lambda: min(world.final_heights()) > height, within_s=120, what="its new promises outlive a restart")
        await world.seats["a"].start()
        await world.agree()

    life(61, story)


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
