"""The first block: made once by the founders, the same for everybody, and the only block without parent, nonce and seal."""

from __future__ import annotations

from collections.abc import Iterable

from ..codec import encode
from ..crypto import FORMAT, SigningKey
from ..errors import InvalidBlock, InvalidTransaction, Reason, Undecided
from ..limits import TX_BYTES_MAX
from ..merkle import EMPTY_ROOT
from ..types import AccountId, ChainId, UnixMillis
from .block import NO_FILTER, NO_MINER, ZERO_HASH, ZERO_REVEAL, Block, BlockInfo, Header, block_merkle_root, check_block_form
from .carried import committee_at
from .context import Context
from .draw import miner_list_hash
from .envelope import ENVELOPE_VERSION, NO_SERIAL, ZERO_CHAIN, Content, Transaction, check_form, decode_body, sign_transaction
from .schedule import SCHEDULE
from .state import MemoryState, Overlay
from .transactions import chain_genesis
from .transition import Applied, Schedule
from .work import easiest_target

Body = chain_genesis.Body


def sign_genesis(body: Body, *, sender: AccountId, keys: Iterable[SigningKey]) -> Transaction:
    """The genesis transaction, by the keys of the council that it names; its id is the chain's."""
    content = Content(
        version=ENVELOPE_VERSION,
        chain=ZERO_CHAIN,
        kind=chain_genesis.KIND.number,
        sender=sender,
        serial=NO_SERIAL,
        ts_ms=body.time_ms,
        until_ms=body.time_ms,
        links=(),
        body=encode(body),
    )
    transaction = sign_transaction(content, keys)
    assert len(encode(transaction)) <= TX_BYTES_MAX
    return transaction


def genesis_block(transaction: Transaction) -> Block:
    """The first block around a genesis transaction. Raises InvalidTransaction when it is none."""
    body = decode_body(transaction, Body)
    context = _execute(transaction, body, SCHEDULE)
    info = _info(transaction, body, context.state.change().root)
    header = Header(body.time_ms, block_merkle_root(info, (transaction,)), body.version, ZERO_HASH, 0)
    return Block(header.encoded, info, (transaction,), (), b"")


def _info(transaction: Transaction, body: Body, root: bytes) -> BlockInfo:
    return BlockInfo(
        format=FORMAT,
        chain=ChainId(transaction.id),
        height=0,
        slot=0,
        miner=NO_MINER,
        term=0,
        target=easiest_target(body.profile.work_bits_first).to_bytes(32, "big"),
        state_root=root,
        miner_list=miner_list_hash([miner.candidate for miner in body.miners]),
        reveal=ZERO_REVEAL,
        new_tip=b"",
        new_tip_count=0,
        votes_root=EMPTY_ROOT,
        filter=NO_FILTER,
        transaction_count=1,
    )


def _execute(transaction: Transaction, body: Body, schedule: Schedule) -> Context:
    if body.version not in schedule:
        raise Undecided(Reason.RULE_SET, f"this chain begins under rule set {body.version}")
    check_form(transaction)
    state = Overlay(MemoryState())
    context = Context(state, ChainId(transaction.id), body.profile, 0, 0, UnixMillis(body.time_ms), 0, body.version)
    chain_genesis.KIND.run(context, transaction)
    return context


def apply_genesis(block: Block, *, schedule: Schedule = SCHEDULE) -> Applied:
    """Judges a first block; the change is to an empty state. Raises InvalidBlock, Undecided(RULE_SET), DecodeError.

    Which chain one wants is the caller's to know: its id is ``block.info.chain``.
    """
    header = check_block_form(block)
    if len(block.transactions) != 1 or block.votes or block.seal or block.transactions[0].content.kind != chain_genesis.KIND.number:
        raise InvalidBlock(Reason.BAD_INFO, "a first block holds one genesis, no vote and no seal")
    transaction = block.transactions[0]
    try:
        body = decode_body(transaction, Body)
        context = _execute(transaction, body, schedule)
    except InvalidTransaction as error:
        raise InvalidBlock(error.reason, f"genesis: {error.message}") from error
    change = context.state.change()
    wanted = _info(transaction, body, change.root)
    if block.info.state_root != change.root:
        raise InvalidBlock(Reason.STATE_ROOT, "state root of a genesis")
    if block.info != wanted or header != Header(body.time_ms, header.merkle_root, body.version, ZERO_HASH, 0):
        raise InvalidBlock(Reason.BAD_INFO, "header or info of a genesis")
    return Applied(change, tuple(context.events), 0, 0, committee_at(context.state, 0))
