"""Section 10 of docs/protocol.md, Gossip: topics, and frames in protobuf. Checks topics.json and gossip_frames.json."""

from .cases import check_says, expect, expect_refused, optional, text, unhex
from .envelopes import CHANNEL, message_id
from .frames import check_on_stream
from .notation import Reader, as_utf8, read_varint, require

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # the wire types of protobuf; 3 and 4 are groups

RPC = {1: BYTES, 2: BYTES, 3: BYTES}
SUBSCRIPTION = {1: VARINT, 2: BYTES}
MESSAGE = {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: BYTES, 6: BYTES}
MESSAGE_DATA, MESSAGE_TOPIC = 2, 4
MESSAGE_NOT_ALLOWED = {1: "from", 3: "seqno", 5: "signature", 6: "key"}
CHOKE, UNCHOKE = 7302401, 7302402  # tree mode
CONTROL = {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: BYTES, CHOKE: BYTES, UNCHOKE: BYTES}
TOPIC_AND_IDS = {1: BYTES, 2: BYTES}
IDS = {1: BYTES}
GRAFT = {1: BYTES}
PRUNE = {1: BYTES, 3: VARINT}
TOPIC_AND_TREES = {1: BYTES, 2: VARINT}


def topic_of(mesh, channel):
    return f"omnimesh/1/{mesh.hex()}/{channel}"


def channel_of(mesh, topic):
    prefix = topic_of(mesh, "")
    channel = topic[len(prefix) :]
    require(topic.startswith(prefix) and CHANNEL.fullmatch(channel.encode("utf-8")), "of no channel")
    return channel


def protobuf(data, known):
    """The known fields of a message of protobuf, as (number, value). Unknown ones are passed over."""
    fields, reader = [], Reader(data)
    while reader.left():
        key, reader.at = read_varint(data, reader.at, shortest=False)
        number, wire = key >> 3, key & 7
        require(1 <= number < 2**29, "a field number that there is not")
        if wire == VARINT:
            value, reader.at = read_varint(data, reader.at, shortest=False)
        elif wire == BYTES:
            length, reader.at = read_varint(data, reader.at, shortest=False)
            value = reader.take(length)
        else:
            require(wire in (FIXED64, FIXED32), "a group, or a wire type that there is not")
            value = reader.take(8 if wire == FIXED64 else 4)
        if number in known:
            require(wire == known[number], "a field of another type")
            fields.append((number, value))
    return fields


def every(fields, number):
    return [value for n, value in fields if n == number]


def last(fields, number, absent=None):
    return (every(fields, number) or [absent])[-1]


def read_topic(fields, number):
    topic = last(fields, number)
    return None if topic is None else as_utf8(topic, "a topic that is not UTF-8")


def read_ids(fields, number):
    return [value.hex() for value in every(fields, number) if len(value) == 20]


def read_gossip_frame(frame):
    """What a frame says, in the form of the vectors."""
    rpc = protobuf(frame, RPC)
    says = {"subscriptions": [read_subscription(data) for data in every(rpc, 1)]}
    read_messages(every(rpc, 2), says)
    # A part that is there more than once is one part in pieces, as always in protobuf.
    control = protobuf(b"".join(every(rpc, 3)), CONTROL)
    says["ihave"] = [read_ihave(data) for data in every(control, 1)]
    says["iwant"] = [i for data in every(control, 2) for i in read_ids(protobuf(data, IDS), 1)]
    says["graft"] = [read_topic(protobuf(data, GRAFT), 1) for data in every(control, 3)]
    says["prune"] = [read_prune(data) for data in every(control, 4)]
    says["idontwant"] = [i for data in every(control, 5) for i in read_ids(protobuf(data, IDS), 1)]
    for name, number in (("choke", CHOKE), ("unchoke", UNCHOKE)):
        said = [protobuf(data, TOPIC_AND_TREES) for data in every(control, number)]
        said = [{"topic": read_topic(fields, 1), "trees": str(last(fields, 2, 0))} for fields in said]
        says[name] = [one for one in said if one["topic"] is not None and one["trees"] != "0"]
    return says


def read_subscription(data):
    fields = protobuf(data, SUBSCRIPTION)
    return {"subscribe": last(fields, 1, 0) != 0, "topic": read_topic(fields, 2)}


def read_messages(messages, says):
    says["messages"], says["refused_messages"] = [], []
    for data in messages:
        fields = protobuf(data, MESSAGE)
        topic = read_topic(fields, MESSAGE_TOPIC)
        faults = [name for number, name in MESSAGE_NOT_ALLOWED.items() if every(fields, number)]
        if topic is None:
            faults.append("no topic")
        if faults:
            says["refused_messages"].append(faults[0])
            continue
        data = last(fields, MESSAGE_DATA, b"")
        says["messages"].append({"topic": topic, "data": data.hex(), "message_id": message_id(data).hex()})


def read_ihave(data):
    fields = protobuf(data, TOPIC_AND_IDS)
    return {"topic": read_topic(fields, 1), "ids": read_ids(fields, 2)}


def read_prune(data):
    fields = protobuf(data, PRUNE)
    backoff = last(fields, 3)
    return {"topic": read_topic(fields, 1), "backoff_s": None if backoff is None else str(backoff)}


def check_topic(case):
    mesh, topic = case.get("mesh_id", unhex), case.get("topic", text)
    channel = case.get("channel", optional(text))
    if channel is None:
        expect_refused("topic", channel_of, mesh, topic)
        return
    expect("channel", channel_of(mesh, topic), channel)
    expect("topic", topic_of(mesh, channel), topic)


def check_gossip_frame(case):
    check_says(case, read_gossip_frame, check_on_stream(case))
