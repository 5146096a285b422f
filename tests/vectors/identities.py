"""Section 2 of docs/protocol.md, Identities: keys and peer ids. Checks node_ids.json."""

import base58
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .cases import expect, expect_refused, optional, text, unhex
from .notation import Refused, require

PEER_ID_PREFIX = bytes.fromhex("002408011220")


def public_key(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def write_peer_id(key):
    return base58.b58encode(PEER_ID_PREFIX + key).decode("ascii")


def read_peer_id(text):
    """The public key in the text of a peer id."""
    try:
        raw = base58.b58decode(text)
    except ValueError:
        raise Refused("not base58") from None
    require(len(raw) == 38 and raw.startswith(PEER_ID_PREFIX), "not the peer id of an Ed25519 key")
    key = raw[len(PEER_ID_PREFIX) :]
    require(write_peer_id(key) == text, "not the one text of this peer id")  # the library drops white space
    return key


def check_node_id(case):
    seed, key = case.get("seed", optional(unhex)), case.get("public_key", optional(unhex))
    raw, peer_id = case.get("peer_id_bytes", optional(unhex)), case.get("peer_id", text)
    if key is None:
        expect("fields of a peer id that is refused", [seed, raw], [None, None])
        expect_refused("peer_id", read_peer_id, peer_id)
        return
    expect("public_key", public_key(seed).hex(), key.hex())
    expect("peer_id_bytes", (PEER_ID_PREFIX + key).hex(), raw.hex())
    expect("peer_id", write_peer_id(key), peer_id)
    expect("peer_id, read", read_peer_id(peer_id).hex(), key.hex())
