"""Homes: what is written, what opens it again, and what an exported file brings to another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.home import export_keys, import_keys, init_home, make_testnet, open_home
from protocols.errors import InvalidObject, LadingError, Reason
from protocols.identity.kit import parse_kit
from protocols.identity.peers import peer_id_of

LISTEN = ("/ip4/127.0.0.1/tcp/0",)


def founded(home: Path, passphrase: bytes | None = None) -> dict[str, object]:
    return init_home(home, domain="ACME", name="office", country=None, listen=LISTEN, passphrase=passphrase)


def test_home_opens_to_the_keys_that_it_was_made_with(tmp_path: Path) -> None:
    """Goal: peer id and member id are derived, not configured, and the same at every start. Method: open twice, compare."""
    data = founded(tmp_path / "home")
    first, second = open_home(tmp_path / "home", None), open_home(tmp_path / "home", None)
    assert first.peer_id == second.peer_id == peer_id_of(first.node.public)
    assert first.member_id.hex() == data["member"]
    assert first.issuer is not None


def test_home_under_a_passphrase_opens_with_it_only(tmp_path: Path) -> None:
    """Goal: a stolen disk opens nothing. Method: no passphrase, a wrong one, the right one; no seed in any file."""
    founded(tmp_path / "home", b"correct horse")
    for wrong in (None, b"battery staple"):
        with pytest.raises(InvalidObject) as refused:
            open_home(tmp_path / "home", wrong)
        assert refused.value.reason is Reason.WRONG_PASSPHRASE
    own = open_home(tmp_path / "home", b"correct horse")
    assert own.member is not None
    stored = b"".join(path.read_bytes() for path in sorted((tmp_path / "home").rglob("*")) if path.is_file())
    for seed in (own.node.seed, own.member.signing.seed, own.member.hpke.seed):
        assert seed not in stored


def test_second_init_on_one_home_is_a_conflict(tmp_path: Path) -> None:
    """Goal: nothing overwrites keys. Method: init twice."""
    founded(tmp_path / "home")
    with pytest.raises(LadingError) as refused:
        founded(tmp_path / "home")
    assert refused.value.reason is Reason.CONFLICT


def test_recovery_kit_names_root_member_and_secret(tmp_path: Path) -> None:
    """Goal: the kit alone brings everything back. Method: parse what init printed and compare with the home."""
    data = founded(tmp_path / "home")
    kit = parse_kit(str(data["recovery_kit"]))
    own = open_home(tmp_path / "home", None)
    assert own.member is not None
    assert kit.member_seed == own.member.signing.seed
    assert kit.domain is not None
    assert kit.domain.domain_id == own.domain_id
    assert kit.network_id == own.network_id


def test_exported_keys_let_a_second_node_issue(tmp_path: Path) -> None:
    """Goal: no one node's death stops joining. Method: export on the founder, import on another member's node, open that."""
    make_testnet(2, tmp_path)
    first, second = tmp_path / "n1", tmp_path / "n2"
    assert open_home(second, None).issuer is None
    said = export_keys(first, tmp_path / "keys", passphrase=None)
    assert said["keys"] == ["member", "issuer"]
    taken = import_keys(second, tmp_path / "keys", passphrase=None)
    assert (taken["keys"], taken["kept_own"]) == (["issuer"], ["member"])
    one, two = open_home(first, None), open_home(second, None)
    assert one.issuer is not None
    assert two.issuer is not None
    assert two.issuer.signing.public == one.issuer.signing.public
    assert two.member_id != one.member_id


def test_file_that_holds_no_keys_is_refused(tmp_path: Path) -> None:
    """Goal: a wrong file changes nothing. Method: noise instead of an export."""
    founded(tmp_path / "home")
    (tmp_path / "noise").write_bytes(b"\x93\x01\x02\x03")
    before = (tmp_path / "home" / "identity" / "member.key").read_bytes()
    with pytest.raises(InvalidObject) as refused:
        import_keys(tmp_path / "home", tmp_path / "noise", passphrase=None)
    assert refused.value.reason is Reason.INTEGRITY
    assert (tmp_path / "home" / "identity" / "member.key").read_bytes() == before
