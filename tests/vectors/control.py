"""Section 11 of docs/protocol.md, The control stream. Checks control_frames.json."""

import regex

from .cases import expect, optional, text
from .cbor import is_array, is_bytes, is_text, is_uint, read_cbor
from .frames import check_on_stream, number_of_bits, or_null
from .notation import Refused, require

CONTROL_CHARACTER = regex.compile(r"\p{Cc}")


def read_proof(item):
    require(is_bytes(item, 32), "not a proof")
    return item.hex()


def read_agent(item):
    require(is_text(item) and len(item.raw) <= 64, "not an agent")
    agent = item.decoded()
    require(CONTROL_CHARACTER.search(agent) is None, "a control character")
    return agent


def read_packet(item):
    require(is_bytes(item) and len(item) <= 61440, "not a packet")
    return item.hex()


CONTROL_FRAMES = [
    ("Hello", {"version": number_of_bits(16), "proof": read_proof, "agent": read_agent}),
    ("StepRequest", {"nonce": number_of_bits(64)}),
    ("StepReply", {"nonce": number_of_bits(64), "mesh_time_ns": or_null(number_of_bits(64)),
                   "proposal_ns": number_of_bits(64)}),
    ("StepAnnounce", {"mesh_time_ns": number_of_bits(64)}),
    ("Swim", {"packet": read_packet}),
    ("Goodbye", {"reason": number_of_bits(16)}),
]
CONTROL_FIELDS = ["version", "proof", "agent", "nonce", "mesh_time_ns", "proposal_ns", "packet", "reason"]


def read_control_frame(frame):
    """The name of the frame's kind, or None if it is unknown, and the fields in the form of the vectors."""
    require(len(frame) <= 65536, "too long")
    item = read_cbor(frame)
    require(is_array(item) and item and is_uint(item[0]), "no kind")
    if item[0] >= len(CONTROL_FRAMES):
        return None, {}
    name, fields = CONTROL_FRAMES[item[0]]
    require(len(item) == 1 + len(fields), "fields are missing, or too many")
    return name, {field: read(value) for (field, read), value in zip(fields.items(), item[1:])}


def check_control_frame(case):
    frame = check_on_stream(case)
    try:
        kind, fields = read_control_frame(frame)
        outcome = "drop" if kind is None else "frame"
    except Refused:
        outcome, kind, fields = "close", None, {}
    expect("outcome", outcome, case.get("outcome", text))
    expect("kind", kind, case.get("kind", optional(text)))
    for name in CONTROL_FIELDS:
        expect(name, fields.get(name), case.get(name, lambda value: value))
