"""The recovery kit: domain root, member keys and root secret as text to print, and back. With it everything one owns can be read
again, and the domain refounded on new machines, when all disks are gone.
"""

from __future__ import annotations

import re
from typing import Final

from ..codec import Record, decode, encode
from ..crypto import FORMAT, SUITE, SigningKey
from ..errors import DecodeError, InvalidObject, Reason
from .certificates import fingerprint, make_root, read_root
from .textform import base32, checksum, from_base32, with_checksum, without_checksum

TITLE: Final = "LADING RECOVERY KIT"
_CONTEXT = b"recovery kit"
_GROUP_CHARS = 4
_GROUPS_PER_LINE = 8
_LINE_CHARS = _GROUP_CHARS * _GROUPS_PER_LINE
_CHECK_CHARS = 2
_LINES_MAX = 99
_LINE = re.compile(r"\s*(\d\d)[:\s]\s*([A-Z0-9\s]+?)\s*/\s*([A-Z0-9]{2})\s*")
# Characters that base32 does not have and that a hand writes for those it has.
_LOOKALIKES = str.maketrans({"0": "O", "1": "I", "8": "B"})


class DomainRoot(Record, frozen=True):
    """A domain's root: its key's seed and what its certificate says, from which the same certificate is made again."""

    seed: bytes
    name: str
    serial: bytes
    not_before: int
    not_after: int
    domain_id: bytes


class RecoveryKit(Record, frozen=True):
    """network_id: 32 bytes. domain: None on the kit of one who founded none. founder: DER root of the domain that founded the network
    where ``domain`` came into it later, else empty. member_seed, hpke_seed, root_secret, salt: 32 bytes
    each; real_id: what the member id was derived from."""

    format: int
    suite: int
    network_id: bytes
    domain: DomainRoot | None
    member_name: str
    member_seed: bytes
    hpke_seed: bytes
    root_secret: bytes
    real_id: bytes
    salt: bytes
    founder: bytes

    def __repr__(self) -> str:
        return f"RecoveryKit({self.member_name!r}, …)"


def recovery_kit(
    *,
    network_id: bytes,
    domain: DomainRoot | None,
    member_name: str,
    member_seed: bytes,
    hpke_seed: bytes,
    root_secret: bytes,
    real_id: bytes,
    salt: bytes,
    founder: bytes = b"",
) -> RecoveryKit:
    """A kit of today's format."""
    return RecoveryKit(
        format=FORMAT,
        suite=SUITE,
        network_id=network_id,
        domain=domain,
        member_name=member_name,
        member_seed=member_seed,
        hpke_seed=hpke_seed,
        root_secret=root_secret,
        real_id=real_id,
        salt=salt,
        founder=founder,
    )


def domain_root(seed: bytes, certificate: bytes) -> DomainRoot:
    """What the kit keeps of a root. Raises InvalidObject(BAD_CERTIFICATE)."""
    facts = read_root(certificate)
    return DomainRoot(
        seed=seed,
        name=facts.name,
        serial=facts.serial,
        not_before=facts.not_before,
        not_after=facts.not_after,
        domain_id=fingerprint(certificate),
    )


def root_certificate(root: DomainRoot) -> bytes:
    """The root certificate, made again: Ed25519 signs the same bytes the same way. Raises InvalidObject(INTEGRITY)."""
    certificate = make_root(SigningKey(root.seed), root.name, serial=root.serial, not_before=root.not_before, not_after=root.not_after)
    if fingerprint(certificate) != root.domain_id:
        raise InvalidObject(Reason.INTEGRITY, "the root certificate made from the kit is not the domain's")
    return certificate


def kit_text(kit: RecoveryKit) -> str:
    """The kit for paper: numbered lines of eight groups of four characters, each line with two characters of checksum."""
    code = base32(with_checksum(encode(kit), _CONTEXT))
    lines = [code[start : start + _LINE_CHARS] for start in range(0, len(code), _LINE_CHARS)]
    assert len(lines) <= _LINES_MAX
    domain = f"Domain {kit.domain.name} {kit.domain.domain_id.hex()[:16]}\n" if kit.domain is not None else ""
    head = (
        f"{TITLE}\n"
        f"Member {kit.member_name}\n"
        f"{domain}"
        f"Network {kit.network_id.hex()[:16]}\n"
        f"Whoever holds this page can read and sign as this member{' and rule this domain' if kit.domain is not None else ''}.\n"
        "Keep it offline. Two characters after the slash check each line.\n"
    )
    return head + "".join(f"{number:02d}: {_grouped(line)} / {_check(number, line)}\n" for number, line in enumerate(lines, 1))


def parse_kit(text: str) -> RecoveryKit:
    """The kit in a text; only numbered lines are read, case and spacing do not matter.

    Raises DecodeError(MALFORMED) naming the first line that is missing or wrong, (INTEGRITY) when each line fits but not the
    whole, (UNKNOWN_FORMAT).
    """
    lines: dict[int, str] = {}
    for raw in text.upper().splitlines():
        match = _LINE.fullmatch(raw)
        if match is None:
            continue
        number = int(match[1])
        line, check = ("".join(part.split()).translate(_LOOKALIKES) for part in (match[2], match[3]))
        if _check(number, line) != check:
            raise DecodeError(Reason.MALFORMED, f"line {number:02d} is mistyped")
        lines[number] = line
    if not lines or sorted(lines) != list(range(1, len(lines) + 1)):
        missing = next(number for number in range(1, len(lines) + 2) if number not in lines)
        raise DecodeError(Reason.MALFORMED, f"line {missing:02d} is missing or not readable")
    data = from_base32("".join(lines[number] for number in sorted(lines)), Reason.INTEGRITY)
    kit = decode(without_checksum(data, _CONTEXT, Reason.INTEGRITY), RecoveryKit)
    if (kit.format, kit.suite) != (FORMAT, SUITE):
        raise DecodeError(Reason.UNKNOWN_FORMAT, f"kit of format {kit.format} suite {kit.suite}, {FORMAT} and {SUITE} wanted")
    return kit


def _grouped(line: str) -> str:
    return " ".join(line[start : start + _GROUP_CHARS] for start in range(0, len(line), _GROUP_CHARS))


def _check(number: int, line: str) -> str:
    return base32(checksum(bytes([number]) + line.encode("ascii", "replace"), _CONTEXT))[:_CHECK_CHARS]
