"""Section 24 of docs/protocol.md, Blob streams: frames, groups and outlines. Checks blob_frames.json and blobs.json."""

from .blake3_tree import ROOT, chunk_values, subtree_value
from .cases import decimal, expect, text
from .frames import check_wide_frame
from .notation import hash32, require
from .wide_cbor import WideReader, read_hash

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


def check_blob_frame(case):
    check_wide_frame(case, BLOB_BYTES_MAX, BLOB_FRAMES)


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
