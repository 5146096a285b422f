"""The CBOR of section 18 of docs/protocol.md, Registry entries: wider than that of section 5, and read from the front.

No file of vectors is about it alone; registry operations, jobs (section 22) and the frames of the compute and blob
streams (sections 23 and 24) are made of it.
"""

import math
import struct

from .cbor import Text, write_cbor, write_head
from .notation import U64, as_utf8, require


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


def read_hash(reader):
    return reader.octets(32)


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
