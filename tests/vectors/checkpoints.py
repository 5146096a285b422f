"""Section 14 of docs/protocol.md, The log, its part on checkpoints: sealed ones, and the one that records make.

Checks checkpoints.json.
"""

from .cases import decimal, expect, list_of, text, unhex
from .cbor import is_array, is_bytes, is_uint, read_cbor, write_cbor
from .envelopes import Envelope
from .frames import read_bytes
from .identities import public_key
from .notation import derive_key, hash32, le64, require
from .registry import Registry
from .signatures import verify


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
