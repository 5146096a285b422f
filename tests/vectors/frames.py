"""Frames, as section 9 of docs/protocol.md, Transport, has them on a stream, and the fields that several kinds have.

Those of sections 11 and 14 are in the CBOR of section 5, those of sections 23 and 24 in that of section 18. What
the frames of a stream say, and their vectors, are in the module of that stream.
"""

from .cases import expect, list_of, number, optional, read_piece, text, unhex
from .cbor import is_bytes, is_uint
from .notation import Refused, read_varint, require, write_varint
from .wide_cbor import WideReader


def write_on_stream(frame):
    return write_varint(len(frame)) + frame


def read_from_stream(data, bytes_max=65536):
    """The one frame that `data` holds."""
    length, at = read_varint(data, 0, shortest=True)
    require(length <= bytes_max, "a frame that is too long")
    require(len(data) - at == length, "not one whole frame")
    return data[at:]


def number_of_bits(bits):
    def read(item):
        require(is_uint(item, 2**bits - 1), "not a number, or too large")
        # Numbers that may have 64 bits are text in the vectors.
        return str(item) if bits == 64 else item

    return read


def or_null(read):
    return lambda item: None if item is None else read(item)


def read_bytes(item, length=None):
    require(is_bytes(item, length), "not bytes, or of the wrong length")
    return item.hex()


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


def check_on_stream(case):
    """The frame of a case, which is also there as it goes over a stream."""
    frame, on_stream = case.get("frame", unhex), case.get("on_stream", unhex)
    expect("on_stream", write_on_stream(frame).hex(), on_stream.hex())
    expect("frame, read from the stream", read_from_stream(on_stream).hex(), frame.hex())
    return frame


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
