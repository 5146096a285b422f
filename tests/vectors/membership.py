"""Section 13 of docs/protocol.md, Membership packets. Checks membership_packets.json."""

from .cases import check_says, unhex
from .identities import public_key
from .notation import Reader, as_utf8, require

PROBE, ABOUT, MEMBERS = "probe", "about", "members"
SWIM_MESSAGES = [
    ("Ping", {PROBE, MEMBERS}),
    ("Ack", {PROBE, MEMBERS}),
    ("PingReq", {ABOUT, PROBE, MEMBERS}),
    ("IndirectPing", {ABOUT, PROBE, MEMBERS}),
    ("IndirectAck", {ABOUT, PROBE, MEMBERS}),
    ("ForwardedAck", {ABOUT, PROBE, MEMBERS}),
    ("Announce", set()),
    ("Feed", {MEMBERS}),
    ("Gossip", {MEMBERS}),
    ("TurnUndead", set()),
]
SWIM_STATES = ["alive", "suspect", "down"]


def read_life(reader):
    node, generation, flags = reader.take(32), reader.number(8), reader.number(1)
    require(flags <= 1, "flags that there are not")
    return {"node": node.hex(), "generation": str(generation), "left": flags == 1}


def read_addresses(reader):
    count = reader.number(1)
    require(count <= 8, "too many addresses")
    return [read_address(reader) for _ in range(count)]


def read_address(reader):
    length = reader.number(2)
    require(1 <= length <= 256, "an address of a length that is not allowed")
    return as_utf8(reader.take(length), "an address that is not UTF-8")


def read_member(reader):
    member = {"life": read_life(reader), "addresses": read_addresses(reader), "incarnation": reader.number(2)}
    state = reader.number(1)
    require(state < len(SWIM_STATES), "a state that there is not")
    return {**member, "state": SWIM_STATES[state]}


def read_membership_packet(packet, peer):
    """What a packet from `peer` says, in the form of the vectors."""
    require(len(packet) <= 8192, "too long")
    reader = Reader(packet)
    says = {"sender": read_life(reader), "sender_addresses": read_addresses(reader)}
    require(says["sender"]["node"] == peer.hex(), "not the peer at the other end")
    says["sender_incarnation"] = reader.number(2)
    says["receiver"] = read_life(reader)
    tag = reader.number(1)
    require(tag < len(SWIM_MESSAGES), "a message that there is not")
    says["message"], parts = SWIM_MESSAGES[tag]
    says["about"] = read_life(reader) if ABOUT in parts else None
    says["probe"] = reader.number(1) if PROBE in parts else None
    says["members"] = None
    if MEMBERS in parts and reader.left():
        says["members"] = [read_member(reader) for _ in range(reader.number(2))]
    require(reader.left() == 0, "bytes are left")
    return says


def check_membership_packet(case):
    # The file says that all packets came from node 1, whose seed is 32 bytes 01.
    check_says(case, read_membership_packet, case.get("packet", unhex), public_key(b"\x01" * 32))
