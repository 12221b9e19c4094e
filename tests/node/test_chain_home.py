"""A chain in the home: made by init and testnet, protected like the keys, promised once; what a kit brings back."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.chain_home import BEGIN_AT_ANCHOR_FROM, chain_files, chain_setup, file_of_anchor, first_block, read_chain_file, read_chain_key
from node.chain_keys import REVEALS_PER_CHAIN, act_key, first_tip, recovery_key
from node.chain_store import recover_vote
from node.entropy import SystemEntropy
from node.home import init_home, make_testnet, open_home, slot_clocks
from node.promises import PromiseFile, fresh
from protocols.crypto import SigningKey
from protocols.errors import InvalidObject, LadingError, Reason, UsageError
from protocols.identity.kit import parse_kit
from protocols.join.messages import ChainAnchor
from protocols.ledger.envelope import decode_body
from protocols.ledger.genesis import Body, apply_genesis
from protocols.ledger.transactions import council_recover
from protocols.types import AccountId, ChainId, MemberId
from storage import chain as store
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.overlay import Overlay

LISTEN = ("/ip4/127.0.0.1/tcp/0",)


def none() -> bytes:
    raise AssertionError("no passphrase should be asked for")


def founded(home: Path, passphrase: bytes | None = None) -> dict[str, object]:
    return init_home(home, domain="ACME", name="office", country="DE", listen=LISTEN, passphrase=passphrase)


def genesis_of(home: Path) -> Body:
    chain = read_chain_file(home)
    assert chain is not None
    block = first_block(chain)
    assert block is not None
    apply_genesis(block)
    assert block.info.chain == chain.chain
    return decode_body(block.transactions[0], Body)


def test_init_founds_a_chain_of_one_whose_keys_are_in_the_home(tmp_path: Path) -> None:
    """Goal: a domain begins with its chain. Method: the first block holds; its account is the member's, its miner and its voter this node,
    its council the member, its recovery key the kit's; the promises are fresh."""
    data = founded(tmp_path / "home")
    own, body = open_home(tmp_path / "home", None), genesis_of(tmp_path / "home")
    key, setup = read_chain_key(tmp_path / "home", none), chain_setup(tmp_path / "home", own.member_id, none)
    assert key is not None
    assert setup is not None
    assert own.member is not None
    (account,) = body.certificates
    assert (account.subject, account.key, account.role, account.country) == (own.member_id, own.owner, "manager", "DE")
    (miner,), (member,) = body.miners, body.council.members
    assert (miner.key, miner.tip, miner.tip_count) == (SigningKey(key.seal).public, first_tip(key.reveal), REVEALS_PER_CHAIN)
    assert member.vote_key == SigningKey(key.vote).public
    assert member.key == act_key(own.member.signing.seed, own.domain_id).public
    kit = parse_kit(str(data["recovery_kit"]))
    assert kit.domain is not None
    assert body.council.recovery == (recovery_key(kit.domain.seed, own.domain_id).public,)
    assert (body.profile.network, body.profile.domain) == (own.network_id, own.domain_id)
    assert setup.promises.load() == fresh(setup.chain)


def test_chain_keys_are_under_the_passphrase_of_the_home(tmp_path: Path) -> None:
    """Goal: a stolen disk neither seals nor votes. Method: without the passphrase nothing opens; no seed lies in any file."""
    founded(tmp_path / "home", b"correct horse")
    with pytest.raises(InvalidObject) as refused:
        read_chain_key(tmp_path / "home", lambda: b"battery staple")
    assert refused.value.reason is Reason.WRONG_PASSPHRASE
    key = read_chain_key(tmp_path / "home", lambda: b"correct horse")
    assert key is not None
    stored = b"".join(path.read_bytes() for path in sorted((tmp_path / "home").rglob("*")) if path.is_file())
    for seed in (key.seal, key.vote, key.reveal):
        assert seed not in stored


@pytest.mark.parametrize("count", [1, 3, 7])
def test_testnet_seats_up_to_five(tmp_path: Path, count: int) -> None:
    """Goal: a network that is made at once needs nobody's word. Method: one first block in all homes; up to five miners and members of the
    council, more than half act; everybody has an account; who has no seat has no keys to seal with."""
    rows = make_testnet(count, tmp_path / "net")["nodes"]
    assert isinstance(rows, list)
    homes = [Path(str(row["home"])) for row in rows]
    body = genesis_of(homes[0])
    seats = min(count, 5)
    assert len(body.miners) == len(body.council.members) == seats
    assert body.council.threshold == seats // 2 + 1
    assert len(body.certificates) == count
    assert {read_chain_file(home) for home in homes} == {read_chain_file(homes[0])}
    assert [read_chain_key(home, none) is not None for home in homes] == [index < 5 for index in range(count)]


def test_testnet_with_signers_and_clocks(tmp_path: Path) -> None:
    """Goal: accounts without a node, and clocks of one's own, are in the first block; what no chain can have writes nothing."""
    make_testnet(1, tmp_path / "net", signers=3, clocks=slot_clocks(200) | {"term_blocks": 7})
    body = genesis_of(tmp_path / "net" / "n1")
    assert len(body.certificates) == 4
    assert len(body.miners) == 1
    assert (body.profile.slot_ms, body.profile.late_ms, body.profile.drift_ms_max, body.profile.term_blocks) == (200, 200, 50, 7)
    keys = sorted((tmp_path / "net" / "signers").iterdir())
    assert [path.name for path in keys] == ["s1.key", "s2.key", "s3.key"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    for wrong in ({"clocks": {"term_blocks": 0}}, {"signers": 257}):
        with pytest.raises(UsageError):
            make_testnet(1, tmp_path / "wrong", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "wrong").exists()


def test_damaged_chain_file_says_so_and_a_home_without_one_follows_none(tmp_path: Path) -> None:
    """Goal: never another chain by accident. Method: cut the file; take it away."""
    founded(tmp_path / "home")
    path = tmp_path / "home" / "identity" / "chain"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InvalidObject) as refused:
        read_chain_file(tmp_path / "home")
    assert refused.value.reason is Reason.INTEGRITY
    path.unlink()
    assert chain_setup(tmp_path / "home", open_home(tmp_path / "home", None).member_id, none) is None


def test_kit_gives_a_seat_another_voting_key_with_promises_of_its_own(tmp_path: Path) -> None:
    """Goal: lost promises are not the end of a founder's vote. Method: promises gone; `council recover` with the kit; the act waits in the
    pool, the voting key is new, its promises fresh, and the sealing key rests. Another domain's kit is refused."""
    home = tmp_path / "home"
    kit = str(founded(home)["recovery_kit"])
    stranger = str(founded(tmp_path / "other")["recovery_kit"])
    chain, own = read_chain_file(home), open_home(home, None)
    assert chain is not None
    block = first_block(chain)
    assert block is not None
    with pytest.raises(LadingError) as early:
        recover_vote(home, kit, passphrase=None)
    assert early.value.reason is Reason.NOT_FOUND
    engine = LmdbEngine(home / "ledger.lmdb", Env.LEDGER, budget_bytes=2**30, reserve_bytes=2**20)
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        store.begin(overlay, block, chain=chain.chain)
    engine.write(overlay.writes)
    engine.close()
    before = read_chain_key(home, none)
    (home / "identity" / "promises").unlink()
    with pytest.raises(LadingError) as refused:
        recover_vote(home, stranger, passphrase=None)
    assert refused.value.reason is Reason.WRONG_DOMAIN
    recover_vote(home, kit, passphrase=None)
    after, kept = read_chain_key(home, none), PromiseFile(home / "identity" / "promises").load()
    assert before is not None
    assert after is not None
    assert kept is not None
    assert (after.seal, after.reveal) == (before.seal, before.reveal)
    assert after.vote != before.vote
    assert kept.may_vote
    assert kept.promises.target_height == 0
    assert kept.promises.sealed_slot > 0
    engine = LmdbEngine(home / "ledger.lmdb", Env.LEDGER, budget_bytes=2**30, reserve_bytes=2**20)
    with engine.snapshot() as snapshot:
        (transaction,) = store.own_transactions(snapshot)
    engine.close()
    body = decode_body(transaction, council_recover.Body)
    (member,) = body.council.members
    assert member.id == AccountId(own.member_id)
    assert member.vote_key == SigningKey(after.vote).public


@pytest.mark.parametrize(("height", "begins_there"), [(BEGIN_AT_ANCHOR_FROM - 1, False), (BEGIN_AT_ANCHOR_FROM, True)])
def test_long_history_is_begun_at_the_anchor_and_a_short_one_judged_whole(tmp_path: Path, height: int, begins_there: bool) -> None:
    chain = file_of_anchor(ChainAnchor(ChainId(bytes(range(32))), height, bytes(32)))
    (tmp_path / "identity").mkdir()
    for one in chain_files(chain, None, None, SystemEntropy()):
        (tmp_path / "identity" / one.name).write_bytes(one.data)
    setup = chain_setup(tmp_path, MemberId(bytes(32)), lambda: b"")
    assert setup is not None
    assert (setup.anchor is not None) is begins_there
    assert setup.anchor is None or (setup.anchor.height, setup.anchor.hash) == (height, bytes(32))
