"""Section 3 of docs/protocol.md, Meshes: names, ids, member proofs and invites.

Checks mesh.json, member_proofs.json and invites.json.
"""

import base64
import hmac
import re

import regex

from .cases import expect, expect_refused, fields_of, flag, optional, text, unhex
from .cbor import Text, is_array, is_bytes, is_text, read_cbor, write_cbor
from .notation import derive_key, hash32, keyed_hash, require

# `regex` and not `re`: the Alphabetic property is more than the letters that Python's own classes know.
MESH_NAME = regex.compile(r"[\p{Alphabetic}\p{Nd}\p{Nl}\p{No}_.\-]+")
WHITE_SPACE = r"\p{White_Space}+"
INVITE_PREFIX = "omnimesh1-"
INVITE_CHARACTERS_MAX = 8192


def mesh_name_allowed(name):
    return 1 <= len(name.encode("utf-8")) <= 64 and MESH_NAME.fullmatch(name) is not None


def mesh_id(name, secret):
    return derive_key("omnimesh 2026-11 mesh id", secret + name.encode("utf-8"))[:16]


def open_secret(name):
    return derive_key("omnimesh 2026-11 open mesh secret", name.encode("utf-8"))


def member_proof(secret, prover, verifier):
    return keyed_hash(derive_key("omnimesh 2026-11 member proof", secret), prover + verifier)


def write_invite(name, secret, addresses):
    cbor = write_cbor([Text(name), secret, [Text(address) for address in addresses]])
    token = base64.urlsafe_b64encode(cbor + hash32(cbor)[:4]).decode("ascii")
    return cbor, INVITE_PREFIX + token.rstrip("=")


def read_base64url(text):
    require(re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1, "not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # One text for each invite: bits beyond the last byte are zero.
    require(base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=") == text, "not the one base64url")
    return raw


def read_invite(token):
    """Name, secret, addresses and the CBOR of an invite."""
    token = regex.sub(rf"\A{WHITE_SPACE}|{WHITE_SPACE}\Z", "", token)
    require(token.startswith(INVITE_PREFIX), "no prefix")
    text = token[len(INVITE_PREFIX) :]
    require(len(text) <= INVITE_CHARACTERS_MAX, "too long")
    raw = read_base64url(text)
    require(len(raw) >= 4, "no check")
    cbor, check = raw[:-4], raw[-4:]
    require(hmac.compare_digest(hash32(cbor)[:4], check), "the check is wrong")

    item = read_cbor(cbor)
    require(is_array(item, 3), "not three items")
    name, secret, addresses = item
    require(is_text(name) and mesh_name_allowed(name.decoded()), "the name is not allowed")
    require(is_bytes(secret, 32), "the secret is not allowed")
    require(is_array(addresses) and len(addresses) <= 16, "not a list of addresses, or too long")
    require(all(is_text(address) and len(address.raw) <= 256 for address in addresses), "an address is wrong")
    return name.decoded(), secret, [address.decoded() for address in addresses], cbor


def check_mesh(case):
    name, secret = case.get("name", text), case.get("secret", unhex)
    expect("length of the secret", len(secret), 32)
    wanted = case.get("mesh_id", optional(unhex))
    expect("whether the secret is that of the open mesh", secret == open_secret(name), case.get("open", flag))
    expect("whether the name is allowed", mesh_name_allowed(name), wanted is not None)
    if wanted is not None:
        expect("mesh_id", mesh_id(name, secret).hex(), wanted.hex())


def check_member_proof(case):
    secret, prover, verifier = (case.get(name, unhex) for name in ("secret", "prover", "verifier"))
    expect("proof", member_proof(secret, prover, verifier).hex(), case.get("proof", text))


def check_invite(case):
    token, wanted = case.get("token", text), case.get("invite", optional(fields_of))
    if wanted is None:
        expect_refused("token", read_invite, token)
        return
    name, secret, addresses, cbor = read_invite(token)
    got = {"name": name, "secret": secret.hex(), "addresses": addresses, "cbor": cbor.hex()}
    expect("invite", got, wanted)
    written_cbor, written = write_invite(wanted["name"], unhex(wanted["secret"]), wanted["addresses"])
    expect("token, written", [written_cbor.hex(), written], [wanted["cbor"], token])
