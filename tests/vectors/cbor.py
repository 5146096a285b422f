"""Section 5 of docs/protocol.md, Canonical CBOR: the walk over the shape, a reader and a writer.

No file of vectors is about it alone; envelopes, frames and evidence are made of it.
"""

from .notation import U64, Refused, as_utf8, require


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
