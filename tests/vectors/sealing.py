"""Section 6 of docs/protocol.md, Envelopes: writes them, reads them again and judges them. Checks envelopes.json."""

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .cases import decimal, expect, list_of, number, optional, text, unhex
from .cbor import Text, write_cbor
from .envelopes import DURABLE, Envelope, message_id, signature_input
from .gossip import topic_of
from .identities import public_key
from .judge import Judge
from .meshes import mesh_id
from .notation import hash32, keyed_hash
from .patterns import Pattern
from .replay import ReplayWindows


def check_envelope(case):
    """Writes the envelope from the values in the case, then reads it in three ways."""
    mesh_name, secret = case.get("mesh_name", text), case.get("mesh_secret", unhex)
    interval, seed = case.get("phase_interval", decimal), case.get("author_seed", unhex)
    mesh, author = mesh_id(mesh_name, secret), public_key(seed)
    expect("mesh_id", mesh.hex(), case.get("mesh_id", text))
    expect("author", author.hex(), case.get("author", text))
    step, channel = case.get("step", decimal), case.get("channel", text)
    kind = case.get("kind", number)
    gossiped_on = "_log" if kind == DURABLE else channel
    expect("topic", topic_of(mesh, gossiped_on), case.get("topic", text))
    items = [
        1, mesh, author, case.get("seq", decimal), step, kind, channel,
        case.get("prev", optional(unhex)), case.get("timestamp_us", optional(decimal)),
        case.get("payloads", list_of(unhex)),
    ]  # fmt: skip
    data = check_sealing(case, items, Pattern(secret, interval, step).tag_key, seed)

    judge = Judge(mesh_name, secret, interval, step, 8, 2, 65536, gossiped_on, ReplayWindows(1024, 16, None))
    expect("what a node at this step says", judge.judge(data), "accepted")
    expect("what it says the second time", judge.judge(data), "accepted" if kind == DURABLE else "replay")
    read = Envelope(data).signed
    got = [1, read.mesh, read.author, read.seq, read.step, read.kind, read.channel, read.prev,
           read.timestamp_us, read.payloads]  # fmt: skip
    expect("items, read", repr(got), repr(items))
    # A library that knows nothing of OmniMesh reads and writes the same.
    expect("items, by cbor2", repr(cbor2.loads(cbor2.loads(data)[0])), repr(items))
    expect("envelope, by cbor2", cbor2.dumps(cbor2.loads(data), canonical=True).hex(), data.hex())


def check_sealing(case, items, tag_key, seed):
    signed = write_cbor([Text(item) if isinstance(item, str) else item for item in items])
    tag = keyed_hash(tag_key, signed)
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(signature_input(signed))
    envelope = write_cbor([signed, tag, signature])
    expect("signed", signed.hex(), case.get("signed", text))
    expect("digest", hash32(signed).hex(), case.get("digest", text))
    expect("tag_key", tag_key.hex(), case.get("tag_key", text))
    expect("tag", tag.hex(), case.get("tag", text))
    expect("signature_input", signature_input(signed).hex(), case.get("signature_input", text))
    expect("signature", signature.hex(), case.get("signature", text))
    expect("envelope", envelope.hex(), case.get("envelope", text))
    expect("message_id", message_id(envelope).hex(), case.get("message_id", text))
    return envelope
