"""Chains beside the domain's in a home: how many, what damage does, under a passphrase too."""

from __future__ import annotations

from pathlib import Path

import pytest

from node import chain_further
from node.chain_home import chain_folder, further_chains, parse_anchor, read_chain_key
from node.home import init_home, open_home
from node.promises import PromiseFile
from protocols.crypto import sha256
from protocols.errors import InvalidObject, LadingError, Reason
from protocols.limits import CHAINS_PER_NODE_MAX
from protocols.types import ChainId

SECRET = b"correct horse"


@pytest.mark.parametrize("passphrase", [None, SECRET])
def test_home_holds_so_many_chains_with_keys_and_promises_of_their_own(tmp_path: Path, passphrase: bytes | None) -> None:
    """Goal: a bounded set, each with what it needs, protected as the home is. Method: found one, follow others up to the bound; the same
    one twice is refused; one whose file is damaged is left out of what starts, the others are not."""
    home = tmp_path / "home"
    init_home(home, domain="ACME", name="n", country=None, listen=(), passphrase=passphrase)
    made = chain_further.found(home, "trials", seal="authority", passphrase=passphrase)
    chains = [parse_anchor(str(made["anchor"])).chain]
    for number in range(CHAINS_PER_NODE_MAX - 2):
        chains.append(sha256(bytes([number])))
        chain_further.follow(home, f"{chains[-1].hex()}:7:{bytes(32).hex()}", passphrase=passphrase)
    for text, reason in ((str(made["anchor"]), Reason.CONFLICT), (f"{sha256(b'more').hex()}:7:{bytes(32).hex()}", Reason.QUOTA)):
        with pytest.raises(LadingError) as refused:
            chain_further.follow(home, text, passphrase=passphrase)
        assert refused.value.reason is reason
    assert set(further_chains(home)) == set(chains)
    keys = [read_chain_key(home, lambda: SECRET, ChainId(chain)) for chain in chains]
    assert len({key.vote for key in keys if key is not None}) == len(chains)
    for chain in chains:
        kept = PromiseFile(chain_folder(home, ChainId(chain)) / "promises").load()
        assert kept is not None
        assert (kept.chain, kept.may_vote) == (chain, True)
    if passphrase is not None:
        with pytest.raises(InvalidObject) as wrong:
            read_chain_key(home, lambda: b"battery staple", ChainId(chains[0]))
        assert wrong.value.reason is Reason.WRONG_PASSPHRASE
    member = open_home(home, passphrase).member_id
    assert {one.chain for one in chain_further.setups(home, member, lambda: SECRET)} == set(chains)
    (chain_folder(home, ChainId(chains[0])) / "chain").write_bytes(b"damaged")
    assert {one.chain for one in chain_further.setups(home, member, lambda: SECRET)} == set(chains[1:])


def test_database_of_a_chain_that_cannot_be_opened_is_put_aside(tmp_path: Path) -> None:
    """Goal: one chain's disk stops no node. Method: its file is noise; it is opened anew, the noise stands beside it."""
    chain = ChainId(sha256(b"chain"))
    chain_further.open_database(tmp_path, chain).close()
    (data,) = (path for path in (tmp_path / "chains").rglob("*") if path.is_file() and path.name.startswith("data"))
    data.write_bytes(b"noise" * 10_000)
    chain_further.open_database(tmp_path, chain).close()
    assert sum("damaged" in path.name for path in (tmp_path / "chains").iterdir()) == 1


@pytest.mark.parametrize("text", ["", "ab:1:cd", "x" * 64 + ":1:" + "a" * 64, "a" * 64 + ":-1:" + "a" * 64, "a" * 64 + ":1:" + "a" * 63])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    """Goal: a usage error, nothing else. Method: texts of other shapes."""
    with pytest.raises(LadingError) as refused:
        parse_anchor(text)
    assert refused.value.reason is Reason.USAGE
