"""Section 23 of docs/protocol.md, Compute streams: frames, signed results, and evidence of wrong ones.

Checks compute_frames.json and wrong_results.json.
"""

from .cases import expect, flag, items_of, optional, text, unhex
from .frames import check_wide_frame
from .jobs import check_job_names, read_action, read_limits
from .notation import U16, U32, U64, Refused, require
from .signatures import verify
from .wide_cbor import WideReader, read_hash, write_wide


def some(read, most=256, fault="malformed"):
    """Reads an array of 1 to 256 items; more than `most` are the fault."""

    def read_some(reader):
        items = reader.array_of(read)
        require(1 <= len(items) <= 256, "malformed")
        require(len(items) <= most, fault)
        return items

    return read_some


def read_compute_offer(reader):
    reader.array(8)
    numbers = [reader.uint(most) for most in (4096, 4096, U32, U64)]  # slots, room, active, memory_bytes
    labels, region = reader.map_of(WideReader.text), reader.or_null(WideReader.text)
    operations, hashes = reader.array_of(WideReader.text), reader.array_of(read_hash)
    check_job_names([*labels, *labels.values(), *([] if region is None else [region]), *operations])
    require(len(labels) <= 32 and len(operations) <= 64 and len(hashes) <= 256, "too_many_fields")
    return *numbers, labels, region, operations, hashes


def read_assignment(reader):
    reader.array(8)
    what = [reader.uint(), read_hash(reader), reader.uint(U16), reader.uint(U32), read_hash(reader)]
    action, parts = read_action(reader), reader.array_of(lambda reader: reader.or_null(read_part))
    limits = read_limits(reader)
    require(len(parts) <= 16640, "too_many_fields")
    return *what, action, parts, limits


def read_part(reader):
    reader.array(5)
    content, size, start, end, align = read_hash(reader), *(reader.uint() for _ in range(4))
    require(start <= end <= size and align <= 2, "malformed")
    return content, size, start, end, align


def read_result(reader):
    """The statement in a result."""
    reader.array(6)
    _, key, content, size, _, _ = (
        reader.uint(), read_hash(reader), read_hash(reader), reader.uint(), reader.uint(), reader.uint()
    )  # fmt: skip
    return [key, content, size]


def read_failure(reader):
    reader.array(4)
    attempt, reason, message, missing = reader.uint(), reader.uint(), reader.text(), reader.array_of(read_hash)
    require(len(message.encode()) <= 200 and len(missing) <= 256, "too_large")
    return attempt, reason, message, missing


def read_content(reader):
    content = reader.octets()
    require(len(content) <= 4096, "too_large")
    return content


def read_result_signature(reader):
    return reader.octets(64)


COMPUTE_BYTES_MAX = 2_097_152
RESULTS = 3
COMPUTE_FRAMES = [
    [read_compute_offer],
    [some(read_assignment)],
    [some(WideReader.uint)],
    [some(read_result), read_result_signature],
    [some(read_failure)],
    [some(WideReader.uint)],
    [some(read_hash, 16, "too_many_fields")],
    [some(read_hash), read_hash],
    [some(read_content)],
]


def signs_results(worker, mesh, statements, signature):
    return verify(worker, b"omnimesh/1/results" + mesh + write_wide(statements), signature) == "valid"


def read_statement(reader):
    reader.array(3)
    return [read_hash(reader), read_hash(reader), reader.uint()]


def read_signed_results(reader):
    reader.array(3)
    worker, statements = read_hash(reader), reader.array_of(read_statement)
    require(1 <= len(statements) <= 256, "malformed")
    return worker, statements, read_result_signature(reader)


def read_wrong_result(data):
    """Mesh, accused, key and witnesses of evidence that holds."""
    reader = WideReader(data)
    items = reader.of_major(4)
    require(reader.uint() == 1, "unknown_version")
    require(items == 5, "malformed")
    mesh, key = reader.octets(16), read_hash(reader)
    accused, witnesses = read_signed_results(reader), reader.array_of(read_signed_results)
    reader.finish()
    require(len(witnesses) <= 16, "too_many_fields")

    everybody = [accused, *witnesses]
    workers = [worker for worker, _, _ in everybody]
    require(len(witnesses) >= 2 and len(set(workers)) == len(workers), "proves_nothing")
    said = [next((content for k, content, _ in statements if k == key), None) for _, statements, _ in everybody]
    require(None not in said and len(set(said[1:])) == 1 and said[0] != said[1], "proves_nothing")
    for worker, statements, signature in everybody:
        require(signs_results(worker, mesh, statements, signature), "proves_nothing")
    return mesh, workers[0], key, workers[1:]


def check_compute_frame(case):
    kind, fields = check_wide_frame(case, COMPUTE_BYTES_MAX, COMPUTE_FRAMES)
    mesh, worker, is_signed = (case.get(*field) for field in (
        ("mesh_id", optional(unhex)), ("worker", optional(unhex)), ("is_signed", optional(flag)),
    ))  # fmt: skip
    if kind == RESULTS:
        expect("is_signed", signs_results(worker, mesh, *fields), is_signed)
    else:
        expect("fields of what is signed", [mesh, worker, is_signed] == [None] * 3, True)


def check_wrong_result(case):
    outcome, says = "good", (None,) * 4
    try:
        mesh, accused, key, witnesses = read_wrong_result(case.get("evidence", unhex))
        says = (mesh.hex(), accused.hex(), key.hex(), [witness.hex() for witness in witnesses])
    except Refused as refused:
        outcome = str(refused)
    expect("outcome", outcome, case.get("outcome", text))
    wanted = [case.get(name, optional(text)) for name in ("mesh_id", "accused", "key")]
    expect("what it says", list(says), [*wanted, case.get("witnesses", optional(items_of))])
