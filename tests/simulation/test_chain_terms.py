"""Lists of miners that change by transactions alone: hand-overs by nodes, growth and shrinking, dead miners at a boundary, rescue."""

from __future__ import annotations

import trio

from protocols.codec import decode, replace
from protocols.ledger.checks import u64
from protocols.ledger.envelope import Transaction
from protocols.ledger.profile import DEFAULT_POLICY, Cluster
from protocols.ledger.sync import HeaderRow
from protocols.ledger.terms import HANDOVER, ORDER, Order, Term, Tip
from protocols.ledger.transactions.cluster_define import Body as ClusterBody
from protocols.ledger.transactions.policy_list_update import Body as PolicyBody
from protocols.types import TxId
from storage import chain as store
from tests.protocols.ledger import chains

from .chain_world import ChainWorld, Seat
from .test_chain import life

MEMBERS = ("a", "b", "c", "d")
MINERS = ("m1", "m2", "m3", "m4", "m5")


def tip_of(seat: Seat) -> Tip:
    return decode(seat.read("tip")[b""], Tip)


def list_of(seat: Seat) -> tuple[int, tuple[bytes, ...]]:
    """Number and list of the term that the head belongs to."""
    term = decode(seat.read("term")[u64(tip_of(seat).term)], Term)
    return term.number, term.miners


async def terms_go_by(world: ChainWorld, count: int, *, within_s: float = 600.0, by: str = "a") -> None:
    """Somebody always has something to say, until so many boundaries were passed."""
    end = trio.current_time() + within_s
    wanted = tip_of(world.seats[by]).term + count
    while tip_of(world.seats[by]).term < wanted:
        await a_block(world, by=by, within_s=end - trio.current_time(), what=f"term {wanted}")


async def a_block(world: ChainWorld, *, by: str = "a", within_s: float = 60.0, what: str = "a block") -> None:
    """Somebody has something to say, until the head is higher."""
    height = world.seats[by].chain.checkpoints()[0].height
    await world.submit(by)
    await world.until(lambda: world.seats[by].chain.checkpoints()[0].height > height, within_s=within_s, what=what)


def test_lists_grow_and_shrink_by_transactions_alone() -> None:
    """Goal: 1 → 2 → 3 → 5 → 3 → 1 miners. Method: five candidates that hand over by themselves; the council moves the seats."""
    seen: list[int] = []

    async def story(world: ChainWorld) -> None:
        await trio.sleep(15)
        for seats in (1, 2, 3, 5, 3, 1):
            await world.act("ClusterDefine", ClusterBody(Cluster("all", (), seats))) if seats != 1 or seen else None
            await terms_go_by(world, 3)
            lists = [list_of(seat) for seat in world.live()]
            assert len(max(lists)[1]) == seats
            seen.append(seats)
        await world.agree()

    life(21, story, members=("a", "b", "c"), miners=("a", "b", "c", "m1", "m2"), seats=1, term_blocks=5)
    assert seen == [1, 2, 3, 5, 3, 1]


def test_nodes_heed_a_lowered_and_a_raised_limit_of_the_policy_list_from_the_next_term_on() -> None:
    """Goal: the council's limit is every node's. Method: three seats, three candidates that hand over by themselves; 1 allowed, then 3: the
    list of the term in which that comes into force stays, the next one has so many."""
    seen: list[int] = []

    async def story(world: ChainWorld) -> None:
        await trio.sleep(15)
        await terms_go_by(world, 1)
        for version, allowed in ((2, 1), (3, 3)):
            height = world.seats["a"].chain.checkpoints()[0].height
            await world.act("PolicyListUpdate", PolicyBody(height + 2, replace(DEFAULT_POLICY, version=version, miners_max=allowed)))
            while world.seats["a"].chain.checkpoints()[0].height < height + 2:
                await a_block(world)
            assert len(list_of(world.seats["a"])[1]) == (3 if allowed == 1 else 1)
            await terms_go_by(world, 1)
            await world.agree()
            (listed,) = {list_of(seat) for seat in world.live()}
            seen.append(len(listed[1]))
        await world.agree()

    life(24, story, members=("a", "b", "c"), seats=3, term_blocks=8, watchers=("w",))
    assert seen == [1, 3]


def test_last_live_miner_at_a_boundary_goes_on() -> None:
    """Goal: dead miners cost slots, no terms. Method: three of a list; two are killed; two boundaries are passed and all is final."""

    async def story(world: ChainWorld) -> None:
        await trio.sleep(15)
        await terms_go_by(world, 2)
        for name in ("m1", "m3"):
            await world.seats[name].kill()
        await terms_go_by(world, 2)
        assert list_of(world.seats["a"])[1] == tuple(sorted(chains.account_of(name) for name in ("m1", "m2", "m3")))
        await world.until(lambda: bool(world.seats["a"].read(HANDOVER)), within_s=60, what="a hand-over of the one that lives")
        assert {key[8:] for key in world.seats["a"].read(HANDOVER)} == {chains.account_of("m2")}
        for name in ("m1", "m3"):
            await world.seats[name].start()
        await world.agree()

    life(22, story, members=MEMBERS, miners=MINERS[:3], seats=3, term_blocks=6)


def test_all_miners_of_a_term_dead_are_rescued_by_the_candidates() -> None:
    """Goal: no set of dead miners stops a chain. Method: one seat, three candidates; whoever sits is killed; after rescue_slots another
    opens the next term with all of them."""

    async def story(world: ChainWorld) -> None:
        await trio.sleep(15)
        await terms_go_by(world, 2)
        number, sitting = list_of(world.seats["a"])
        assert len(sitting) == 1
        dead = next(name for name in MINERS[:3] if chains.account_of(name) == sitting[0])
        await world.agree()
        await world.seats[dead].kill()
        height = world.seats["a"].chain.checkpoints()[0].height
        await world.submit("a")
        await world.until(lambda: world.seats["a"].chain.checkpoints()[0].height > height, within_s=120, what="rescue")
        rescued, miners = list_of(world.seats["a"])
        assert rescued == number + 1
        assert miners == tuple(sorted(chains.account_of(name) for name in MINERS[:3]))
        await world.seats[dead].start()
        await world.agree()

    life(23, story, members=MEMBERS, miners=MINERS[:3], seats=1, term_blocks=12, rescue_slots=40)


def test_candidate_is_seated_only_when_it_has_downloaded_the_whole_ledger() -> None:
    """Goal: a take-over with a full download. Method: two seats, three candidates; one of them loses its database and begins at an anchor,
    while nobody gives it history: it is drawn, hands nothing over, and sits in no term of six. Then history comes: it hands over when it
    has the first block, and not before; it is on the list, and seals."""

    async def story(world: ChainWorld) -> None:
        late, account = world.seats["m1"], chains.account_of("m1")
        await trio.sleep(15)
        await late.kill()
        late.lose_database()
        await terms_go_by(world, 2)
        late.knows_genesis, late.anchor = False, world.seats["a"].chain.checkpoints()[1]
        given = {name: world.seats[name].chain.history_before for name in MEMBERS[:2]}

        async def nothing(before: bytes) -> tuple[HeaderRow, ...]:
            return ()

        for name in given:
            world.seats[name].chain.history_before = nothing  # type: ignore[method-assign]
        await late.start()
        posted: list[int] = []
        honest_submit = late.chain.submit

        async def submit(transaction: Transaction) -> TxId:
            with late.engine.snapshot() as snapshot:
                posted.append(store.lowest_height(snapshot))
            return await honest_submit(transaction)

        late.chain.submit = submit  # type: ignore[method-assign]
        for _ in range(6):
            await terms_go_by(world, 1)
            order = world.seats["a"].read(ORDER)
            assert any(account in line for value in order.values() for _, line in decode(value, Order).clusters), "it is drawn"
            assert account not in list_of(world.seats["a"])[1]
        final = world.seats["a"].chain.checkpoints()[1].height
        await world.until(lambda: late.chain.checkpoints()[1].height >= final, within_s=30, what="it follows")
        assert late.chain.lowest_height > 0
        assert late.node is not None
        assert (posted, late.node.sealer.sealed) == ([], 0)

        for name, honest in given.items():
            world.seats[name].chain.history_before = honest  # type: ignore[method-assign]
        for _ in range(12):
            await terms_go_by(world, 1)
            if late.node.sealer.sealed:
                break
        assert late.node.sealer.sealed > 0
        assert set(posted) == {0}, "it hands over with all of it"
        await world.agree()

    life(24, story, members=MEMBERS[:2], miners=("a", "b", "m1"), seats=2, term_blocks=5)
