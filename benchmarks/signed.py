"""Anchors that are signed before a clock starts, handed to nodes in batches, and where each came into a block and was final."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.chain_home import read_chain_file
from node.http.client import call
from protocols.codec import decode, encode, replace
from protocols.crypto import SigningKey, sha256
from protocols.errors import LadingError
from protocols.files.hashid import c_value, hash_id
from protocols.files.objects import sign_statement
from protocols.files.precedence import Next
from protocols.identity.keyfiles import MemberKey, open_key_file
from protocols.ledger.block import Block
from protocols.ledger.envelope import ENVELOPE_VERSION, Content, Transaction, decode_body, sign_transaction
from protocols.ledger.genesis import Body as GenesisBody
from protocols.ledger.offers import encode_signed
from protocols.ledger.profile import Profile
from protocols.ledger.transactions import record_anchor
from protocols.ledger.transactions.records import Owners
from protocols.limits import BLOCK_BYTES_MAX
from protocols.types import AccountId, ChainId, OwnerKey, UnixMillis, UnixSeconds
from tests.protocols.files import records as files

from .harness import RunningNode

BATCHES_PER_S = 3
CALL_TRANSACTIONS_MAX = 384  # half a megabyte of text


@dataclass(frozen=True)
class Signer:
    """An account whose key is here and not in any node."""

    key: SigningKey
    account: AccountId
    serial: bytes


@dataclass(frozen=True)
class SignersNet:
    """What is needed to sign for a test network's chain."""

    chain: ChainId
    profile: Profile
    signers: tuple[Signer, ...]


def read_signers(directory: Path) -> SignersNet:
    """Of a network that `lading testnet --signers` has made in ``directory``."""
    kept = read_chain_file(directory / "n1")
    assert kept is not None
    first = decode(kept.first, Block, bytes_max=BLOCK_BYTES_MAX)
    genesis = decode_body(first.transactions[0], GenesisBody)
    of_key = {one.key: one for one in genesis.certificates}
    signers: list[Signer] = []
    for path in sorted((directory / "signers").glob("*.key")):
        content = open_key_file(path.read_bytes(), None).content
        assert isinstance(content, MemberKey)
        key = SigningKey(content.seed)
        certificate = of_key[OwnerKey(key.public)]
        signers.append(Signer(key, certificate.subject, certificate.serial))
    return SignersNet(kept.chain, genesis.profile, tuple(signers))


def sign_anchor(net: SignersNet, signer: Signer, name: str, time_ms: int) -> Transaction:
    """A small record of that name, said to exist at that time."""
    owner = OwnerKey(signer.key.public)
    c = c_value(bytes(32), sha256(name.encode()))
    statement = replace(
        files.statement(Next(1, b"", ()), name, owner),
        c=c,
        hash_id=hash_id(owner, c),
        network=net.profile.network,
        domain=net.profile.domain,
        time_s=UnixSeconds(time_ms // 1000),
    )
    body = record_anchor.Body(
        statement=sign_statement(statement, signer.key),
        change="create",
        parents=(),
        owners=Owners((signer.account,), (signer.account,), 1, 10_000),
        valid_from_ms=UnixMillis(0),
        level=1,
        schema="",
        size_class=40,
        tags=(),
        log_head=bytes(32),
    )
    content = Content(
        version=ENVELOPE_VERSION,
        chain=net.chain,
        kind=record_anchor.KIND.number,
        sender=signer.account,
        serial=signer.serial,
        ts_ms=UnixMillis(time_ms),
        until_ms=UnixMillis(time_ms + 3_600_000),
        links=(),
        body=encode(body),
    )
    return sign_transaction(content, [signer.key])


def sign_many(net: SignersNet, count: int, name: str) -> list[tuple[str, str]]:
    """So many anchors, in turns by all signers. Each: its id in hex, and its text."""
    now = int(time.time() * 1000)
    made = [sign_anchor(net, net.signers[number % len(net.signers)], f"{name}/{number}", now) for number in range(count)]
    return [(one.id.hex(), encode_signed(one)) for one in made]


# --- what the nodes say ---------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """What one node told of its chain: when (time.perf_counter()) a height was its head, and when it was final."""

    head_at: dict[int, float] = field(default_factory=dict)
    final_at: dict[int, float] = field(default_factory=dict)
    top: int = 0
    final: int = 0

    def hear(self, facts: object) -> None:
        now = time.perf_counter()
        if not isinstance(facts, dict) or facts.get("event") not in ("head", "final"):
            return
        if facts["event"] == "head":
            height = int(facts["height"])
            for one in range(min(self.top + 1, height), height + 1):
                self.head_at.setdefault(one, now)
            self.top = max(self.top, height)
        self.note_final(int(facts["finalized"] if facts["event"] == "head" else facts["height"]), now)

    def note_final(self, height: int, now: float) -> None:
        for one in range(self.final + 1, height + 1):
            self.final_at[one] = now
        self.final = max(self.final, height)


class Watching:
    """Listens to `watch` of nodes, a thread each, until the nodes stop."""

    def __init__(self, nodes: Sequence[RunningNode]) -> None:
        self.of = [Watched() for _ in nodes]
        for node, watched in zip(nodes, self.of, strict=True):
            status = node.call("ledger.status")["chains"][0]  # type: ignore[index]
            watched.top, watched.final = int(status["height"]), int(status["finalized_height"])
            threading.Thread(target=self._listen, args=(node, watched), daemon=True).start()

    @staticmethod
    def _listen(node: RunningNode, watched: Watched) -> None:
        try:
            call(node.home, "watch", {}, watched.hear)
        except LadingError:
            return  # the node was stopped


# --- handing over ---------------------------------------------------------------------------------------------------


@dataclass
class Handed:
    """What was handed to nodes. at: by id, when its call began. done: by id, when the call was answered. node: by id, which."""

    at: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    node: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def give(self, node: RunningNode, index: int, batch: Sequence[tuple[str, str]]) -> None:
        """One call. Counted when the node has answered: kept and told to others until final."""
        began = time.perf_counter()
        answer = call(node.home, "ledger.submit", {"transactions": [text for _, text in batch]}).data
        ended = time.perf_counter()
        for (name, _), row in zip(batch, answer["transactions"], strict=True):  # type: ignore[call-overload]
            if row["state"] == "pooled":
                self.at[name], self.done[name], self.node[name] = began, ended, index
            else:
                self.refused.append(str(row["message"]))


def offer(nodes: Sequence[RunningNode], signed: Sequence[tuple[str, str]], per_s: float) -> Handed:
    """Through all nodes at once, each its share, in batches on time; a node that answers late gets its next batch late."""
    handed = Handed()
    began = time.perf_counter()

    def serve(index: int) -> None:
        mine = signed[index :: len(nodes)]
        done = 0
        while done < len(mine):
            elapsed = time.perf_counter() - began
            due = min(len(mine), int((elapsed + 1 / BATCHES_PER_S) * per_s / len(nodes)), done + CALL_TRANSACTIONS_MAX)
            if due > done:
                handed.give(nodes[index], index, mine[done:due])
                done = due
            time.sleep(max(0.0, min(1 / BATCHES_PER_S, began + done * len(nodes) / per_s - time.perf_counter())))

    threads = [threading.Thread(target=serve, args=(index,)) for index in range(len(nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return handed


def heights_of(node: RunningNode, heights: Iterable[int]) -> dict[str, int]:
    """Height of every transaction in these blocks, by its id."""
    found: dict[str, int] = {}
    for height in heights:
        block = node.call("ledger.show", what=str(height))
        for one in block["transactions"]:  # type: ignore[attr-defined]
            found[str(one["transaction"])] = height
    return found


def wait_drained(nodes: Sequence[RunningNode], watching: Watching, patience_s: float) -> int:
    """Until nothing waits at any node and every block with transactions is final at all. Result: the last of these heights.

    Raises RuntimeError when that takes too long.
    """
    deadline = time.monotonic() + patience_s

    def until(what: str, holds: Callable[[], bool]) -> None:
        while not holds():
            if time.monotonic() > deadline:
                found = [node.call("ledger.status")["chains"][0] for node in nodes]  # type: ignore[index]
                stand = [(one["height"], one["finalized_height"], one["votes"], one["committee"]["heard"]) for one in found]
                told = [(one.top, one.final) for one in watching.of]
                raise RuntimeError(f"{what} after {patience_s:.0f} s: height, final, votes, heard {stand}; told of {told}")
            time.sleep(0.3)

    def waiting(node: RunningNode) -> int:
        return sum(node.call("ledger.status")["chains"][0]["mempool"].values())  # type: ignore[index]

    for node in nodes:
        until(f"transactions wait at {node.name}", lambda node=node: not waiting(node))  # type: ignore[misc]
    # Blocks that only make others final stay as they are, in a quiet chain.
    top = max((int(row["height"]) for row in nodes[0].call("ledger.history", limit=50)["blocks"] if row["kinds"]), default=0)  # type: ignore[attr-defined]
    until(f"block {top} is not final everywhere", lambda: all(one.final >= top for one in watching.of))
    return top


def mean_ms(values: Iterable[float]) -> float:
    """Of seconds."""
    return statistics.mean(values) * 1000
