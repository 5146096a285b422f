#!/usr/bin/env python3
"""A second reader and writer of the bytes of OmniMesh, checked against the test vectors.

It was written from docs/protocol.md alone and shares no code with the node. So where it passes, the document
is enough to write another implementation, and the vectors are what the document says. The parts follow the
sections of the document.

    python3 tests/verify_vectors.py [docs/vectors]

Needs the packages in tests/requirements.txt. Exit status 1 if any case failed.
"""

import base64
import hashlib
import hmac
import json
import math
import re
import struct
import sys
from pathlib import Path

import base58
import cbor2
import regex
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

U8, U16, U32, U64 = 2**8 - 1, 2**16 - 1, 2**32 - 1, 2**64 - 1


class Refused(Exception):
    """What was read is refused; the text is the reason (in envelopes: the reason code)."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def as_utf8(raw, reason):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(reason) from None


# ------------------------------------------------------------------------------------------------ 1. Notation


def hash32(message):
    return blake3(message).digest()


def keyed_hash(key, message):
    return blake3(message, key=key).digest()


def derive_key(context, material):
    return blake3(material, derive_key_context=context).digest()


def le64(number):
    return number.to_bytes(8, "little")


def write_varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def read_varint(data, at, shortest):
    """The number that begins at `at`, and where it ends. Before frames, only the shortest form will do."""
    number = 0
    for i in range(10):
        require(at + i < len(data), "cut in a varint")
        byte = data[at + i]
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            require(number <= U64, "a varint of more than 64 bits")
            require(not shortest or byte != 0 or i == 0, "a varint that is not the shortest")
            return number, at + i + 1
    raise Refused("a varint of more than ten bytes")


class Reader:
    """Takes bytes from the front, and refuses when there are too few."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        require(self.left() >= count, "cut")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")


# ---------------------------------------------------------------------------------------------- 2. Identities

PEER_ID_PREFIX = bytes.fromhex("002408011220")


def public_key(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def write_peer_id(key):
    return base58.b58encode(PEER_ID_PREFIX + key).decode("ascii")


def read_peer_id(text):
    """The public key in the text of a peer id."""
    try:
        raw = base58.b58decode(text)
    except ValueError:
        raise Refused("not base58") from None
    require(len(raw) == 38 and raw.startswith(PEER_ID_PREFIX), "not the peer id of an Ed25519 key")
    key = raw[len(PEER_ID_PREFIX) :]
    require(write_peer_id(key) == text, "not the one text of this peer id")  # the library drops white space
    return key


# -------------------------------------------------------------------------------------------------- 3. Meshes

# `regex` and not `re`: the Alphabetic property is more than the letters that Python's own classes know.
MESH_NAME = regex.compile(r"[\p{Alphabetic}\p{Nd}\p{Nl}\p{No}_.\-]+")
WHITE_SPACE = r"\p{White_Space}+"
INVITE_PREFIX = "omnimesh1-"
INVITE_CHARACTERS_MAX = 8192


def mesh_name_allowed(name):
    return 1 <= len(name.encode("utf-8")) <= 64 and MESH_NAME.fullmatch(name) is not None


def mesh_id(name, secret):
    return derive_key("omnimesh 2026-11 mesh id", secret + name.encode("utf-8"))[:16]


def open_secret(name):
    return derive_key("omnimesh 2026-11 open mesh secret", name.encode("utf-8"))


def member_proof(secret, prover, verifier):
    return keyed_hash(derive_key("omnimesh 2026-11 member proof", secret), prover + verifier)


def write_invite(name, secret, addresses):
    cbor = write_cbor([Text(name), secret, [Text(address) for address in addresses]])
    token = base64.urlsafe_b64encode(cbor + hash32(cbor)[:4]).decode("ascii")
    return cbor, INVITE_PREFIX + token.rstrip("=")


def read_base64url(text):
    require(re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1, "not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # One text for each invite: bits beyond the last byte are zero.
    require(base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=") == text, "not the one base64url")
    return raw


def read_invite(token):
    """Name, secret, addresses and the CBOR of an invite."""
    token = regex.sub(rf"\A{WHITE_SPACE}|{WHITE_SPACE}\Z", "", token)
    require(token.startswith(INVITE_PREFIX), "no prefix")
    text = token[len(INVITE_PREFIX) :]
    require(len(text) <= INVITE_CHARACTERS_MAX, "too long")
    raw = read_base64url(text)
    require(len(raw) >= 4, "no check")
    cbor, check = raw[:-4], raw[-4:]
    require(hmac.compare_digest(hash32(cbor)[:4], check), "the check is wrong")

    item = read_cbor(cbor)
    require(is_array(item, 3), "not three items")
    name, secret, addresses = item
    require(is_text(name) and mesh_name_allowed(name.decoded()), "the name is not allowed")
    require(is_bytes(secret, 32), "the secret is not allowed")
    require(is_array(addresses) and len(addresses) <= 16, "not a list of addresses, or too long")
    require(all(is_text(address) and len(address.raw) <= 256 for address in addresses), "an address is wrong")
    return name.decoded(), secret, [address.decoded() for address in addresses], cbor


# -------------------------------------------------------------------------------------- 4. Steps and patterns


class Pattern:
    def __init__(self, secret, phase_interval, step):
        self.phase, self.block = divmod(step, phase_interval)
        self.phase_key = derive_key("omnimesh 2026-11 phase key", secret + le64(self.phase))
        # The library's IV of 16 bytes is the block counter and the nonce of the original ChaCha20.
        cipher = Cipher(ChaCha20(self.phase_key, le64(self.block) + bytes(8)), mode=None)
        stream = cipher.encryptor().update(bytes(64))
        self.tag_key = stream[:32]
        self.value = int.from_bytes(stream[32:40], "little")


# ------------------------------------------------------------------------------------------ 5. Canonical CBOR


class Text:
    """A text string; its bytes need not be UTF-8, as the walk over the shape does not look at text."""

    def __init__(self, text):
        self.raw = text.encode("utf-8") if isinstance(text, str) else text

    def decoded(self):
        return as_utf8(self.raw, "malformed")


def is_uint(item, most=U64):
    return isinstance(item, int) and item <= most


def is_bytes(item, length=None):
    return isinstance(item, bytes) and length in (None, len(item))


def is_text(item):
    return isinstance(item, Text)


def is_array(item, length=None):
    return isinstance(item, list) and length in (None, len(item))


def check_shape(data):
    """The walk of the document, step by step; refuses what is not the one encoding of a document."""
    at = 0
    open_arrays = [1]
    while True:
        while open_arrays[-1] == 0:
            open_arrays.pop()
            if not open_arrays:
                require(at == len(data), "trailing_bytes")
                return
        open_arrays[-1] -= 1
        major, number, at = check_head(data, at)
        if major in (2, 3):
            require(len(data) - at >= number, "truncated")
            at += number
        elif major == 4:
            require(len(open_arrays) < 5, "too_deep")
            open_arrays.append(number)


def check_head(data, at):
    """Major type, number or length, and where the head ends. For null, major type 7 and no number."""
    require(at < len(data), "truncated")
    first = data[at]
    at += 1
    if first == 0xF6:
        return 7, None, at
    major, info = first >> 5, first & 0x1F
    require(major in (0, 2, 3, 4), "malformed")
    if info < 24:
        return major, info, at
    if info <= 27:
        size = 1 << (info - 24)
        require(len(data) - at >= size, "truncated")
        number = int.from_bytes(data[at : at + size], "big")
        require(number >= (24, 2**8, 2**16, 2**32)[info - 24], "not_canonical")
        return major, number, at + size
    raise Refused("not_canonical" if info == 31 else "malformed")


def read_cbor(data):
    """The one item in `data`: an int, bytes, Text, None or a list of these."""
    check_shape(data)
    return read_item(data, 0)[0]


def read_item(data, at):
    # Recursion is safe here: the walk over the shape has bounded the depth.
    major, number, at = check_head(data, at)
    if major == 7:
        return None, at
    if major == 0:
        return number, at
    if major == 4:
        items = []
        for _ in range(number):
            item, at = read_item(data, at)
            items.append(item)
        return items, at
    raw = data[at : at + number]
    return (raw if major == 2 else Text(raw)), at + number


def write_cbor(item):
    if item is None:
        return b"\xf6"
    if isinstance(item, int):
        return write_head(0, item)
    if isinstance(item, bytes):
        return write_head(2, len(item)) + item
    if isinstance(item, Text):
        return write_head(3, len(item.raw)) + item.raw
    return write_head(4, len(item)) + b"".join(write_cbor(each) for each in item)


def write_head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    power = next(p for p in range(4) if number < 1 << (8 << p))
    return bytes([major << 5 | 24 + power]) + number.to_bytes(1 << power, "big")


# ----------------------------------------------------------------------------------------------- 6. Envelopes

SIGNATURE_CONTEXT = b"omnimesh/1/envelope"
CHANNEL = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
EPHEMERAL, DURABLE = 0, 1


class Signed:
    """The ten items of the signed part, each as the table of the document wants it."""

    def __init__(self, items):
        require(len(items) == 10, "malformed")
        (_, self.mesh, self.author, self.seq, self.step, self.kind, channel, self.prev, self.timestamp_us,
         self.payloads) = items
        require(is_bytes(self.mesh, 16) and is_bytes(self.author, 32), "malformed")
        require(is_uint(self.seq) and is_uint(self.step), "malformed")
        require(is_uint(self.kind, DURABLE), "malformed")
        require(is_text(channel) and CHANNEL.fullmatch(channel.raw), "malformed")
        require(self.prev is None or (is_bytes(self.prev, 32) and self.kind == DURABLE), "malformed")
        require(self.timestamp_us is None or is_uint(self.timestamp_us), "malformed")
        require(is_array(self.payloads) and 1 <= len(self.payloads) <= 256, "malformed")
        require(all(is_bytes(payload) for payload in self.payloads), "malformed")
        require(self.seq >= 1 and self.seq + len(self.payloads) <= U64, "malformed")
        self.channel = channel.decoded()


class Envelope:
    """Gates 2 to 7: an envelope that can be read, with the bytes that its tag and signature are made over."""

    def __init__(self, data):
        outer = read_cbor(data)
        require(is_array(outer, 3) and all(is_bytes(item) for item in outer), "malformed")
        self.signed_bytes, self.tag, self.signature = outer
        items = read_cbor(self.signed_bytes)
        require(is_array(items) and items and is_uint(items[0]), "malformed")
        require(items[0] == 1, "unknown_version")
        self.signed = Signed(items)
        require(len(self.tag) == 32 and len(self.signature) == 64, "malformed")


def signature_input(signed_bytes):
    return SIGNATURE_CONTEXT + hash32(signed_bytes)


def message_id(envelope):
    return hash32(envelope)[:20]


# Ed25519, in Python's own arithmetic: no common library checks signatures in the way that the document wants.
# Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z (RFC 8032, section 5.1.4).

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def point_add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_multiply(scalar, point):
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = point_add(result, point)
        point = point_add(point, point)
        scalar >>= 1
    return result


def point_negate(point):
    return P - point[0], point[1], point[2], P - point[3]


def point_encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def point_decode(data):
    """The point, or None if there is none. A y of p or more is reduced, and x = 0 may have its sign set."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number % 2**255 % P
    x_squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x_squared, (P + 3) // 8, P)
    if (x * x - x_squared) % P != 0:
        x = x * SQRT_MINUS_1 % P
    if (x * x - x_squared) % P != 0:
        return None
    if x & 1 != sign:
        x = -x % P
    return x, y, 1, x * y % P


def small_order(point):
    x, y, z, _ = point_multiply(8, point)
    return x == 0 and y == z


BASE = point_decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def good_key(key):
    point = point_decode(key)
    return point is not None and not small_order(point)


def verify(key, message, signature):
    """`valid`, `bad_key` or `bad_signature`, by the six steps of the document."""
    if not good_key(key):
        return "bad_key"
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    r_point = point_decode(r)
    if s >= L or r_point is None or small_order(r_point):
        return "bad_signature"
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L
    expected = point_add(point_multiply(s, BASE), point_multiply(k, point_negate(point_decode(key))))
    return "valid" if point_encode(expected) == r else "bad_signature"


# --------------------------------------------------------------------------------- 7. How a message is judged


class Judge:
    """A node's state as far as it decides about messages."""

    def __init__(self, name, secret, phase_interval, step, past, future, bytes_max, channel, windows):
        self.mesh_id, self.secret, self.phase_interval = mesh_id(name, secret), secret, phase_interval
        self.step, self.past, self.future = step, past, future
        self.bytes_max, self.channel, self.windows = bytes_max, channel, windows
        self.quarantined = set()

    def judge(self, data):
        """`accepted`, or the reason of the first gate that refuses."""
        try:
            self.pass_gates(data)
        except Refused as refused:
            return str(refused)
        return "accepted"

    def pass_gates(self, data):
        require(len(data) <= self.bytes_max, "too_large")
        envelope = Envelope(data)
        signed = envelope.signed
        require(signed.mesh == self.mesh_id, "wrong_mesh")
        is_log = self.channel == "_log"
        require(is_log or signed.channel == self.channel, "wrong_channel")
        is_first, is_alone = signed.seq == 1, signed.prev is None
        require(signed.kind == 1 and is_first == is_alone if is_log else signed.kind == 0, "wrong_kind")
        require(self.step is not None, "not_synchronised")
        stale_before = max(self.step - self.past, 0)
        require(signed.step >= stale_before, "stale_step")
        require(signed.step <= self.step + self.future, "future_step")
        tag_key = Pattern(self.secret, self.phase_interval, signed.step).tag_key
        tag = keyed_hash(tag_key, envelope.signed_bytes)
        require(hmac.compare_digest(tag, envelope.tag), "bad_pattern")
        count = len(signed.payloads)
        if not is_log:
            self.windows.look(signed.author, signed.seq, count, signed.step)
        require(signed.author not in self.quarantined, "quarantined")
        result = verify(signed.author, signature_input(envelope.signed_bytes), envelope.signature)
        require(result == "valid", result)
        # Gate 18 without another look at the step: no time passes for a judge of the vectors.
        if not is_log:
            self.windows.accept(signed.author, signed.seq, count, signed.step, stale_before)


# ------------------------------------------------------------------------------------------ 8. Replay windows


class Author:
    def __init__(self, floor):
        self.top, self.used, self.last_step, self.floor = 0, set(), 0, floor


class ReplayWindows:
    def __init__(self, window, authors_max, floor):
        self.window = -(-window // 64) * 64  # rounded up
        self.authors_max, self.floor = authors_max, floor
        self.authors = {}  # in order of the last acceptance: who is accepted is taken out and put at the end

    def look(self, author, seq, count, step):
        entry = self.authors.get(author)
        floor = self.floor if entry is None else entry.floor
        require(floor is None or step > floor, "not_provably_new")
        if entry is not None:
            require(seq >= max(entry.top - self.window + 1, 1), "replay")
            require(entry.used.isdisjoint(range(seq, seq + count)), "replay")

    def accept(self, author, seq, count, step, stale_before):
        self.look(author, seq, count, step)
        if author not in self.authors:
            self.make_room(stale_before)
        entry = self.authors.pop(author, None) or Author(self.floor)
        entry.top = max(entry.top, seq + count - 1)
        bottom = entry.top - self.window + 1
        entry.used = {n for n in entry.used.union(range(seq, seq + count)) if n >= bottom}
        entry.last_step = max(entry.last_step, step)
        self.authors[author] = entry

    def make_room(self, stale_before):
        while self.authors:
            oldest = next(iter(self.authors))
            last_step = self.authors[oldest].last_step
            if last_step >= stale_before:
                if len(self.authors) < self.authors_max:
                    return
                self.floor = last_step if self.floor is None else max(self.floor, last_step)
            del self.authors[oldest]


# ------------------------------------------------------------------------------------------------- 10. Gossip

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


def write_on_stream(frame):
    return write_varint(len(frame)) + frame


def read_from_stream(data, bytes_max=65536):
    """The one frame that `data` holds."""
    length, at = read_varint(data, 0, shortest=True)
    require(length <= bytes_max, "a frame that is too long")
    require(len(data) - at == length, "not one whole frame")
    return data[at:]


# ------------------------------------------------------------------------------------- 11. The control stream

CONTROL_CHARACTER = regex.compile(r"\p{Cc}")


def number_of_bits(bits):
    def read(item):
        require(is_uint(item, 2**bits - 1), "not a number, or too large")
        # Numbers that may have 64 bits are text in the vectors.
        return str(item) if bits == 64 else item

    return read


def or_null(read):
    return lambda item: None if item is None else read(item)


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


# ------------------------------------------------------------------------------------- 13. Membership packets

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


# ------------------------------------------------------------------------------------------------ 14. The log

def read_bytes(item, length=None):
    require(is_bytes(item, length), "not bytes, or of the wrong length")
    return item.hex()


def read_head(item):
    require(is_bytes(item, 72) or is_bytes(item, 104), "not a head")
    last, proof = int.from_bytes(item[32:40], "little"), item[72:].hex()
    return {"author": item[:32].hex(), "last": str(last), "digest": item[40:72].hex(), "proof": proof or None}


def read_heads(item):
    require(is_array(item) and len(item) <= 8192, "not heads")
    return [read_head(each) for each in item]


def read_range(item):
    require(is_array(item, 3), "not a range")
    lower, upper, content = item
    require(is_bytes(lower) and len(lower) <= 32, "not a bound")
    require(upper is None or (is_bytes(upper) and len(upper) <= 32 and lower < upper), "not a bound")
    says = {"lower": lower.hex(), "upper": None if upper is None else upper.hex(), "fingerprint": None, "heads": None}
    if is_bytes(content):
        return {**says, "fingerprint": read_bytes(content, 16)}
    says["heads"] = read_heads(content)
    authors = [bytes.fromhex(head["author"]) for head in says["heads"]]
    require(all(lower <= author and (upper is None or author < upper) for author in authors), "outside the range")
    require(all(a < b for a, b in zip(authors, authors[1:])), "heads out of order")
    return says


def read_ranges(item):
    require(is_array(item) and len(item) <= 8192, "not ranges")
    ranges = [read_range(each) for each in item]
    for one, following in zip(ranges, ranges[1:]):
        require(one["upper"] is not None, "a range behind the end")
        require(bytes.fromhex(one["upper"]) <= bytes.fromhex(following["lower"]), "ranges that overlap")
    return ranges


def read_records(item):
    require(is_array(item) and len(item) <= 4096, "not records")
    return [read_bytes(each) for each in item]


def read_votes(item):
    require(is_array(item) and len(item) <= 2048, "not votes")
    return [read_bytes(each, 96) for each in item]


def read_sealed(data):
    """The checkpoint's bytes, the hash and length of heads, and the votes."""
    sealed = read_cbor(data)
    require(is_array(sealed, 3) and is_bytes(sealed[0]) and is_array(sealed[1], 2), "not a sealed checkpoint")
    checkpoint, heads, votes = sealed[0], sealed[1], [bytes.fromhex(vote) for vote in read_votes(sealed[2])]
    require(is_bytes(heads[0], 32) and is_uint(heads[1]), "nothing of heads")
    require(all(one[:32] < other[:32] for one, other in zip(votes, votes[1:])), "votes out of order")
    whole = read_cbor(checkpoint)
    require(is_array(whole, 4) and whole[0] == 1 and is_bytes(whole[1], 16) and is_uint(whole[2]), "not a checkpoint")
    require(is_array(whole[3]) and 1 <= len(whole[3]) <= 16, "not parts")
    for part in whole[3]:
        require(is_array(part, 3) and is_bytes(part[0]) and len(part[0]) <= 64, "not a part")
        require(is_bytes(part[1], 32) and is_uint(part[2]), "not a part")
    require(whole[3][0][0] == b"cut", "no cut")
    return checkpoint, heads, votes


def read_offer(item):
    read_sealed(bytes.fromhex(read_bytes(item)))
    return item.hex()


def write_checkpoint(mesh, step, records):
    """Cut, registry, heads and the checkpoint, of records of which each author's are in order."""
    ends, is_over, registry = {}, set(), Registry()
    for data in records:
        envelope = Envelope(data)
        record, digest = envelope.signed, hash32(envelope.signed_bytes)
        if record.author in is_over or record.step >= step:
            is_over.add(record.author)
            continue
        last = record.seq + len(record.payloads) - 1
        ends[record.author] = [record.author, last, digest, record.step], data
        for at, payload in enumerate(record.payloads):
            is_last = record.seq + at == last
            name = digest if is_last else derive_key("omnimesh/1/entry", digest + le64(at))
            registry.apply({
                "author": record.author, "seq": record.seq + at, "step": record.step, "hash": name,
                "channel": record.channel, "payload": payload,
            })  # fmt: skip
    ordered = [ends[author] for author in sorted(ends)]
    cut, heads = (write_cbor([end[place] for end in ordered]) for place in (0, 1))
    state = registry.snapshot()
    named = [[name, hash32(part), len(part)] for name, part in ((b"cut", cut), (b"registry", state))]
    return cut, state, heads, write_cbor([1, mesh, step, named])


AUTHOR, NUMBER = lambda item: read_bytes(item, 32), number_of_bits(64)  # noqa: E731
LOG_FRAMES = [
    ("Compare", {"round": NUMBER, "ranges": read_ranges}),
    ("Heads", {"heads": read_heads}),
    ("Fetch", {"id": NUMBER, "author": AUTHOR, "from": NUMBER, "to": NUMBER, "bytes": NUMBER}),
    ("Records", {"id": NUMBER, "next": NUMBER, "records": read_records}),
    ("Decline", {"id": NUMBER, "reason": NUMBER, "seq": NUMBER}),
    ("Find", {"id": NUMBER, "author": AUTHOR, "seq": NUMBER}),
    ("AskProof", {"author": AUTHOR}),
    ("Proof", {"proof": read_bytes}),
    ("AskHead", {"author": AUTHOR}),
    ("HeadOf", {"author": AUTHOR, "head": or_null(read_head)}),
    ("AskCheckpoint", {"author": AUTHOR, "seq": NUMBER}),
    ("Offer", {"sealed": or_null(read_offer)}),
    ("Votes", {"step": NUMBER, "id": AUTHOR, "votes": read_votes}),
    ("AskChunk", {"id": NUMBER, "checkpoint": AUTHOR, "part": NUMBER, "index": NUMBER}),
    ("Chunk", {"id": NUMBER, "chunk": read_bytes}),
]


def read_log_frame(frame):
    """What a frame says; None if its kind is of a later version."""
    item = read_cbor(frame)
    require(is_array(item) and item and is_uint(item[0]), "no kind")
    if item[0] >= len(LOG_FRAMES):
        return None
    name, fields = LOG_FRAMES[item[0]]
    require(len(item) == 1 + len(fields), "fields are missing, or too many")
    says = {field: read(value) for (field, read), value in zip(fields.items(), item[1:])}
    if name == "HeadOf" and says["head"] is not None:
        require(says["head"]["author"] == says["author"], "a head of another author")
    return {"kind": name, **says}


def head_hash(head):
    return derive_key("omnimesh 2026-11 log head", head)


def fingerprint(heads):
    total = sum(int.from_bytes(head_hash(head), "little") for head in heads) % 2**256
    material = le64(len(heads)) + total.to_bytes(32, "little")
    return derive_key("omnimesh 2026-11 log fingerprint", material)[:16]


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


# -------------------------------------------------------------------------------------- 18. Registry entries

IDENTIFIER = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class WideReader:
    """Reads the wider CBOR of operations from the front; what comes first is wrong first."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        require(len(self.data) - self.at >= length, "truncated")
        self.at += length
        return self.data[self.at - length : self.at]

    def head(self):
        """Major type and number; for the simple ones 7 and the value."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 0x1F
        if first in (0xF4, 0xF5, 0xF6):
            return 7, {0xF4: False, 0xF5: True, 0xF6: None}[first]
        if first == 0xFB:
            value = struct.unpack(">d", self.take(8))[0]
            require(math.isfinite(value) and (value != 0 or math.copysign(1, value) > 0), "not_canonical")
            return 7, value
        require(major < 6, "malformed")
        if info < 24:
            return major, info
        require(info != 31, "not_canonical")
        require(info < 28, "malformed")
        number = int.from_bytes(self.take(1 << (info - 24)), "big")
        require(number >= (24, 2**8, 2**16, 2**32)[info - 24], "not_canonical")
        return major, number

    def text(self):
        major, number = self.item()
        require(major == 3, "malformed")
        return number

    def item(self):
        """As head; strings with their content."""
        major, number = self.head()
        if major == 2:
            return major, self.take(number)
        if major == 3:
            return major, as_utf8(self.take(number), "malformed")
        return major, number

    def of_major(self, wanted):
        major, number = self.item()
        require(major == wanted, "malformed")
        return number

    def is_null(self):
        if self.data[self.at : self.at + 1] != b"\xf6":
            return False
        self.at += 1
        return True

    def value(self, depth=0):
        start = self.at
        major, number = self.item()
        if major in (0, 1):
            require(number < 2**63, "bad_number")
        if major in (4, 5):
            require(depth < 8, "too_deep")
        if major == 4:
            for _ in range(number):
                self.value(depth + 1)
        if major == 5:
            self.pairs(number, lambda: self.value(depth + 1))
        raw = self.data[start : self.at]
        require(depth > 0 or len(raw) <= 16384, "too_large")
        return raw

    def pairs(self, number, read, check=lambda key: None):
        """Keys and what follows each, the keys in the order of their encodings."""
        found, last = {}, b""
        for _ in range(number):
            key = self.text()
            encoded = write_cbor(Text(key))
            require(encoded > last, "not_canonical")
            check(key)
            found[key], last = read(), encoded
        return found

    def uint(self, most=U64):
        number = self.of_major(0)
        require(number <= most, "bad_number")
        return number

    def choice(self, count):
        """A number below `count` that says which of several forms this is."""
        number = self.uint()
        require(number < count, "malformed")
        return number

    def flag(self):
        value = self.of_major(7)
        require(isinstance(value, bool), "malformed")
        return value

    def octets(self, length=None):
        raw = self.of_major(2)
        require(length in (None, len(raw)), "malformed")
        return raw

    def array(self, *lengths):
        number = self.of_major(4)
        require(number in lengths, "malformed")
        return number

    def array_of(self, read):
        return [read(self) for _ in range(self.of_major(4))]

    def map_of(self, read):
        return self.pairs(self.of_major(5), lambda: read(self))

    def or_null(self, read):
        return None if self.is_null() else read(self)

    def finish(self):
        require(self.at == len(self.data), "trailing_bytes")


def check_name(name, bytes_max):
    good = name and len(name.encode()) <= bytes_max and not regex.search(r"\p{Cc}", name)
    require(good, "bad_name")


def read_identifier(reader):
    name = reader.text()
    require(IDENTIFIER.fullmatch(name), "bad_name")
    return name


def read_entry_key(reader):
    kind, name = read_identifier(reader), reader.text()
    check_name(name, 128)
    return kind, name


def read_after(reader):
    if reader.is_null():
        return None
    require(reader.of_major(4) == 2, "malformed")
    step, count = reader.of_major(0), reader.of_major(0)
    require(count <= U32, "bad_number")
    return step, count


ACTIONS = ("put", "update", "delete", "link", "unlink")


def read_operation(payload):
    require(len(payload) <= 49152, "too_large")
    reader = WideReader(payload)
    items = reader.of_major(4)
    require(reader.of_major(0) == 1, "unknown_version")
    code = reader.of_major(0)
    require(code < 5, "unknown_operation")
    require(items == (7, 7, 5, 8, 8)[code], "malformed")
    said = dict.fromkeys(("relation", "to", "ttl", "fields"))
    said["action"], said["key"] = ACTIONS[code], read_entry_key(reader)
    if code >= 3:
        said["relation"], said["to"] = read_identifier(reader), read_entry_key(reader)
    said["after"] = read_after(reader)
    if code < 2:
        said["ttl"] = None if reader.is_null() else reader.of_major(0)
        number = reader.of_major(5)
        require(number <= 64, "too_many_fields")
        said["fields"] = reader.pairs(number, reader.value, lambda name: check_name(name, 64))
        require(said["ttl"] != 0, "malformed")
        require(code == 1 or b"\xf6" not in said["fields"].values(), "malformed")
        require(code == 0 or said["fields"] or said["ttl"] is not None, "malformed")
    reader.finish()
    return said


class Registry:
    """All operations that count, sorted by rank whenever somebody asks: slow, and easy to see through."""

    def __init__(self):
        self.operations, self.versions, self.heads, self.cuts, self.floor = {}, {}, {}, {}, 0

    def apply(self, entry):
        author, seq = entry["author"], entry["seq"]
        if author in self.cuts and seq > self.cuts[author][0]:
            return "cut_off"
        self.heads[author] = max(self.heads.get(author, (0, b"")), (seq, entry["hash"]))
        if entry["channel"] != "registry":
            return "other_category"
        try:
            said = read_operation(entry["payload"])
            after = said["after"]
            require(after is None or after <= (entry["step"] + 16, 2**32 - 2), "too_far_ahead")
        except Refused as refused:
            return str(refused)
        moment = (entry["step"], 0)
        if after is not None:
            moment = max(moment, (after[0], after[1] + 1))
        thing = said["key"] if said["relation"] is None else (said["key"], said["relation"], said["to"])
        self.operations.setdefault(thing, {})[(moment, author, seq)] = (said, entry["step"])
        authors = self.versions.setdefault(thing, {})
        authors[author] = max(authors.get(author, (0, 0)), (entry["step"], seq))
        return "applied"

    def highest(self, thing, *actions):
        ranks = [rank for rank, (said, _) in self.operations.get(thing, {}).items() if said["action"] in actions]
        return max(ranks, default=None)

    def cell(self, key):
        """Put, delete, expires and fields of an entry, as far as they can still count."""
        put, delete = self.highest(key, "put"), self.highest(key, "delete")
        if put is not None and delete is not None and delete > put:
            put = None
        floor = max((rank for rank in (put, delete) if rank is not None), default=((0, 0), b"", 0))
        expires, fields = None, {}
        for rank, (said, step) in sorted(self.operations[key].items()):
            if said["action"] not in ("put", "update") or rank < floor:
                continue
            if said["ttl"] is not None or said["action"] == "put":
                expires = (rank, None if said["ttl"] is None else min(step + said["ttl"], U64))
            fields.update({name: (rank, value) for name, value in said["fields"].items()})
        kept = sorted(fields, key=lambda name: (fields[name][0], name.encode()))[-64:]
        return put, delete, expires, {name: fields[name] for name in kept}

    def entry_keys(self):
        return sorted((thing for thing in self.operations if len(thing) == 2), key=in_bytes)

    def links(self):
        """All links by bytes: thing, rank, whether it was linked, and whether it is shown."""
        for thing in sorted((thing for thing in self.operations if len(thing) == 3), key=in_bytes):
            rank = self.highest(thing, "link", "unlink")
            linked = self.operations[thing][rank][0]["action"] == "link"
            deletes = [self.highest(end, "delete") for end in (thing[0], thing[2])]
            yield thing, rank, linked, linked and all(delete is None or rank > delete for delete in deletes)

    def items(self):
        items = []
        for key in self.entry_keys():
            put, _, expires, fields = self.cell(key)
            if put is None:
                continue
            shown = sorted((name.encode(), *field) for name, field in fields.items() if field[1] != b"\xf6")
            written = [[Text(name), write_rank(rank), hash32(value)] for name, rank, value in shown]
            items.append([0, *texts(key), write_rank(put), expires[1], written])
        for (start, relation, end), rank, _, is_shown in self.links():
            if is_shown:
                items.append([1, *texts(start), Text(relation), *texts(end), write_rank(rank)])
        return sorted(write_wide(item) for item in items)

    def hash(self):
        sums = [0] * 1024
        for item in self.items():
            lanes = blake3(item, derive_key_context="omnimesh 2026-11 registry item").digest(length=2048)
            sums = [(a + b) % 2**16 for a, b in zip(sums, struct.unpack("<1024H", lanes))]
        return derive_key("omnimesh 2026-11 registry state", struct.pack("<1024H", *sums))

    def heads_hash(self):
        heads = sorted(self.heads.items())
        data = b"".join(author + le64(seq) + digest for author, (seq, digest) in heads)
        return derive_key("omnimesh 2026-11 registry heads", data)

    def snapshot(self):
        named = set()

        def place(author):
            named.add(author)
            return authors.index(author)

        def rank_of(rank):
            return None if rank is None else [*rank[0], place(rank[1]), rank[2]]

        def versions_of(thing):
            last = sorted(self.versions[thing].items(), key=lambda item: (item[1][0], item[0], item[1][1]))
            return [len(last) > 32, *([place(author), *version] for author, version in sorted(last[-32:]))]

        def body():
            entries, links = [], []
            for key in self.entry_keys():
                put, delete, expires, fields = self.cell(key)
                ranks = [rank for rank in (put, delete, expires and expires[0]) if rank is not None]
                ranks += [rank for rank, _ in fields.values()]
                if put is None and all(rank[0] < (self.floor, 0) for rank in ranks):
                    continue
                written = {name: [rank_of(rank), Raw(value)] for name, (rank, value) in fields.items()}
                expires = expires and [rank_of(expires[0]), expires[1]]
                entries.append([*texts(key), rank_of(put), rank_of(delete), expires, written, versions_of(key)])
            for thing, rank, linked, is_shown in self.links():
                if is_shown or rank[0] >= (self.floor, 0):
                    start, relation, end = thing
                    names = [*texts(start), Text(relation), *texts(end)]
                    links.append([*names, rank_of(rank), linked, versions_of(thing)])
            heads = [[place(author), *head] for author, head in sorted(self.heads.items())]
            cuts = [[place(author), *end] for author, end in sorted(self.cuts.items())]
            return write_wide([1, self.floor, authors, heads, cuts, entries, links])

        # Once to learn which authors are named, once with only those.
        authors = sorted({a for a in self.heads} | {a for each in self.versions.values() for a in each} | set(self.cuts))
        body()
        authors = sorted(named)
        data = body()
        return data + derive_key("omnimesh 2026-11 registry snapshot", data)


class Raw:
    """An item that is encoded already."""

    def __init__(self, data):
        self.data = data


def write_wide(item):
    if isinstance(item, Raw):
        return item.data
    if isinstance(item, bool):
        return b"\xf5" if item else b"\xf4"
    if isinstance(item, (list, tuple)):
        return write_head(4, len(item)) + b"".join(write_wide(each) for each in item)
    if isinstance(item, dict):
        pairs = sorted((write_cbor(Text(key)), write_wide(value)) for key, value in item.items())
        return write_head(5, len(item)) + b"".join(key + value for key, value in pairs)
    return write_cbor(item)


def write_rank(rank):
    (step, count), author, seq = rank
    return [step, count, author, seq]


def texts(key):
    return [Text(part) for part in key]


def in_bytes(thing):
    """For sorting by the texts, byte by byte."""
    return [part.encode() if isinstance(part, str) else in_bytes(part) for part in thing]


# --------------------------------------------------------------------------- 19. Evidence, 20. Accusations, 21. Probes

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


def write_probe(secret, phase_interval, author, run, count, step):
    """The content and the payload of a probe."""
    tag_key = Pattern(secret, phase_interval, step).tag_key
    content = keyed_hash(tag_key, b"omnimesh probe" + author + le64(run) + le64(count))
    return content, write_cbor([1, run, count, step, content])


# -------------------------------------------------------------------------------------------------- 22. Jobs

JOB_ACTIONS = ("submit", "lease", "commit", "cancel", "retry", "finish")
JOB_OPERATIONS = {"analyze", "analyze_merge", "concat", "decrypt", "encrypt", "hash", "pattern", "wasm"}
JOB_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DAY_MS = 86_400_000
SKIP, FALLBACK = 1, 2  # on failure
ROW_GROUP = 2  # an align


def job_id(author, spec):
    return derive_key("omnimesh 2026-11 job", author + spec)


def read_job_operation(payload, author):
    """What an operation says; of a submission also its spec and the id of the job."""
    require(len(payload) <= 49152, "too_large")
    reader = WideReader(payload)
    items = reader.of_major(4)
    require(reader.uint() == 1, "unknown_version")
    code = reader.uint()
    require(code < len(JOB_ACTIONS), "unknown_operation")
    require(items == (3, 5, 5, 6, 4, 4)[code], "malformed")
    said = {"action": JOB_ACTIONS[code]}
    if said["action"] == "submit":
        said["spec"] = reader.octets()
        said["jobs"] = [job_id(author, said["spec"])]
    elif said["action"] == "lease":
        said.update(is_taken=reader.flag(), steps=reader.uint(), jobs=reader.array_of(read_hash))
        require(said["steps"] <= 3600 and 1 <= len(said["jobs"]) <= 256, "malformed")
    else:
        said.update(jobs=[read_hash(reader)], round=reader.uint(U32))
    if said["action"] == "commit":
        said["commits"] = reader.array_of(read_commit)
        require(1 <= len(said["commits"]) <= 64, "malformed")
    if said["action"] == "cancel":
        said.update(reason=reader.uint(), text=reader.text())
        require(len(said["text"].encode()) <= 200, "malformed")
    reader.finish()
    if said["action"] == "submit":
        said["says"] = read_spec(said["spec"])
    return said


def read_hash(reader):
    return reader.octets(32)


def read_commit(reader):
    start = reader.at
    reader.array(9)
    commit = {
        "task": reader.uint(U16), "chunk": reader.uint(U32), "stage": reader.uint(U8), "inputs": read_hash(reader),
        "output": None, "text": "",
    }  # fmt: skip
    reader.array(3)
    if reader.choice(2) == 0:
        commit["output"] = [read_hash(reader), reader.uint()]
    else:
        commit.update(reason=reader.uint(), text=reader.text())
    workers, dissenters = reader.array_of(read_hash), reader.array_of(read_hash)
    commit["times"] = [reader.uint(), reader.uint()]
    require(commit["stage"] <= 1 and len(commit["text"].encode()) <= 200, "malformed")
    require(len(workers) <= 16 and len(dissenters) <= 16, "malformed")
    return {**commit, "raw": reader.data[start : reader.at]}


def read_spec(data):
    require(len(data) <= 32768, "too_large")
    reader = WideReader(data)
    items = reader.of_major(4)
    require(reader.uint() == 1, "unknown_version")
    require(items == 8, "malformed")
    spec = {
        "name": reader.text(), "nonce": reader.uint(), "deadline_s": reader.uint(), "spot_check": reader.uint(U16),
        "inputs": reader.array_of(read_job_input), "tasks": reader.array_of(read_task),
        "outputs": reader.array_of(read_job_output),
    }  # fmt: skip
    reader.finish()
    check_spec(spec)
    return spec


def read_job_input(reader):
    reader.array(3)
    return {"name": reader.text(), "hash": read_hash(reader), "size": reader.uint()}


def read_job_output(reader):
    reader.array(2)
    return {"name": reader.text(), "task": read_place(reader)}


def read_place(reader):
    return reader.uint(U16)


def read_task(reader):
    reader.array(11)
    return {
        "name": reader.text(), "action": read_action(reader), "sources": reader.array_of(read_source),
        "each": reader.or_null(read_each), "after": reader.array_of(read_place), "limits": read_limits(reader),
        "retry": read_retry(reader), "redundancy": reader.uint(U8), "constraints": read_constraints(reader),
        "on_failure": read_on_failure(reader), "omits": reader.choice(2) == 1,
    }  # fmt: skip


def read_action(reader):
    reader.array(3)
    operation, program = reader.text(), reader.or_null(read_program)
    return {"operation": operation, "program": program, "parameters": reader.map_of(WideReader.value)}


def read_program(reader):
    reader.array(2)
    return read_hash(reader), reader.uint()


def read_source(reader):
    reader.array(2)
    return ("input", "task")[reader.choice(2)], read_place(reader)


def read_each(reader):
    items, code = reader.array(3, 4), reader.choice(2)
    require(items == (4, 3)[code], "malformed")
    if code == 0:
        return {"input": read_place(reader), "bytes": reader.uint(), "align": reader.choice(3)}
    return {"task": read_place(reader), "group": reader.uint(U32)}


def read_limits(reader):
    reader.array(4)
    return [reader.uint() for _ in range(4)]


def read_retry(reader):
    reader.array(4)
    return {"max": reader.uint(U8), "waits": [reader.uint(), reader.uint()], "jitter": reader.uint(U16)}


def read_constraints(reader):
    reader.array(3)
    labels, memory = reader.map_of(WideReader.text), reader.uint()
    return {"labels": labels, "memory": memory, "region": reader.or_null(WideReader.text)}


def read_on_failure(reader):
    items, code = reader.array(1, 2), reader.choice(3)
    require((items == 2) == (code == FALLBACK), "malformed")
    return code, read_action(reader) if code == FALLBACK else None


def check_job_names(names):
    require(all(JOB_NAME.fullmatch(name) for name in names), "bad_name")


def actions_of(task):
    """The action, and that of the fallback, if there is one."""
    return [action for action in (task["action"], task["on_failure"][1]) if action is not None]


def tasks_read(task):
    """The places of the tasks among the sources, each once."""
    return {place for kind, place in task["sources"] if kind == "task"}


def waits_for(task):
    fanned_out = {task["each"]["task"]} if task["each"] and "task" in task["each"] else set()
    return tasks_read(task) | fanned_out | set(task["after"])


def check_spec(spec):
    """Whether a spec makes sense."""
    inputs, tasks, outputs = spec["inputs"], spec["tasks"], spec["outputs"]
    named = [each["name"] for each in inputs + tasks]
    results = [output["name"] for output in outputs]
    check_job_names([spec["name"], *named, *results])
    require(len(set(named)) == len(named) and len(set(results)) == len(results), "bad_name")
    require(all(output["task"] < len(tasks) for output in outputs), "unknown_name")
    require(tasks, "missing")
    require(1 <= spec["deadline_s"] <= 2_592_000 and spec["spot_check"] <= 1000, "bad_value")
    require(len(inputs) <= 256, "quota")
    for task in tasks:
        check_task(task, len(inputs), len(tasks))
    counts = fan_out(spec)
    require(sum(counts.values()) <= 262_144, "quota")
    for task in tasks:
        group = task["each"].get("group", 0) if task["each"] else 0
        require(sum(counts[place] for place in tasks_read(task)) + group <= 16384, "quota")


def check_task(task, inputs, tasks):
    labels, region = task["constraints"]["labels"], task["constraints"]["region"]
    check_job_names([*labels, *labels.values(), *([] if region is None else [region])])
    require(all(place < (inputs if kind == "input" else tasks) for kind, place in task["sources"]), "unknown_name")
    each = task["each"] or {}
    require(each.get("input", -1) < inputs and all(place < tasks for place in waits_for(task)), "unknown_name")
    for action in actions_of(task):
        check_job_names(action["parameters"])
        require(action["operation"] in JOB_OPERATIONS, "unknown_operation")
        is_wasm = action["operation"] == "wasm"
        require(action["program"] is not None or not is_wasm, "missing")
        require(action["program"] is None or is_wasm, "bad_value")
        require(each.get("align") != ROW_GROUP or action["operation"] == "analyze", "bad_value")
        require(len(action["parameters"]) <= 64, "quota")
    reads_nothing = not each and not task["sources"]
    require(task["action"]["operation"] != "analyze_merge" or not reads_nothing, "missing")
    require(each.get("bytes") != 0 and 1 <= each.get("group", 1) <= 16384, "bad_value")
    retry = task["retry"]
    require(0 not in task["limits"] and 1 <= task["redundancy"] <= 7, "bad_value")
    require(retry["max"] <= 20 and max(retry["waits"]) <= DAY_MS and retry["jitter"] <= 1000, "bad_value")
    require(len(labels) <= 32, "quota")


def in_order(tasks):
    """The places of the tasks, each behind those that it waits for."""
    order, left = {}, {place: waits_for(task) for place, task in enumerate(tasks)}
    while left:
        ready = [place for place, waits in left.items() if waits <= order.keys()]
        require(ready, "cycle")
        for place in ready:
            order[place] = left.pop(place)
    return list(order)


def fan_out(spec):
    """How many tasks there are of each entry, the entries in an order in which they can be done."""
    counts = {}
    for place in in_order(spec["tasks"]):
        each = spec["tasks"][place]["each"]
        if each is None:
            counts[place] = 1
        elif "input" in each:
            counts[place] = max(-(-spec["inputs"][each["input"]]["size"] // each["bytes"]), 1)
        else:
            counts[place] = -(-counts[each["task"]] // each["group"])
    return counts


def slot_of_input(content, size, start, end, align):
    return [0, content, size, start, end, align]


def slot_of_outputs(outputs):
    return [1, derive_key("omnimesh 2026-11 task outputs", write_wide(outputs))]


def task_inputs(slots):
    return derive_key("omnimesh 2026-11 task inputs", write_wide(slots))


def task_key(job, task, chunk, stage, inputs):
    place = task.to_bytes(2, "little") + chunk.to_bytes(4, "little") + bytes([stage])
    return derive_key("omnimesh 2026-11 task key", job + place + inputs)


def output_of(result):
    """Hash and size; None if the task was skipped."""
    state, _, commit = result
    return commit["output"] if state == "SUCCEEDED" else None


class Ledger:
    """All operations that count, sorted whenever somebody asks, as in the registry."""

    def __init__(self):
        self.operations, self.heads, self.cuts, self.floor = {}, {}, {}, 0

    def apply(self, entry):
        author, seq = entry["author"], entry["seq"]
        if author in self.cuts and seq > self.cuts[author][0]:
            return "cut_off"
        self.heads[author] = max(self.heads.get(author, (0, b"")), (seq, entry["hash"]))
        if entry["channel"] != "job":
            return "other_category"
        try:
            said = read_job_operation(entry["payload"], author)
        except Refused as refused:
            return str(refused)
        for name in said["jobs"]:
            self.operations.setdefault(name, {})[(entry["step"], author, seq)] = said
        return "applied"

    def jobs(self):
        jobs = [Job(name, operations) for name, operations in sorted(self.operations.items())]
        return [job for job in jobs if not job.ended_before(self.floor)]

    def hash(self):
        digests = [derive_key("omnimesh 2026-11 ledger job", write_wide(job.item())) for job in self.jobs()]
        return derive_key("omnimesh 2026-11 ledger", b"".join(digests))

    def snapshot(self):
        heads, cuts = ([[author, *end] for author, end in sorted(ends.items())] for ends in (self.heads, self.cuts))
        body = write_wide([1, self.floor, heads, cuts, [job.item() for job in self.jobs()]])
        return body + derive_key("omnimesh 2026-11 ledger snapshot", body)


class Job:
    """What the operations on one job amount to. A stamp is step, author and sequence number of an entry."""

    def __init__(self, name, operations):
        self.name, self.submission, self.spec = name, None, None
        self.takes, self.leases, self.last = {}, {}, {}
        self.retries, self.cancels, self.finishes, self.kept = {}, {}, {}, {}
        for stamp in sorted(operations):
            self.last[stamp[1]] = stamp[2]
            self.fold(stamp, operations[stamp])
        self.records = list(self.kept.values())  # in the order of the entries, and in that within each
        self.round = next(n for n in range(1001) if n + 1 not in self.retries)

    def fold(self, stamp, said):
        step, author, _ = stamp
        if said["action"] == "submit":
            if self.submission is None:
                self.submission, self.spec = (stamp, said["spec"]), said["says"]
            self.prolong(author, step + 60)
        elif said["action"] == "lease":
            if said["is_taken"]:
                self.takes[author] = (self.takes.get(author, (stamp,))[0], stamp)
            self.prolong(author, step + said["steps"])
        elif said["action"] == "retry":
            if 1 <= said["round"] <= 1000:
                self.retries.setdefault(said["round"], (stamp,))
        elif said["action"] == "cancel":
            if said["round"] <= 1000:
                self.cancels.setdefault(said["round"], (stamp, said["reason"], Text(said["text"])))
        elif author in self.takes or self.submission and self.submission[0][1] == author:
            if said["action"] == "commit":
                self.prolong(author, step + 60)
                for at, commit in enumerate(said["commits"]):
                    self.keep(stamp, at, said["round"], commit)
            elif said["round"] <= 1000:
                self.finishes.setdefault(said["round"], (stamp,))

    def prolong(self, author, until):
        self.leases[author] = min(max(self.leases.get(author, 0), until), U64)

    def keep(self, stamp, at, in_round, commit):
        is_success = commit["output"] is not None
        what = (stamp[1], commit["task"], commit["chunk"], commit["inputs"], None if is_success else in_round)
        self.kept.setdefault(what, {**commit, "stamp": stamp, "at": at, "round": in_round})

    def ended_before(self, floor):
        return self.round in self.finishes and self.finishes[self.round][0][0] < floor

    def item(self):
        takes = [take for _, take in sorted(self.takes.items())]
        retries, cancels, finishes = (
            [[n, *said] for n, said in sorted(each.items())] for each in (self.retries, self.cancels, self.finishes)
        )
        order = sorted(self.records, key=lambda one: (one["task"], one["chunk"], one["stamp"], -one["at"]))
        records = [[record["stamp"], record["round"], Raw(record["raw"])] for record in order]
        leases, last = sorted(self.leases.items()), sorted(self.last.items())
        return [self.name, self.submission, takes, leases, retries, cancels, finishes, records, last]

    def driver(self):
        last = max((stamp for _, stamp in self.takes.values()), default=self.submission[0])
        return last[1]

    def line(self, nodes):
        """Who would take the job, the first of all first."""

        def rank(node):
            return node == self.submission[0][1], derive_key("omnimesh 2026-11 job rendezvous", self.name + node)

        return sorted(nodes, key=rank, reverse=True)

    def results(self):
        """The state of the job, and by task and chunk the state, the inputs and the commit that counts."""
        results, counts = {}, fan_out(self.spec)
        for place, count in counts.items():
            for chunk in range(count):
                results[place, chunk] = self.result(results, counts, place, chunk)
        states = {state for state, _, _ in results.values()}
        state = "RUNNING"
        if "FAILED" in states:
            state = "FAILED"
        elif states <= {"SUCCEEDED", "SKIPPED"}:
            state = "SUCCEEDED"
        elif self.round in self.cancels:
            state = "CANCELLED"
        if state == "FAILED" or self.round in self.cancels:
            for where, (old, inputs, commit) in results.items():
                if old in ("PENDING", "READY"):
                    results[where] = "CANCELLED", inputs, commit
        return state, sorted(results.items())

    def result(self, results, counts, place, chunk):
        task = self.spec["tasks"][place]

        def all_of(other):
            return [results[other, n] for n in range(counts[other])]

        reads = list(self.reads(task, chunk, all_of))
        tasks_are = [one for _, these in reads for one in these]
        awaited = tasks_are + [one for other in task["after"] for one in all_of(other)]
        if not all(state in ("SUCCEEDED", "SKIPPED") for state, _, _ in awaited):
            return "PENDING", None, None
        outputs = [output_of(one) for one in tasks_are]
        is_left = any(slot for slot, _ in reads) or any(outputs)
        if None in outputs and not (task["omits"] and is_left):
            return "SKIPPED", None, None
        slots = [slot or slot_of_outputs([output_of(one) for one in these]) for slot, these in reads]
        return self.outcome(task, place, chunk, task_inputs(slots))

    def reads(self, task, chunk, all_of):
        """What a task reads, in order: the slot of an input and nothing, or no slot and the results of tasks."""
        each = task["each"] or {}
        if "input" in each:
            start, size = chunk * each["bytes"], self.spec["inputs"][each["input"]]["size"]
            yield self.slot(each["input"], start, min(start + each["bytes"], size), each["align"]), []
        if "task" in each:
            yield None, all_of(each["task"])[chunk * each["group"] : (chunk + 1) * each["group"]]
        for kind, other in task["sources"]:
            if kind == "input":
                yield self.slot(other, 0, self.spec["inputs"][other]["size"], 0), []
            else:
                yield None, all_of(other)

    def slot(self, place, start, end, align):
        content = self.spec["inputs"][place]
        return slot_of_input(content["hash"], content["size"], start, end, align)

    def outcome(self, task, place, chunk, inputs):
        on_failure = task["on_failure"][0]
        last_stage = 1 if on_failure == FALLBACK else 0
        these = [
            record for record in self.records
            if (record["task"], record["chunk"], record["inputs"]) == (place, chunk, inputs)
            and record["stage"] <= last_stage
        ]  # fmt: skip
        for record in these:
            if record["output"] is not None:
                return "SUCCEEDED", inputs, record
        for record in these:
            if record["round"] == self.round and record["stage"] == last_stage:
                return "SKIPPED" if on_failure == SKIP else "FAILED", inputs, record
        return "READY", inputs, None


# ---------------------------------------------------------------------- 23. Compute streams, 24. Blob streams


def read_wide_frame(data, bytes_max, kinds):
    """Kind and fields of a frame; None and nothing if it is of a later version."""
    require(len(data) <= bytes_max, "too_large")
    reader = WideReader(data)
    items, kind = reader.of_major(4), reader.uint()
    if kind >= len(kinds):
        return None, []
    require(items == 1 + len(kinds[kind]), "malformed")
    fields = [read(reader) for read in kinds[kind]]
    reader.finish()
    return kind, fields


def some(read, most=256, fault="malformed"):
    """Reads an array of 1 to 256 items; more than `most` are the fault."""

    def read_some(reader):
        items = reader.array_of(read)
        require(1 <= len(items) <= 256, "malformed")
        require(len(items) <= most, fault)
        return items

    return read_some


def read_compute_offer(reader):
    reader.array(8)
    numbers = [reader.uint(most) for most in (4096, 4096, U32, U64)]  # slots, room, active, memory_bytes
    labels, region = reader.map_of(WideReader.text), reader.or_null(WideReader.text)
    operations, hashes = reader.array_of(WideReader.text), reader.array_of(read_hash)
    check_job_names([*labels, *labels.values(), *([] if region is None else [region]), *operations])
    require(len(labels) <= 32 and len(operations) <= 64 and len(hashes) <= 256, "too_many_fields")
    return *numbers, labels, region, operations, hashes


def read_assignment(reader):
    reader.array(8)
    what = [reader.uint(), read_hash(reader), reader.uint(U16), reader.uint(U32), read_hash(reader)]
    action, parts = read_action(reader), reader.array_of(lambda reader: reader.or_null(read_part))
    limits = read_limits(reader)
    require(len(parts) <= 16640, "too_many_fields")
    return *what, action, parts, limits


def read_part(reader):
    reader.array(5)
    content, size, start, end, align = read_hash(reader), *(reader.uint() for _ in range(4))
    require(start <= end <= size and align <= 2, "malformed")
    return content, size, start, end, align


def read_result(reader):
    """The statement in a result."""
    reader.array(6)
    _, key, content, size, _, _ = (
        reader.uint(), read_hash(reader), read_hash(reader), reader.uint(), reader.uint(), reader.uint()
    )  # fmt: skip
    return [key, content, size]


def read_failure(reader):
    reader.array(4)
    attempt, reason, message, missing = reader.uint(), reader.uint(), reader.text(), reader.array_of(read_hash)
    require(len(message.encode()) <= 200 and len(missing) <= 256, "too_large")
    return attempt, reason, message, missing


def read_content(reader):
    content = reader.octets()
    require(len(content) <= 4096, "too_large")
    return content


def read_result_signature(reader):
    return reader.octets(64)


COMPUTE_BYTES_MAX = 2_097_152
RESULTS = 3
COMPUTE_FRAMES = [
    [read_compute_offer],
    [some(read_assignment)],
    [some(WideReader.uint)],
    [some(read_result), read_result_signature],
    [some(read_failure)],
    [some(WideReader.uint)],
    [some(read_hash, 16, "too_many_fields")],
    [some(read_hash), read_hash],
    [some(read_content)],
]


def signs_results(worker, mesh, statements, signature):
    return verify(worker, b"omnimesh/1/results" + mesh + write_wide(statements), signature) == "valid"


def read_statement(reader):
    reader.array(3)
    return [read_hash(reader), read_hash(reader), reader.uint()]


def read_signed_results(reader):
    reader.array(3)
    worker, statements = read_hash(reader), reader.array_of(read_statement)
    require(1 <= len(statements) <= 256, "malformed")
    return worker, statements, read_result_signature(reader)


def read_wrong_result(data):
    """Mesh, accused, key and witnesses of evidence that holds."""
    reader = WideReader(data)
    items = reader.of_major(4)
    require(reader.uint() == 1, "unknown_version")
    require(items == 5, "malformed")
    mesh, key = reader.octets(16), read_hash(reader)
    accused, witnesses = read_signed_results(reader), reader.array_of(read_signed_results)
    reader.finish()
    require(len(witnesses) <= 16, "too_many_fields")

    everybody = [accused, *witnesses]
    workers = [worker for worker, _, _ in everybody]
    require(len(witnesses) >= 2 and len(set(workers)) == len(workers), "proves_nothing")
    said = [next((content for k, content, _ in statements if k == key), None) for _, statements, _ in everybody]
    require(None not in said and len(set(said[1:])) == 1 and said[0] != said[1], "proves_nothing")
    for worker, statements, signature in everybody:
        require(signs_results(worker, mesh, statements, signature), "proves_nothing")
    return mesh, workers[0], key, workers[1:]


GROUP_BYTES = 1_048_576


def groups_of(size):
    return max(-(-size // GROUP_BYTES), 1)


def up_to_1024(read):
    def read_array(reader):
        items = reader.array_of(read)
        require(len(items) <= 1024, "too_many_fields")
        return items

    return read_array


def read_holding(reader):
    reader.array(3)
    content, size, groups = read_hash(reader), reader.uint(), reader.or_null(WideReader.octets)
    require(groups is None or len(groups) == -(-groups_of(size) // 8), "malformed")
    return content, size, groups


def read_group(reader):
    group = reader.octets()
    require(len(group) <= GROUP_BYTES, "too_large")
    return group


BLOB_BYTES_MAX = 33_554_496
BLOB_FRAMES = [
    [WideReader.uint, up_to_1024(read_hash)],
    [WideReader.uint, up_to_1024(read_holding)],
    [WideReader.uint, read_hash],
    [WideReader.uint, WideReader.uint, WideReader.octets],
    [WideReader.uint, read_hash, WideReader.uint],
    [WideReader.uint, read_group],
    [WideReader.uint, WideReader.uint],
]

# BLAKE3 from within, as the library shows no chaining values. Many blocks are compressed at once: word n of all of
# them is one long number, with 64 bits for each block, of which the upper 32 take what overflows.

CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
BLAKE3_IV = [
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
]  # fmt: skip
BLAKE3_ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
BLAKE3_MIXES = [
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
]  # fmt: skip


class Lanes:
    def __init__(self, count):
        self.count, self.ones = count, self.pack([1] * count)
        self.mask = self.ones * U32

    @staticmethod
    def pack(numbers):
        return int.from_bytes(b"".join(le64(number) for number in numbers), "little")

    def words(self, data, at, stride):
        """The sixteen words of the blocks at `at` in each stride of `data`."""
        words = []
        for start in range(at, at + 64, 4):
            lanes = bytearray(8 * self.count)
            for i in range(4):
                lanes[i::8] = data[start + i :: stride]
            words.append(int.from_bytes(lanes, "little"))
        return words

    def rotate(self, word, bits):
        return (word >> bits | word << (32 - bits)) & self.mask

    def compress(self, values, words, counters, length, flags):
        state = values + [word * self.ones for word in BLAKE3_IV[:4]]
        state += [self.pack(n & U32 for n in counters), self.pack(n >> 32 for n in counters)]
        state += [length * self.ones, flags * self.ones]
        for _ in range(7):
            for at, (a, b, c, d) in enumerate(BLAKE3_MIXES):
                for word, first, second in ((words[2 * at], 16, 12), (words[2 * at + 1], 8, 7)):
                    state[a] = state[a] + state[b] + word & self.mask
                    state[d] = self.rotate(state[d] ^ state[a], first)
                    state[c] = state[c] + state[d] & self.mask
                    state[b] = self.rotate(state[b] ^ state[c], second)
            words = [words[place] for place in BLAKE3_ORDER]
        return [state[i] ^ state[i + 8] for i in range(8)]

    def start(self):
        return [word * self.ones for word in BLAKE3_IV]

    def values(self, words):
        """The chaining value of each lane."""
        columns = [word.to_bytes(8 * self.count, "little") for word in words]
        return [b"".join(column[8 * i : 8 * i + 4] for column in columns) for i in range(self.count)]


def chunk_values(data, first, length):
    """The chaining values of chunks of `length` bytes, of which the first has the number `first`."""
    lanes = Lanes(len(data) // length)
    counters, values = range(first, first + lanes.count), lanes.start()
    padded = -(-length // 64) * 64
    data = data if padded == length else data + bytes(padded - length)  # such a chunk is alone
    for at in range(0, padded, 64):
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END if at + 64 == padded else 0)
        values = lanes.compress(values, lanes.words(data, at, padded), counters, min(length - at, 64), flags)
    return lanes.values(values)


def parent_values(values, flags):
    lanes = Lanes(len(values) // 2)
    words = lanes.words(b"".join(values[: 2 * lanes.count]), 0, 64)
    return lanes.values(lanes.compress(lanes.start(), words, [0] * lanes.count, 64, flags | PARENT))


def subtree_value(values, root_flag=0):
    """What a list of neighbours comes to. Pair by pair is the tree of BLAKE3: its left sides are full."""
    while len(values) > 1:
        odd = values[-1:] if len(values) % 2 else []
        values = parent_values(values, root_flag if len(values) == 2 else 0) + odd
    return values[0]


def group_value(data, group):
    """The chaining value of a group that is not empty and not alone."""
    first, full = group * 1024, len(data) // 1024 * 1024
    values = chunk_values(data[:full], first, 1024) if full else []
    if full < len(data):
        values += chunk_values(data[full:], first + full // 1024, len(data) - full)
    return subtree_value(values)


def outline_of(content):
    starts = range(0, len(content), GROUP_BYTES)
    if len(starts) <= 1:
        return []
    return [group_value(content[start : start + GROUP_BYTES], n) for n, start in enumerate(starts)]


# ------------------------------------------------------------------------------------------- 17. Test vectors


class Failed(Exception):
    """A case is not as the document says, or cannot be checked."""


def expect(what, got, wanted):
    # Compared as JSON, so that a 1 is no `true`.
    if json.dumps(got, sort_keys=True) != json.dumps(wanted, sort_keys=True):
        raise Failed(f"{what}: computed {got!r}, the file has {wanted!r}")


def expect_refused(what, read, *arguments):
    try:
        result = read(*arguments)
    except Refused:
        return
    raise Failed(f"{what}: should be refused, and reads as {result!r}")


def unhex(value):
    if not (isinstance(value, str) and re.fullmatch(r"([0-9a-f]{2})*", value)):
        raise Failed(f"{value!r} is not lower-case hex")
    return bytes.fromhex(value)


def decimal(value):
    if not (isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]*", value) and int(value) <= U64):
        raise Failed(f"{value!r} is not a number of 64 bits in decimal text")
    return int(value)


def of_type(wanted):
    def check(value):
        if type(value) is not wanted:
            raise Failed(f"{value!r} is not of type {wanted.__name__}")
        return value

    return check


text, number, flag, items_of, fields_of = (of_type(t) for t in (str, int, bool, list, dict))


def optional(read):
    return lambda value: None if value is None else read(value)


def list_of(read):
    return lambda value: [read(item) for item in items_of(value)]


class Fields:
    """An object of a file. It knows which fields were read: one that no check looks at is a failure."""

    # Words for people, which a check has no use for.
    FOR_PEOPLE = {"comment", "name"}

    def __init__(self, value, for_people=FOR_PEOPLE):
        self.value, self.unread = fields_of(value), set(fields_of(value)) - for_people

    def get(self, name, read):
        if name not in self.value:
            raise Failed(f"the field {name} is missing")
        self.unread.discard(name)
        return read(self.value[name])

    def finish(self):
        if self.unread:
            raise Failed(f"fields that are not known: {', '.join(sorted(self.unread))}")


def check_node_id(case):
    seed, key = case.get("seed", optional(unhex)), case.get("public_key", optional(unhex))
    raw, peer_id = case.get("peer_id_bytes", optional(unhex)), case.get("peer_id", text)
    if key is None:
        expect("fields of a peer id that is refused", [seed, raw], [None, None])
        expect_refused("peer_id", read_peer_id, peer_id)
        return
    expect("public_key", public_key(seed).hex(), key.hex())
    expect("peer_id_bytes", (PEER_ID_PREFIX + key).hex(), raw.hex())
    expect("peer_id", write_peer_id(key), peer_id)
    expect("peer_id, read", read_peer_id(peer_id).hex(), key.hex())


def check_mesh(case):
    name, secret = case.get("name", text), case.get("secret", unhex)
    expect("length of the secret", len(secret), 32)
    wanted = case.get("mesh_id", optional(unhex))
    expect("whether the secret is that of the open mesh", secret == open_secret(name), case.get("open", flag))
    expect("whether the name is allowed", mesh_name_allowed(name), wanted is not None)
    if wanted is not None:
        expect("mesh_id", mesh_id(name, secret).hex(), wanted.hex())


def check_member_proof(case):
    secret, prover, verifier = (case.get(name, unhex) for name in ("secret", "prover", "verifier"))
    expect("proof", member_proof(secret, prover, verifier).hex(), case.get("proof", text))


def check_invite(case):
    token, wanted = case.get("token", text), case.get("invite", optional(fields_of))
    if wanted is None:
        expect_refused("token", read_invite, token)
        return
    name, secret, addresses, cbor = read_invite(token)
    got = {"name": name, "secret": secret.hex(), "addresses": addresses, "cbor": cbor.hex()}
    expect("invite", got, wanted)
    written_cbor, written = write_invite(wanted["name"], unhex(wanted["secret"]), wanted["addresses"])
    expect("token, written", [written_cbor.hex(), written], [wanted["cbor"], token])


def check_pattern(case):
    interval = case.get("phase_interval", decimal)
    if not 1 <= interval <= 2**32:
        raise Failed("a phase interval that is not allowed")
    pattern = Pattern(case.get("mesh_secret", unhex), interval, case.get("step", decimal))
    expect("phase", str(pattern.phase), case.get("phase", text))
    expect("phase_key", pattern.phase_key.hex(), case.get("phase_key", text))
    expect("block", str(pattern.block), case.get("block", text))
    expect("tag_key", pattern.tag_key.hex(), case.get("tag_key", text))
    expect("value", str(pattern.value), case.get("value", text))


def check_topic(case):
    mesh, topic = case.get("mesh_id", unhex), case.get("topic", text)
    channel = case.get("channel", optional(text))
    if channel is None:
        expect_refused("topic", channel_of, mesh, topic)
        return
    expect("channel", channel_of(mesh, topic), channel)
    expect("topic", topic_of(mesh, channel), topic)


def check_envelope(case):
    """Writes the envelope from the values in the case, then reads it in three ways."""
    mesh_name, secret = case.get("mesh_name", text), case.get("mesh_secret", unhex)
    interval, seed = case.get("phase_interval", decimal), case.get("author_seed", unhex)
    mesh, author = mesh_id(mesh_name, secret), public_key(seed)
    expect("mesh_id", mesh.hex(), case.get("mesh_id", text))
    expect("author", author.hex(), case.get("author", text))
    step, channel = case.get("step", decimal), case.get("channel", text)
    kind = case.get("kind", number)
    gossiped_on = "_log" if kind == DURABLE else channel
    expect("topic", topic_of(mesh, gossiped_on), case.get("topic", text))
    items = [
        1, mesh, author, case.get("seq", decimal), step, kind, channel,
        case.get("prev", optional(unhex)), case.get("timestamp_us", optional(decimal)),
        case.get("payloads", list_of(unhex)),
    ]  # fmt: skip
    data = check_sealing(case, items, Pattern(secret, interval, step).tag_key, seed)

    judge = Judge(mesh_name, secret, interval, step, 8, 2, 65536, gossiped_on, ReplayWindows(1024, 16, None))
    expect("what a node at this step says", judge.judge(data), "accepted")
    expect("what it says the second time", judge.judge(data), "accepted" if kind == DURABLE else "replay")
    read = Envelope(data).signed
    got = [1, read.mesh, read.author, read.seq, read.step, read.kind, read.channel, read.prev,
           read.timestamp_us, read.payloads]  # fmt: skip
    expect("items, read", repr(got), repr(items))
    # A library that knows nothing of OmniMesh reads and writes the same.
    expect("items, by cbor2", repr(cbor2.loads(cbor2.loads(data)[0])), repr(items))
    expect("envelope, by cbor2", cbor2.dumps(cbor2.loads(data), canonical=True).hex(), data.hex())


def check_sealing(case, items, tag_key, seed):
    signed = write_cbor([Text(item) if isinstance(item, str) else item for item in items])
    tag = keyed_hash(tag_key, signed)
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(signature_input(signed))
    envelope = write_cbor([signed, tag, signature])
    expect("signed", signed.hex(), case.get("signed", text))
    expect("digest", hash32(signed).hex(), case.get("digest", text))
    expect("tag_key", tag_key.hex(), case.get("tag_key", text))
    expect("tag", tag.hex(), case.get("tag", text))
    expect("signature_input", signature_input(signed).hex(), case.get("signature_input", text))
    expect("signature", signature.hex(), case.get("signature", text))
    expect("envelope", envelope.hex(), case.get("envelope", text))
    expect("message_id", message_id(envelope).hex(), case.get("message_id", text))
    return envelope


def check_signature(case):
    key, message, signature = (case.get(name, unhex) for name in ("public_key", "message", "signature"))
    expect("lengths", [len(key), len(signature)], [32, 64])
    expect("result", verify(key, message, signature), case.get("result", text))


def read_judge(value):
    state = Fields(value, for_people=set())
    windows = ReplayWindows(
        state.get("replay_window", decimal),
        state.get("authors_max", number),
        state.get("replay_floor", optional(decimal)),
    )
    judge = Judge(
        state.get("mesh_name", text),
        state.get("mesh_secret", unhex),
        state.get("phase_interval", decimal),
        state.get("step", optional(decimal)),
        state.get("step_window_past", decimal),
        state.get("step_window_future", decimal),
        state.get("message_bytes_max", number),
        state.get("channel", text),
        windows,
    )
    for data in state.get("accepted_before", list_of(unhex)):
        expect("an envelope of accepted_before", judge.judge(data), "accepted")
    judge.quarantined.update(state.get("quarantined", list_of(unhex)))
    state.finish()
    return judge


def read_piece(value):
    piece = Fields(value)
    data = piece.get("hex", unhex) * piece.get("times", number)
    piece.finish()
    return data


def check_rejected(case):
    judge, data = case.get("judge", read_judge), b"".join(case.get("envelope", list_of(read_piece)))
    expect("reason", judge.judge(data), case.get("expect", text))


def check_replay(case):
    windows = ReplayWindows(
        case.get("window", decimal), case.get("authors_max", number), case.get("floor", optional(decimal))
    )
    for at, value in enumerate(case.get("messages", items_of)):
        message = Fields(value)
        author = message.get("author", number)
        numbers = [message.get(name, decimal) for name in ("seq", "count", "step", "stale_before")]
        result = "accepted"
        try:
            windows.accept(author, *numbers)
        except Refused as refused:
            result = str(refused)
        expect(f"message {at}", result, message.get("result", text))
        message.finish()
    floor = None if windows.floor is None else str(windows.floor)
    expect("floor_after", floor, case.get("floor_after", optional(text)))


def check_on_stream(case):
    """The frame of a case, which is also there as it goes over a stream."""
    frame, on_stream = case.get("frame", unhex), case.get("on_stream", unhex)
    expect("on_stream", write_on_stream(frame).hex(), on_stream.hex())
    expect("frame, read from the stream", read_from_stream(on_stream).hex(), frame.hex())
    return frame


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


def check_log_frame(case):
    frame = check_on_stream(case)
    try:
        says = read_log_frame(frame)
        outcome = "drop" if says is None else "frame"
    except Refused:
        outcome, says = "close", None
    expect("outcome", outcome, case.get("outcome", text))
    expect("says", says, case.get("says", optional(fields_of)))


def check_log_fingerprint(case):
    heads = case.get("heads", list_of(unhex))
    expect("hashes", [head_hash(head).hex() for head in heads], case.get("hashes", items_of))
    expect("fingerprint", fingerprint(heads).hex(), case.get("fingerprint", text))


def check_log_proof(case):
    outcome, says = "good", (None, None, None)
    try:
        author, fork, proof_id = read_proof_of_equivocation(case.get("proof", unhex))
        says = (author.hex(), str(fork), proof_id.hex())
    except Refused as refused:
        outcome = str(refused)
    expect("outcome", outcome, case.get("outcome", text))
    expect("what it says", list(says), [case.get(name, optional(text)) for name in ("author", "fork", "id")])


def check_checkpoint(case):
    mesh, step = case.get("mesh", unhex), case.get("step", decimal)
    cut, state, heads, checkpoint = write_checkpoint(mesh, step, case.get("records", list_of(unhex)))
    for name, part in (("cut", cut), ("registry", state), ("heads", heads), ("checkpoint", checkpoint)):
        expect(name, part.hex(), case.get(name, text))
    name = derive_key("omnimesh/1/checkpoint", checkpoint)
    expect("id", name.hex(), case.get("id", text))
    sealed = case.get("sealed", unhex)
    _, _, votes = read_sealed(sealed)
    expect("sealed", write_cbor([checkpoint, [hash32(heads), len(heads)], votes]).hex(), sealed.hex())
    signers = sorted(public_key(seed) for seed in case.get("signers", list_of(unhex)))
    expect("signers", [vote[:32].hex() for vote in votes], [signer.hex() for signer in signers])
    for vote in votes:
        signed = b"omnimesh/1/checkpoint vote" + mesh + name
        expect("a signature", verify(vote[:32], signed, vote[32:]), "valid")


def check_gossip_frame(case):
    check_says(case, read_gossip_frame, check_on_stream(case))


def check_membership_packet(case):
    # The file says that all packets came from node 1, whose seed is 32 bytes 01.
    check_says(case, read_membership_packet, case.get("packet", unhex), public_key(b"\x01" * 32))


def check_says(case, read, *arguments):
    wanted = case.get("says", optional(fields_of))
    if wanted is None:
        expect_refused("it", read, *arguments)
    else:
        expect("says", read(*arguments), wanted)


def check_registry_operation(case):
    payload, outcome = case.get("payload", unhex), case.get("outcome", text)
    names = ("action", "kind", "name", "relation", "to_kind", "to_name")
    wanted = {name: case.get(name, optional(text)) for name in names}
    wanted["after"] = [case.get("after_step", optional(decimal)), case.get("after_count", optional(number))]
    wanted["ttl"] = case.get("ttl", optional(decimal))
    wanted["fields"] = case.get("fields", optional(list_of(read_registry_field)))
    try:
        said = read_operation(payload)
    except Refused as refused:
        expect("outcome", str(refused), outcome)
        return
    expect("outcome", "good", outcome)
    fields = said["fields"]
    kind, name = said["key"]
    to_kind, to_name = said["to"] or (None, None)
    got = {
        "action": said["action"], "kind": kind, "name": name, "relation": said["relation"],
        "to_kind": to_kind, "to_name": to_name, "after": list(said["after"] or (None, None)), "ttl": said["ttl"],
        "fields": None if fields is None else sorted([name, value.hex()] for name, value in fields.items()),
    }  # fmt: skip
    wanted["fields"] = None if fields is None else sorted(wanted["fields"])
    expect("what it says", got, wanted)
    # A library that knows nothing of OmniMesh reads the values, too.
    for value in (fields or {}).values():
        cbor2.loads(value)


def read_registry_field(value):
    field = Fields(value, for_people=set())
    pair = [field.get("name", text), field.get("value", unhex).hex()]
    field.finish()
    return pair


def read_log_entry(value):
    entry = Fields(value, for_people=set())
    names = (("author", unhex), ("seq", decimal), ("step", decimal), ("hash", unhex), ("channel", text),
             ("payload", unhex), ("became", text))  # fmt: skip
    said = {name: entry.get(name, read) for name, read in names}
    entry.finish()
    return said


def fold_log(case, state):
    """The registry or ledger that the entries of a case make."""
    author, seq = case.get("cut_author", optional(unhex)), case.get("cut_seq", optional(decimal))
    digest = case.get("cut_hash", optional(unhex))
    if author is not None:
        state.cuts[author] = (seq, digest)
    else:
        expect("no cut", seq is None and digest is None, True)
    for entry in case.get("entries", list_of(read_log_entry)):
        expect("became", state.apply(entry), entry["became"])
    state.floor = case.get("compact", optional(decimal)) or 0
    return state


def check_registry_state(case):
    registry = fold_log(case, Registry())
    expect("items", [item.hex() for item in registry.items()], case.get("items", items_of))
    expect("hash", registry.hash().hex(), case.get("hash", text))
    expect("heads", registry.heads_hash().hex(), case.get("heads", text))
    expect("snapshot", registry.snapshot().hex(), case.get("snapshot", text))


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


def check_probe(case):
    secret, author = (case.get(name, unhex) for name in ("mesh_secret", "author"))
    numbers = [case.get(name, decimal) for name in ("phase_interval", "run", "number", "step")]
    content, payload = write_probe(secret, numbers[0], author, *numbers[1:])
    expect("content", content.hex(), case.get("content", text))
    expect("payload", payload.hex(), case.get("payload", text))


def check_job_operation(case):
    author, payload = case.get("author", unhex), b"".join(case.get("payload", list_of(read_piece)))
    outcome, job = "good", None
    try:
        said = read_job_operation(payload, author)
        job = said["jobs"][0].hex() if said["action"] == "submit" else None
    except Refused as refused:
        outcome = str(refused)
    expect("outcome", outcome, case.get("outcome", text))
    expect("job", job, case.get("job", optional(text)))


def read_task_output(value):
    output = Fields(value)
    pair = [output.get("hash", unhex), output.get("size", decimal)]
    output.finish()
    return pair


def read_slot(value):
    slot = Fields(value)
    outputs = slot.get("outputs", optional(list_of(optional(read_task_output))))
    part = [slot.get("hash", optional(unhex)), *(slot.get(name, optional(decimal)) for name in ("size", "from", "to"))]
    part.append(slot.get("align", optional(number)))
    slot.finish()
    if outputs is None:
        return slot_of_input(*part)
    expect("outputs alone", part == [None] * 5, True)
    return slot_of_outputs(outputs)


def check_task_key(case):
    inputs = task_inputs(case.get("slots", list_of(read_slot)))
    expect("inputs", inputs.hex(), case.get("inputs", text))
    place = [case.get(name, number) for name in ("task", "chunk", "stage")]
    expect("key", task_key(case.get("job", unhex), *place, inputs).hex(), case.get("key", text))


def say_job(job):
    state, results = job.results()
    cancel = job.cancels.get(job.round)
    return {
        "id": job.name.hex(), "state": state, "round": job.round, "cancelled": cancel and str(cancel[1]),
        "is_finished": job.round in job.finishes, "driver": job.driver().hex(),
        "until": str(job.leases[job.driver()]),
        "line": [node.hex() for node in job.line([bytes([n]) * 32 for n in (1, 2, 3)])],
        "results": [say_result(*where, *result) for where, result in results],
    }  # fmt: skip


def say_result(task, chunk, state, inputs, commit):
    _, author, seq = commit["stamp"] if commit else (None, None, None)
    return {
        "task": task, "chunk": chunk, "state": state, "inputs": inputs and inputs.hex(),
        "author": author and author.hex(), "seq": None if seq is None else str(seq),
    }  # fmt: skip


def check_job_ledger(case):
    ledger = fold_log(case, Ledger())
    jobs = [say_job(job) for job in ledger.jobs() if job.submission is not None]
    expect("jobs", jobs, case.get("jobs", items_of))
    expect("hash", ledger.hash().hex(), case.get("hash", text))
    expect("snapshot", ledger.snapshot().hex(), case.get("snapshot", text))


def check_wide_frame(case, bytes_max, kinds):
    """Kind and fields of a good frame; None and nothing of others."""
    frame = b"".join(case.get("frame", list_of(read_piece)))
    kind, fields = None, []
    try:
        kind, fields = read_wide_frame(frame, bytes_max, kinds)
        outcome = "later version" if kind is None else "good"
    except Refused as refused:
        outcome = str(refused)
    expect("outcome", outcome, case.get("outcome", text))
    expect("kind", kind, case.get("kind", optional(number)))
    return kind, fields


def check_compute_frame(case):
    kind, fields = check_wide_frame(case, COMPUTE_BYTES_MAX, COMPUTE_FRAMES)
    mesh, worker, is_signed = (case.get(*field) for field in (
        ("mesh_id", optional(unhex)), ("worker", optional(unhex)), ("is_signed", optional(flag)),
    ))  # fmt: skip
    if kind == RESULTS:
        expect("is_signed", signs_results(worker, mesh, *fields), is_signed)
    else:
        expect("fields of what is signed", [mesh, worker, is_signed] == [None] * 3, True)


def check_blob_frame(case):
    check_wide_frame(case, BLOB_BYTES_MAX, BLOB_FRAMES)


def check_wrong_result(case):
    outcome, says = "good", (None,) * 4
    try:
        mesh, accused, key, witnesses = read_wrong_result(case.get("evidence", unhex))
        says = (mesh.hex(), accused.hex(), key.hex(), [witness.hex() for witness in witnesses])
    except Refused as refused:
        outcome = str(refused)
    expect("outcome", outcome, case.get("outcome", text))
    wanted = [case.get(name, optional(text)) for name in ("mesh_id", "accused", "key")]
    expect("what it says", list(says), [*wanted, case.get("witnesses", optional(items_of))])


def blob_of(length):
    """Byte i is (i * 7 + (i >> 10) * 13) mod 256, so the bytes of 1,024 depend on their number mod 256 alone."""
    rows = [bytes((i * 7 + row * 13) % 256 for i in range(1024)) for row in range(256)]
    return b"".join(rows[at % 256] for at in range(-(-length // 1024)))[:length]


def check_blob(case):
    content = blob_of(case.get("length", decimal))
    outline = outline_of(content)
    expect("hash", hash32(content).hex(), case.get("hash", text))
    expect("outline", b"".join(outline).hex(), case.get("outline", text))
    if outline:
        expect("hash, from the outline", subtree_value(outline, ROOT).hex(), case.get("hash", text))


CHECKS = {
    "node_ids": check_node_id,
    "mesh": check_mesh,
    "member_proofs": check_member_proof,
    "invites": check_invite,
    "patterns": check_pattern,
    "topics": check_topic,
    "envelopes": check_envelope,
    "signatures": check_signature,
    "rejected": check_rejected,
    "replay": check_replay,
    "control_frames": check_control_frame,
    "gossip_frames": check_gossip_frame,
    "log_frames": check_log_frame,
    "log_fingerprints": check_log_fingerprint,
    "log_proofs": check_log_proof,
    "checkpoints": check_checkpoint,
    "membership_packets": check_membership_packet,
    "evidence": check_evidence,
    "probes": check_probe,
    "registry": check_registry_operation,
    "registry_states": check_registry_state,
    "job_operations": check_job_operation,
    "task_keys": check_task_key,
    "job_ledgers": check_job_ledger,
    "compute_frames": check_compute_frame,
    "wrong_results": check_wrong_result,
    "blob_frames": check_blob_frame,
    "blobs": check_blob,
}
VECTORS = Path(__file__).resolve().parent.parent / "docs" / "vectors"
# Where `name` is no title but a value.
NAME_IS_A_VALUE = {"mesh", "registry"}


def unique_fields(pairs):
    if len({name for name, _ in pairs}) != len(pairs):
        raise Failed("a field is there twice")
    return dict(pairs)


def read_cases(path):
    file = Fields(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_fields))
    file.get("description", text)
    cases = file.get("cases", items_of)
    file.finish()
    if not cases:
        raise Failed("no cases")
    return cases


def check_case(name, value):
    case = Fields(value, for_people={"comment"} if name in NAME_IS_A_VALUE else Fields.FOR_PEOPLE)
    CHECKS[name](case)
    case.finish()


def passes(label, check, *arguments):
    """Runs a check. Whatever goes wrong in it is a failure of this case, and the others still run."""
    try:
        check(*arguments)
    except Exception as error:  # a check that breaks has failed too
        print(f"{label}: {type(error).__name__}: {error}")
        return False
    return True


def title_of(value):
    return value.get("comment") or value.get("name") if isinstance(value, dict) else None


def check_file(path):
    """How many cases of a file passed, and how many failed; a file that cannot be used is one failure."""
    if path.suffix != ".json" or path.stem not in CHECKS:
        print(f"{path.name}: there is no check for this file")
        return 0, 1
    cases = []
    if not passes(path.stem, lambda: cases.extend(read_cases(path))):
        return 0, 1
    passed = sum(
        passes(f"{path.stem}: case {at} ({title_of(value)})", check_case, path.stem, value)
        for at, value in enumerate(cases)
    )
    failed = len(cases) - passed
    print(f"{path.stem}: {passed} cases ok" + (f", {failed} failed" if failed else ""))
    return passed, failed


def main(arguments):
    directory = Path(arguments[0]) if arguments else VECTORS
    # The files that should be there as well as those that are: one that is missing is a failure.
    paths = {directory / f"{name}.json" for name in CHECKS} | set(directory.glob("*"))
    results = [check_file(path) for path in sorted(paths)]
    passed, failed = (sum(column) for column in zip(*results))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
