"""How applications and admissions are signed and sealed. Both sides use these four functions and nothing else."""

from __future__ import annotations

from ..codec import decode, encode
from ..crypto import FORMAT, SUITE, HpkePrivateKey, Label, SigningKey, hpke_open, hpke_seal, sha256
from ..errors import InvalidObject, Reason
from ..limits import FRAME_BYTES_MAX, JOIN_SEALED_BYTES_MAX
from ..signed import Signed, open_signed, sign_object
from ..types import Digest, HpkeKey, NetworkId
from .messages import Admission, Application, JoinAnswer, JoinRequest


def _info(label: Label, network: NetworkId, ticket_id: bytes) -> bytes:
    return label.value + b"\0" + network + ticket_id


def request_hash(request: JoinRequest) -> Digest:
    """What an admission names the request by. 32 bytes."""
    return sha256(request.sealed)


def seal_application(
    application: Application, key: SigningKey, network: NetworkId, *, issuer_key: HpkeKey, ephemeral_seed: bytes
) -> JoinRequest:
    """The application signed by the key that it is about, sealed to an issuer. ephemeral_seed: 32 fresh random bytes."""
    envelope = encode(sign_object(application, key, Label.JOIN_APPLICATION, network))
    info = _info(Label.JOIN_REQUEST, network, application.ticket_id)
    sealed = hpke_seal(issuer_key, envelope, info=info, ephemeral_seed=ephemeral_seed)
    assert len(sealed) <= JOIN_SEALED_BYTES_MAX
    return JoinRequest(ticket_id=application.ticket_id, issuer_key=issuer_key, sealed=sealed)


def open_application(request: JoinRequest, private: HpkePrivateKey, network: NetworkId) -> Application:
    """Raises InvalidObject(BAD_TAG | BAD_SIGNATURE | UNKNOWN_FORMAT | MALFORMED), DecodeError."""
    plain = hpke_open(private, request.sealed, info=_info(Label.JOIN_REQUEST, network, request.ticket_id))
    envelope = decode(plain, Signed, bytes_max=JOIN_SEALED_BYTES_MAX)
    application, signer = open_signed(envelope, Application, Label.JOIN_APPLICATION, network)
    _check_format(application.format, application.suite)
    if application.ticket_id != request.ticket_id or application.public != signer or len(application.hpke_public) != 32:
        raise InvalidObject(Reason.MALFORMED, "an application about another ticket or key")
    return application


def seal_admission(
    admission: Admission, key: SigningKey, network: NetworkId, *, ticket_id: bytes, recipient: HpkeKey, ephemeral_seed: bytes
) -> JoinAnswer:
    """The admission signed by the issuing key, sealed to the newcomer. ephemeral_seed: 32 fresh random bytes."""
    envelope = encode(sign_object(admission, key, Label.JOIN_ADMISSION, network))
    info = _info(Label.JOIN_ANSWER, network, ticket_id)
    return JoinAnswer(ticket_id=ticket_id, sealed=hpke_seal(recipient, envelope, info=info, ephemeral_seed=ephemeral_seed))


def open_admission(answer: JoinAnswer, private: HpkePrivateKey, network: NetworkId, *, request: JoinRequest, signer: bytes) -> Admission:
    """Raises InvalidObject(BAD_TAG | BAD_SIGNATURE | UNKNOWN_FORMAT | REFLECTED for the answer to another request |
    WRONG_NETWORK | BAD_CERTIFICATE when another than ``signer`` signed), DecodeError."""
    plain = hpke_open(private, answer.sealed, info=_info(Label.JOIN_ANSWER, network, request.ticket_id))
    envelope = decode(plain, Signed, bytes_max=FRAME_BYTES_MAX)
    admission, got = open_signed(envelope, Admission, Label.JOIN_ADMISSION, network)
    _check_format(admission.format, admission.suite)
    if got != signer:
        raise InvalidObject(Reason.BAD_CERTIFICATE, "the answer is signed by another than the issuer that was asked")
    if admission.request != request_hash(request):
        raise InvalidObject(Reason.REFLECTED, "the answer to another request")
    if admission.network_id != network:
        raise InvalidObject(Reason.WRONG_NETWORK, "the answer is about another network")
    return admission


def _check_format(got_format: int, got_suite: int) -> None:
    if (got_format, got_suite) != (FORMAT, SUITE):
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"format {got_format} suite {got_suite}, {FORMAT} and {SUITE} wanted")
