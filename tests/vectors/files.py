"""Section 17 of docs/protocol.md, Test vectors: which check each file has, and what is printed of it."""

import json

from . import (
    blobs,
    checkpoints,
    compute,
    control,
    equivocation,
    evidence,
    gossip,
    identities,
    jobs,
    judge,
    ledger,
    log,
    membership,
    meshes,
    patterns,
    probes,
    registry,
    replay,
    sealing,
    signatures,
    task_keys,
)
from .cases import Failed, Fields, items_of, text

CHECKS = {
    "node_ids": identities.check_node_id,
    "mesh": meshes.check_mesh,
    "member_proofs": meshes.check_member_proof,
    "invites": meshes.check_invite,
    "patterns": patterns.check_pattern,
    "topics": gossip.check_topic,
    "envelopes": sealing.check_envelope,
    "signatures": signatures.check_signature,
    "rejected": judge.check_rejected,
    "replay": replay.check_replay,
    "control_frames": control.check_control_frame,
    "gossip_frames": gossip.check_gossip_frame,
    "log_frames": log.check_log_frame,
    "log_fingerprints": log.check_log_fingerprint,
    "log_proofs": equivocation.check_log_proof,
    "checkpoints": checkpoints.check_checkpoint,
    "membership_packets": membership.check_membership_packet,
    "evidence": evidence.check_evidence,
    "probes": probes.check_probe,
    "registry": registry.check_registry_operation,
    "registry_states": registry.check_registry_state,
    "job_operations": jobs.check_job_operation,
    "task_keys": task_keys.check_task_key,
    "job_ledgers": ledger.check_job_ledger,
    "compute_frames": compute.check_compute_frame,
    "wrong_results": compute.check_wrong_result,
    "blob_frames": blobs.check_blob_frame,
    "blobs": blobs.check_blob,
}
# Where `name` is no title but a value.
NAME_IS_A_VALUE = {"mesh", "registry"}


def unique_fields(pairs):
    if len({name for name, _ in pairs}) != len(pairs):
        raise Failed("a field is there twice")
    return dict(pairs)


def read_cases(path):
    file = Fields(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_fields))
    file.get("description", text)
    cases = file.get("cases", items_of)
    file.finish()
    if not cases:
        raise Failed("no cases")
    return cases


def check_case(name, value):
    case = Fields(value, for_people={"comment"} if name in NAME_IS_A_VALUE else Fields.FOR_PEOPLE)
    CHECKS[name](case)
    case.finish()


def passes(label, check, *arguments):
    """Runs a check. Whatever goes wrong in it is a failure of this case, and the others still run."""
    try:
        check(*arguments)
    except Exception as error:  # a check that breaks has failed too
        print(f"{label}: {type(error).__name__}: {error}")
        return False
    return True


def title_of(value):
    return value.get("comment") or value.get("name") if isinstance(value, dict) else None


def check_file(path):
    """How many cases of a file passed, and how many failed; a file that cannot be used is one failure."""
    if path.suffix != ".json" or path.stem not in CHECKS:
        print(f"{path.name}: there is no check for this file")
        return 0, 1
    cases = []
    if not passes(path.stem, lambda: cases.extend(read_cases(path))):
        return 0, 1
    passed = sum(
        passes(f"{path.stem}: case {at} ({title_of(value)})", check_case, path.stem, value)
        for at, value in enumerate(cases)
    )
    failed = len(cases) - passed
    print(f"{path.stem}: {passed} cases ok" + (f", {failed} failed" if failed else ""))
    return passed, failed
