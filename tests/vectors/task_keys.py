"""Section 22 of docs/protocol.md, Jobs, its part on what a task reads: the digest of that, and the keys of tasks.

Checks task_keys.json.
"""

from .cases import Fields, decimal, expect, list_of, number, optional, text, unhex
from .notation import derive_key
from .wide_cbor import write_wide


def slot_of_input(content, size, start, end, align):
    return [0, content, size, start, end, align]


def slot_of_outputs(outputs):
    return [1, derive_key("omnimesh 2026-11 task outputs", write_wide(outputs))]


def task_inputs(slots):
    return derive_key("omnimesh 2026-11 task inputs", write_wide(slots))


def task_key(job, task, chunk, stage, inputs):
    place = task.to_bytes(2, "little") + chunk.to_bytes(4, "little") + bytes([stage])
    return derive_key("omnimesh 2026-11 task key", job + place + inputs)


def read_task_output(value):
    output = Fields(value)
    pair = [output.get("hash", unhex), output.get("size", decimal)]
    output.finish()
    return pair


def read_slot(value):
    slot = Fields(value)
    outputs = slot.get("outputs", optional(list_of(optional(read_task_output))))
    part = [slot.get("hash", optional(unhex)), *(slot.get(name, optional(decimal)) for name in ("size", "from", "to"))]
    part.append(slot.get("align", optional(number)))
    slot.finish()
    if outputs is None:
        return slot_of_input(*part)
    expect("outputs alone", part == [None] * 5, True)
    return slot_of_outputs(outputs)


def check_task_key(case):
    inputs = task_inputs(case.get("slots", list_of(read_slot)))
    expect("inputs", inputs.hex(), case.get("inputs", text))
    place = [case.get(name, number) for name in ("task", "chunk", "stage")]
    expect("key", task_key(case.get("job", unhex), *place, inputs).hex(), case.get("key", text))
