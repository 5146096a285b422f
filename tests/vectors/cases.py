"""Section 17 of docs/protocol.md, Test vectors: the fields of a case, and the comparison with what is computed.

No file of vectors is about these alone.
"""

import json
import re

from .notation import U64, Refused


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


def check_says(case, read, *arguments):
    wanted = case.get("says", optional(fields_of))
    if wanted is None:
        expect_refused("it", read, *arguments)
    else:
        expect("says", read(*arguments), wanted)


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


def read_piece(value):
    piece = Fields(value)
    data = piece.get("hex", unhex) * piece.get("times", number)
    piece.finish()
    return data


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
