"""Section 21 of docs/protocol.md, Probes. Checks probes.json."""

from .cases import decimal, expect, text, unhex
from .cbor import write_cbor
from .notation import keyed_hash, le64
from .patterns import Pattern


def write_probe(secret, phase_interval, author, run, count, step):
    """The content and the payload of a probe."""
    tag_key = Pattern(secret, phase_interval, step).tag_key
    content = keyed_hash(tag_key, b"omnimesh probe" + author + le64(run) + le64(count))
    return content, write_cbor([1, run, count, step, content])


def check_probe(case):
    secret, author = (case.get(name, unhex) for name in ("mesh_secret", "author"))
    numbers = [case.get(name, decimal) for name in ("phase_interval", "run", "number", "step")]
    content, payload = write_probe(secret, numbers[0], author, *numbers[1:])
    expect("content", content.hex(), case.get("content", text))
    expect("payload", payload.hex(), case.get("payload", text))
