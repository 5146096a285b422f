"""Section 18 of docs/protocol.md, Registry entries: operations, which write counts, hash and heads, snapshots.

Checks registry.json and registry_states.json.
"""

import re
import struct

import cbor2
import regex
from blake3 import blake3

from .cases import Fields, decimal, expect, fold_log, items_of, list_of, number, optional, text, unhex
from .cbor import Text
from .notation import U32, U64, Refused, derive_key, hash32, le64, require
from .wide_cbor import Raw, WideReader, write_wide

IDENTIFIER = re.compile(r"[a-z][a-z0-9_-]{0,31}")


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


def write_rank(rank):
    (step, count), author, seq = rank
    return [step, count, author, seq]


def texts(key):
    return [Text(part) for part in key]


def in_bytes(thing):
    """For sorting by the texts, byte by byte."""
    return [part.encode() if isinstance(part, str) else in_bytes(part) for part in thing]


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


def check_registry_state(case):
    registry = fold_log(case, Registry())
    expect("items", [item.hex() for item in registry.items()], case.get("items", items_of))
    expect("hash", registry.hash().hex(), case.get("hash", text))
    expect("heads", registry.heads_hash().hex(), case.get("heads", text))
    expect("snapshot", registry.snapshot().hex(), case.get("snapshot", text))
