"""Section 1 of docs/protocol.md, Notation: hashes, numbers and varints, and what all other modules read with.

No file of vectors is about these alone.
"""

from blake3 import blake3

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
