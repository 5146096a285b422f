"""Section 14 of docs/protocol.md, The log, its part on equivocation: proofs of forks. Checks log_proofs.json."""

from .cases import expect, optional, text, unhex
from .cbor import is_array, is_bytes, is_uint, read_cbor
from .envelopes import DURABLE, Envelope, signature_input
from .notation import Refused, derive_key, hash32, require
from .signatures import good_key, verify


def read_proof_of_equivocation(data, message_bytes_max=65536):
    """Author, fork and id. Refused for the reason in the vectors."""
    try:
        item = read_cbor(data)
    except Refused:
        raise Refused("malformed") from None
    require(is_array(item) and item and is_uint(item[0]), "malformed")
    require(item[0] == 1, "unknown_version")
    require(len(item) == 4 and is_bytes(item[1]) and is_bytes(item[2]) and is_bytes(item[3]), "malformed")
    _, first, second, check = item
    require(check == derive_key("omnimesh 2026-11 equivocation check", first + second)[:16], "changed")
    require(max(len(first), len(second)) <= message_bytes_max, "too_large")
    records = [Envelope(first), Envelope(second)]
    for record in records:
        is_first = record.signed.seq == 1
        require(record.signed.kind == DURABLE and (record.signed.prev is None) == is_first, "wrong_kind")
    one, other = (record.signed for record in records)
    digests = [hash32(record.signed_bytes) for record in records]
    require(one.author == other.author and one.mesh == other.mesh, "no_contradiction")
    is_disjoint = one.seq + len(one.payloads) <= other.seq or other.seq + len(other.payloads) <= one.seq
    require(digests[0] != digests[1] and not is_disjoint, "no_contradiction")
    require((one.seq, digests[0]) < (other.seq, digests[1]), "not_canonical")
    require(good_key(one.author), "bad_key")
    for record in records:
        result = verify(one.author, signature_input(record.signed_bytes), record.signature)
        require(result == "valid", "bad_signature")
    return one.author, one.seq, derive_key("omnimesh 2026-11 equivocation", digests[0] + digests[1])


def check_log_proof(case):
    outcome, says = "good", (None, None, None)
    try:
        author, fork, proof_id = read_proof_of_equivocation(case.get("proof", unhex))
        says = (author.hex(), str(fork), proof_id.hex())
    except Refused as refused:
        outcome = str(refused)
    expect("outcome", outcome, case.get("outcome", text))
    expect("what it says", list(says), [case.get(name, optional(text)) for name in ("author", "fork", "id")])
