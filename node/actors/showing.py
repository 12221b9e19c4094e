"""What a full node shows light ones: their questions, answered with what is kept here."""

from __future__ import annotations

from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.machine import LightAnswer, LightQuestion
from protocols.ledger.messages import AskBundles, AskFinal, AskInclusion, AskProofs, Bundles, Final, Included, Proofs
from protocols.ledger.votes import Vote
from protocols.limits import LIGHT_BUNDLES_PER_MESSAGE_MAX
from protocols.types import BlockHash
from storage import chain as store
from storage import chain_proofs
from storage.engine import Snapshot

from .chain import ChainActor


async def show(chain: ChainActor, question: LightQuestion) -> LightAnswer:
    """The answer; an empty one where this node has no chain yet, or does not keep what was asked for."""
    tree = chain.tree
    if tree is None:
        return nothing(question)
    path = {point.height: point.hash for point in tree.ancestors(tree.head().hash)}
    final = tree.final
    above = _called_final(tree)

    def name_at(snapshot: Snapshot, height: int) -> BlockHash | None:
        return path.get(height) if height >= final.height else next(iter(store.blocks_at(snapshot, height)), None)

    def read(snapshot: Snapshot) -> LightAnswer:
        match question:
            case AskProofs(block, keys):
                return Proofs(chain_proofs.proofs(snapshot, block, keys))
            case AskBundles(block, is_after):
                row = store.row(snapshot, block)
                if row is None or name_at(snapshot, row.height) != block:
                    return Bundles(())
                first, count = (row.height + 1, LIGHT_BUNDLES_PER_MESSAGE_MAX) if is_after else (row.height, 1)
                names = [name_at(snapshot, height) for height in range(first, first + count)]
                return Bundles(chain_proofs.bundles(snapshot, [name for name in names if name is not None]))
            case AskInclusion(_, transaction) if chain.is_leaving and transaction == chain.chain:
                return nothing(question)
            case AskInclusion(slot, transaction):
                height = chain_proofs.height_of_slot(snapshot, slot)
                name = None if height is None else name_at(snapshot, height)
                found = None if name is None else chain_proofs.inclusion(snapshot, name, transaction)
                return Included(() if found is None else (found,))
            case AskFinal(height, generation):
                return _final(snapshot, final, above, height, generation)

    return await chain.plan(read)


def nothing(question: LightQuestion) -> LightAnswer:
    """What a node answers that keeps no chain."""
    match question:
        case AskProofs():
            return Proofs(())
        case AskBundles():
            return Bundles(())
        case AskInclusion():
            return Included(())
        case AskFinal():
            return Final((), ())


def _called_final(tree: ForkTree) -> tuple[BlockPoint, tuple[Vote, ...]] | None:
    """The child of the final block whose votes called it final, and these; None where the node was told that it is (an anchor, genesis)."""
    for point in tree.children_of(tree.final.hash):
        votes = tuple(vote for vote in tree.votes_for(point.hash) if vote.source.hash == tree.final.hash)
        if len({vote.member for vote in votes} & point.committee.members) >= point.committee.quorum:
            return point, votes
    return None


def _final(snapshot: Snapshot, final: BlockPoint, above: tuple[BlockPoint, tuple[Vote, ...]] | None, height: int, generation: int) -> Final:
    """In a pool thread. Successions alone where the asker has more to ask before a link is of use."""
    if final.height <= height:
        return Final((), ())
    successions = chain_proofs.successions(snapshot, generation)
    reached = generation + sum(sum(one.value is not None for one in step.committees[:-1]) for step in successions)
    if above is None or above[0].committee.generation != reached:
        return Final(successions, ())
    child, votes = above
    found = chain_proofs.link(snapshot, final.hash, child.hash, votes, reached)
    return Final(successions, () if found is None else (found,))
