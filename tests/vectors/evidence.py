"""Sections 19 and 20 of docs/protocol.md, Evidence and Accusations: whom they convict. Checks evidence.json."""

from .cases import decimal, expect, flag, number, optional, text, unhex
from .cbor import is_array, is_bytes, is_uint, read_cbor
from .envelopes import DURABLE, EPHEMERAL, Envelope, signature_input
from .meshes import mesh_id
from .notation import Refused, derive_key, hash32, keyed_hash, require
from .patterns import Pattern
from .signatures import verify

FALSE_UNLESS = {"good", "too_large", "unknown", "unknown_version"}


class EvidenceJudge:
    """What a member of a mesh can say of evidence."""

    def __init__(self, name, secret, phase_interval, bytes_max):
        self.mesh_id, self.secret, self.phase_interval = mesh_id(name, secret), secret, phase_interval
        self.bytes_max = bytes_max

    def outcome(self, data, depth=0):
        """`good` or the fault, who is convicted, the step and the id."""
        try:
            return ("good", *self.judge(data, depth))
        except Refused as refused:
            return str(refused), None, None, None

    def judge(self, data, depth):
        require(len(data) <= 2 * self.bytes_max + 416, "too_large")
        items = self.read(data)
        require(is_array(items) and items and is_uint(items[0]), "malformed")
        require(items[0] == 1, "unknown")
        require(len(items) > 1 and (is_bytes(items[1]) or is_uint(items[1])), "malformed")
        if is_bytes(items[1]):
            require(len(items) == 4 and is_bytes(items[2]) and is_bytes(items[3]), "malformed")
            check = derive_key("omnimesh 2026-11 equivocation check", items[1] + items[2])[:16]
            require(items[3] == check, "changed")
            return self.judge_pair(items[1], items[2], DURABLE)
        require(items[1] == 1 or items[1] == 2 and depth < 2, "unknown")
        require(len(items) == (4 if items[1] == 1 else 3), "malformed")
        require(all(is_bytes(item) for item in items[2:]), "malformed")
        if items[1] == 1:
            return self.judge_pair(items[2], items[3], EPHEMERAL)
        return self.judge_accusation(items[2], depth)

    @staticmethod
    def read(data):
        try:
            return read_cbor(data)
        except Refused:
            raise Refused("malformed") from None

    def judge_pair(self, first, second, kind):
        envelopes = []
        for data in (first, second):
            require(len(data) <= self.bytes_max, "too_large")
            envelopes.append(Envelope(data))
            signed = envelopes[-1].signed
            if kind == DURABLE:
                require(signed.kind == DURABLE and (signed.seq == 1) == (signed.prev is None), "wrong_kind")
        one, other = (envelope.signed for envelope in envelopes)
        digests = [hash32(envelope.signed_bytes) for envelope in envelopes]
        overlaps = one.seq < other.seq + len(other.payloads) and other.seq < one.seq + len(one.payloads)
        same = (one.author, one.mesh, one.kind) == (other.author, other.mesh, other.kind) and one.kind == kind
        require(same and overlaps and digests[0] != digests[1], "no_contradiction")
        require((one.seq, digests[0]) < (other.seq, digests[1]), "not_canonical")
        require(one.mesh == self.mesh_id, "wrong_mesh")
        for envelope in envelopes:
            tag_key = Pattern(self.secret, self.phase_interval, envelope.signed.step).tag_key
            require(keyed_hash(tag_key, envelope.signed_bytes) == envelope.tag, "bad_pattern")
        for envelope in envelopes:
            result = verify(one.author, signature_input(envelope.signed_bytes), envelope.signature)
            require(result == "valid", result)
        step = max(one.step, other.step)
        if kind == DURABLE:
            return one.author, step, derive_key("omnimesh 2026-11 equivocation", b"".join(digests))
        return one.author, step, derive_key("omnimesh 2026-11 evidence", b"\x01" + b"".join(digests))

    def judge_accusation(self, data, depth):
        outer = self.read(data)
        require(is_array(outer, 2) and is_bytes(outer[0]) and is_bytes(outer[1]), "malformed")
        body, signature = outer
        items = self.read(body)
        require(is_array(items) and items and is_uint(items[0]), "malformed")
        require(items[0] == 1, "unknown")
        require(len(items) == 5 and len(signature) == 64, "malformed")
        _, mesh, reporter, step, evidence = items
        require(is_bytes(mesh, 16) and is_bytes(reporter, 32) and is_uint(step) and is_bytes(evidence), "malformed")
        require(mesh == self.mesh_id, "wrong_mesh")
        signed = verify(reporter, b"omnimesh/1/accusation" + hash32(body), signature)
        require(signed == "valid", "not_signed")
        outcome = self.outcome(evidence, depth + 1)[0]
        require(outcome != "good", "not_false")
        require(outcome not in FALSE_UNLESS, "unknown")
        return reporter, step, derive_key("omnimesh 2026-11 evidence", b"\x02" + hash32(body))


def check_evidence(case):
    judge = EvidenceJudge(
        case.get("mesh_name", text),
        case.get("mesh_secret", unhex),
        case.get("phase_interval", decimal),
        case.get("message_bytes_max", number),
    )
    outcome, convicts, step, name = judge.outcome(case.get("evidence", unhex))
    expect("outcome", outcome, case.get("outcome", text))
    expect("is_false", outcome not in FALSE_UNLESS, case.get("is_false", flag))
    expect("convicts", convicts and convicts.hex(), case.get("convicts", optional(text)))
    expect("step", None if step is None else str(step), case.get("step", optional(text)))
    expect("id", name and name.hex(), case.get("id", optional(text)))
