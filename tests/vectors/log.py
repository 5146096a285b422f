"""Section 14 of docs/protocol.md, The log: its frames, and how heads are compared.

Checks log_frames.json and log_fingerprints.json.
"""

from .cases import expect, fields_of, items_of, list_of, optional, text, unhex
from .cbor import is_array, is_bytes, is_uint, read_cbor
from .checkpoints import read_offer, read_votes
from .frames import check_on_stream, number_of_bits, or_null, read_bytes
from .notation import Refused, derive_key, le64, require


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
