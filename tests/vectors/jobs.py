"""Section 22 of docs/protocol.md, Jobs: the operations on them, and their specs. Checks job_operations.json."""

import re

from .cases import expect, list_of, optional, read_piece, text, unhex
from .notation import U8, U16, U32, Refused, derive_key, require
from .wide_cbor import WideReader, read_hash

JOB_ACTIONS = ("submit", "lease", "commit", "cancel", "retry", "finish")
JOB_OPERATIONS = {"analyze", "analyze_merge", "concat", "decrypt", "encrypt", "hash", "pattern", "wasm"}
JOB_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DAY_MS = 86_400_000
SKIP, FALLBACK = 1, 2  # on failure
ROW_GROUP = 2  # an align


def job_id(author, spec):
    return derive_key("omnimesh 2026-11 job", author + spec)


def read_job_operation(payload, author):
    """What an operation says; of a submission also its spec and the id of the job."""
    require(len(payload) <= 49152, "too_large")
    reader = WideReader(payload)
    items = reader.of_major(4)
    require(reader.uint() == 1, "unknown_version")
    code = reader.uint()
    require(code < len(JOB_ACTIONS), "unknown_operation")
    require(items == (3, 5, 5, 6, 4, 4)[code], "malformed")
    said = {"action": JOB_ACTIONS[code]}
    if said["action"] == "submit":
        said["spec"] = reader.octets()
        said["jobs"] = [job_id(author, said["spec"])]
    elif said["action"] == "lease":
        said.update(is_taken=reader.flag(), steps=reader.uint(), jobs=reader.array_of(read_hash))
        require(said["steps"] <= 3600 and 1 <= len(said["jobs"]) <= 256, "malformed")
    else:
        said.update(jobs=[read_hash(reader)], round=reader.uint(U32))
    if said["action"] == "commit":
        said["commits"] = reader.array_of(read_commit)
        require(1 <= len(said["commits"]) <= 64, "malformed")
    if said["action"] == "cancel":
        said.update(reason=reader.uint(), text=reader.text())
        require(len(said["text"].encode()) <= 200, "malformed")
    reader.finish()
    if said["action"] == "submit":
        said["says"] = read_spec(said["spec"])
    return said


def read_commit(reader):
    start = reader.at
    reader.array(9)
    commit = {
        "task": reader.uint(U16), "chunk": reader.uint(U32), "stage": reader.uint(U8), "inputs": read_hash(reader),
        "output": None, "text": "",
    }  # fmt: skip
    reader.array(3)
    if reader.choice(2) == 0:
        commit["output"] = [read_hash(reader), reader.uint()]
    else:
        commit.update(reason=reader.uint(), text=reader.text())
    workers, dissenters = reader.array_of(read_hash), reader.array_of(read_hash)
    commit["times"] = [reader.uint(), reader.uint()]
    require(commit["stage"] <= 1 and len(commit["text"].encode()) <= 200, "malformed")
    require(len(workers) <= 16 and len(dissenters) <= 16, "malformed")
    return {**commit, "raw": reader.data[start : reader.at]}


def read_spec(data):
    require(len(data) <= 32768, "too_large")
    reader = WideReader(data)
    items = reader.of_major(4)
    require(reader.uint() == 1, "unknown_version")
    require(items == 8, "malformed")
    spec = {
        "name": reader.text(), "nonce": reader.uint(), "deadline_s": reader.uint(), "spot_check": reader.uint(U16),
        "inputs": reader.array_of(read_job_input), "tasks": reader.array_of(read_task),
        "outputs": reader.array_of(read_job_output),
    }  # fmt: skip
    reader.finish()
    check_spec(spec)
    return spec


def read_job_input(reader):
    reader.array(3)
    return {"name": reader.text(), "hash": read_hash(reader), "size": reader.uint()}


def read_job_output(reader):
    reader.array(2)
    return {"name": reader.text(), "task": read_place(reader)}


def read_place(reader):
    return reader.uint(U16)


def read_task(reader):
    reader.array(11)
    return {
        "name": reader.text(), "action": read_action(reader), "sources": reader.array_of(read_source),
        "each": reader.or_null(read_each), "after": reader.array_of(read_place), "limits": read_limits(reader),
        "retry": read_retry(reader), "redundancy": reader.uint(U8), "constraints": read_constraints(reader),
        "on_failure": read_on_failure(reader), "omits": reader.choice(2) == 1,
    }  # fmt: skip


def read_action(reader):
    reader.array(3)
    operation, program = reader.text(), reader.or_null(read_program)
    return {"operation": operation, "program": program, "parameters": reader.map_of(WideReader.value)}


def read_program(reader):
    reader.array(2)
    return read_hash(reader), reader.uint()


def read_source(reader):
    reader.array(2)
    return ("input", "task")[reader.choice(2)], read_place(reader)


def read_each(reader):
    items, code = reader.array(3, 4), reader.choice(2)
    require(items == (4, 3)[code], "malformed")
    if code == 0:
        return {"input": read_place(reader), "bytes": reader.uint(), "align": reader.choice(3)}
    return {"task": read_place(reader), "group": reader.uint(U32)}


def read_limits(reader):
    reader.array(4)
    return [reader.uint() for _ in range(4)]


def read_retry(reader):
    reader.array(4)
    return {"max": reader.uint(U8), "waits": [reader.uint(), reader.uint()], "jitter": reader.uint(U16)}


def read_constraints(reader):
    reader.array(3)
    labels, memory = reader.map_of(WideReader.text), reader.uint()
    return {"labels": labels, "memory": memory, "region": reader.or_null(WideReader.text)}


def read_on_failure(reader):
    items, code = reader.array(1, 2), reader.choice(3)
    require((items == 2) == (code == FALLBACK), "malformed")
    return code, read_action(reader) if code == FALLBACK else None


def check_job_names(names):
    require(all(JOB_NAME.fullmatch(name) for name in names), "bad_name")


def actions_of(task):
    """The action, and that of the fallback, if there is one."""
    return [action for action in (task["action"], task["on_failure"][1]) if action is not None]


def tasks_read(task):
    """The places of the tasks among the sources, each once."""
    return {place for kind, place in task["sources"] if kind == "task"}


def waits_for(task):
    fanned_out = {task["each"]["task"]} if task["each"] and "task" in task["each"] else set()
    return tasks_read(task) | fanned_out | set(task["after"])


def check_spec(spec):
    """Whether a spec makes sense."""
    inputs, tasks, outputs = spec["inputs"], spec["tasks"], spec["outputs"]
    named = [each["name"] for each in inputs + tasks]
    results = [output["name"] for output in outputs]
    check_job_names([spec["name"], *named, *results])
    require(len(set(named)) == len(named) and len(set(results)) == len(results), "bad_name")
    require(all(output["task"] < len(tasks) for output in outputs), "unknown_name")
    require(tasks, "missing")
    require(1 <= spec["deadline_s"] <= 2_592_000 and spec["spot_check"] <= 1000, "bad_value")
    require(len(inputs) <= 256, "quota")
    for task in tasks:
        check_task(task, len(inputs), len(tasks))
    counts = fan_out(spec)
    require(sum(counts.values()) <= 262_144, "quota")
    reads = 0
    for place, task in enumerate(tasks):
        outputs = sum(counts[other] for other in tasks_read(task)) + (task["each"] or {}).get("group", 0)
        require(outputs <= 16384, "quota")
        reads += counts[place] * (len(task["sources"]) + (task["each"] is not None) + outputs)
    require(reads <= 16_777_216, "quota")


def check_task(task, inputs, tasks):
    labels, region = task["constraints"]["labels"], task["constraints"]["region"]
    check_job_names([*labels, *labels.values(), *([] if region is None else [region])])
    require(all(place < (inputs if kind == "input" else tasks) for kind, place in task["sources"]), "unknown_name")
    for several in (task["sources"], task["after"]):
        require(len(set(several)) == len(several), "bad_value")
    require(len(task["sources"]) <= 256, "quota")
    each = task["each"] or {}
    require(each.get("input", -1) < inputs and all(place < tasks for place in waits_for(task)), "unknown_name")
    for action in actions_of(task):
        check_job_names(action["parameters"])
        require(action["operation"] in JOB_OPERATIONS, "unknown_operation")
        is_wasm = action["operation"] == "wasm"
        require(action["program"] is not None or not is_wasm, "missing")
        require(action["program"] is None or is_wasm, "bad_value")
        require(each.get("align") != ROW_GROUP or action["operation"] == "analyze", "bad_value")
        require(len(action["parameters"]) <= 64, "quota")
    reads_nothing = not each and not task["sources"]
    require(task["action"]["operation"] != "analyze_merge" or not reads_nothing, "missing")
    require(each.get("bytes") != 0 and 1 <= each.get("group", 1) <= 16384, "bad_value")
    retry = task["retry"]
    require(0 not in task["limits"] and 1 <= task["redundancy"] <= 7, "bad_value")
    require(retry["max"] <= 20 and max(retry["waits"]) <= DAY_MS and retry["jitter"] <= 1000, "bad_value")
    require(len(labels) <= 32, "quota")


def in_order(tasks):
    """The places of the tasks, each behind those that it waits for."""
    order, left = {}, {place: waits_for(task) for place, task in enumerate(tasks)}
    while left:
        ready = [place for place, waits in left.items() if waits <= order.keys()]
        require(ready, "cycle")
        for place in ready:
            order[place] = left.pop(place)
    return list(order)


def fan_out(spec):
    """How many tasks there are of each entry, the entries in an order in which they can be done."""
    counts = {}
    for place in in_order(spec["tasks"]):
        each = spec["tasks"][place]["each"]
        if each is None:
            counts[place] = 1
        elif "input" in each:
            counts[place] = max(-(-spec["inputs"][each["input"]]["size"] // each["bytes"]), 1)
        else:
            counts[place] = -(-counts[each["task"]] // each["group"])
    return counts


def check_job_operation(case):
    author, payload = case.get("author", unhex), b"".join(case.get("payload", list_of(read_piece)))
    outcome, job = "good", None
    try:
        said = read_job_operation(payload, author)
        job = said["jobs"][0].hex() if said["action"] == "submit" else None
    except Refused as refused:
        outcome = str(refused)
    expect("outcome", outcome, case.get("outcome", text))
    expect("job", job, case.get("job", optional(text)))
