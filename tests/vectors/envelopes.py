"""Section 6 of docs/protocol.md, Envelopes: reads them, as gates 2 to 7 of section 7 want it.

Their vectors are checked in `sealing`, which writes envelopes, too.
"""

import re

from .cbor import is_array, is_bytes, is_text, is_uint, read_cbor
from .notation import U64, hash32, require

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
