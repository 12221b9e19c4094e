"""Chains beside the domain's in a home: how many, what damage does, under a passphrase too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node import chain_further
from node.chain_home import chain_folder, first_block, further_chains, parse_anchor, read_chain_file, read_chain_key
from node.chain_store import EXPORT_MAGIC
from node.cli.main import run
from node.home import init_home, open_home
from node.promises import PromiseFile
from protocols.crypto import sha256
from protocols.errors import InvalidObject, LadingError, Reason, UsageError
from protocols.ledger.envelope import decode_body
from protocols.ledger.genesis import Body as GenesisBody
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


def test_commands_find_a_chain_by_name_id_or_beginning_and_say_when_they_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: `--chain` means the same whether the node runs or not. Method: a home with its domain's chain and two that have one name, none
    has run yet; each is asked for through the command line, by what names it and by what does not."""
    home = tmp_path / "home"
    init_home(home, domain="ACME", name="n", country=None, listen=(), passphrase=None)
    main = read_chain_file(home)
    assert main is not None
    first, second = (str(chain_further.found(home, "trials", seal="authority", passphrase=None)["chain"]) for _ in range(2))

    def asked(chain: str, *words: str) -> tuple[int, str]:
        code = run(["--json", "--home", str(home), "ledger", *words, "--chain", chain])
        answer = json.loads(capsys.readouterr().out)
        return code, str(answer["data"]["chain"] if answer["ok"] else answer["error"]["name"])

    for chain, found in (
        ("ACME", main.chain.hex()),
        (main.chain.hex()[:9], main.chain.hex()),
        (first, first),
        (second[:10].upper(), second),
    ):
        assert asked(chain, "rebuild-index") == (0, found)
    for chain, error in (("trials", (2, "E-USAGE")), ("trial", (4, "E-NOT-FOUND")), (first[:5], (4, "E-NOT-FOUND"))):
        assert asked(chain, "rebuild-index") == error
    assert asked(first, "verify") == (4, "E-NOT-FOUND")  # no block is there yet
    kept = read_chain_file(home, ChainId(bytes.fromhex(first)))
    assert kept is not None
    file = tmp_path / "first.chain"
    file.write_bytes(EXPORT_MAGIC + kept.chain + len(kept.first).to_bytes(4, "big") + kept.first)
    assert asked(second, "import", str(file))[1] == "E-WRONG-CHAIN"
    assert asked(first, "import", str(file)) == (0, first)
    assert asked(first, "verify") == (0, first)
    assert asked(second, "verify") == (4, "E-NOT-FOUND")
    assert read_chain_file(home) == main


@pytest.mark.parametrize("text", ["", "ab:1:cd", "x" * 64 + ":1:" + "a" * 64, "a" * 64 + ":-1:" + "a" * 64, "a" * 64 + ":1:" + "a" * 63])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    """Goal: a usage error, nothing else. Method: texts of other shapes."""
    with pytest.raises(LadingError) as refused:
        parse_anchor(text)
    assert refused.value.reason is Reason.USAGE


@pytest.mark.parametrize("read", ["public", "consortium", "private"])
def test_who_may_read_a_chain_is_fixed_when_it_is_founded(tmp_path: Path, read: str) -> None:
    """Goal: both axes stand in the first block. Method: each class by the command; the block says it, and that the council maintains; a
    word that means nobody is refused and founds nothing."""
    home = tmp_path / "home"
    init_home(home, domain="ACME", name="n", country=None, listen=(), passphrase=None)
    with pytest.raises(UsageError):
        chain_further.found(home, "trials", seal="authority", read="everybody", passphrase=None)
    assert not further_chains(home)
    assert run(["--home", str(home), "ledger", "found", "trials", "--seal", "authority", "--read", read]) == 0
    ((chain,), main) = (further_chains(home), read_chain_file(home))
    profiles = []
    for one in (main, read_chain_file(home, chain)):
        first = None if one is None else first_block(one)
        assert first is not None
        profiles.append(decode_body(first.transactions[0], GenesisBody).profile)
    assert [(one.read, one.maintain) for one in profiles] == [("consortium", "consortium"), (read, "consortium")]
