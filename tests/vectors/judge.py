"""Section 7 of docs/protocol.md, How a message is judged: the gates, in order. Checks rejected.json."""

import hmac

from .cases import Fields, decimal, expect, list_of, number, optional, read_piece, text, unhex
from .envelopes import Envelope, signature_input
from .meshes import mesh_id
from .notation import Refused, keyed_hash, require
from .patterns import Pattern
from .replay import ReplayWindows
from .signatures import verify


class Judge:
    """A node's state as far as it decides about messages."""

    def __init__(self, name, secret, phase_interval, step, past, future, bytes_max, channel, windows):
        self.mesh_id, self.secret, self.phase_interval = mesh_id(name, secret), secret, phase_interval
        self.step, self.past, self.future = step, past, future
        self.bytes_max, self.channel, self.windows = bytes_max, channel, windows
        self.quarantined = set()

    def judge(self, data):
        """`accepted`, or the reason of the first gate that refuses."""
        try:
            self.pass_gates(data)
        except Refused as refused:
            return str(refused)
        return "accepted"

    def pass_gates(self, data):
        require(len(data) <= self.bytes_max, "too_large")
        envelope = Envelope(data)
        signed = envelope.signed
        require(signed.mesh == self.mesh_id, "wrong_mesh")
        is_log = self.channel == "_log"
        require(is_log or signed.channel == self.channel, "wrong_channel")
        is_first, is_alone = signed.seq == 1, signed.prev is None
        require(signed.kind == 1 and is_first == is_alone if is_log else signed.kind == 0, "wrong_kind")
        require(self.step is not None, "not_synchronised")
        stale_before = max(self.step - self.past, 0)
        require(signed.step >= stale_before, "stale_step")
        require(signed.step <= self.step + self.future, "future_step")
        tag_key = Pattern(self.secret, self.phase_interval, signed.step).tag_key
        tag = keyed_hash(tag_key, envelope.signed_bytes)
        require(hmac.compare_digest(tag, envelope.tag), "bad_pattern")
        count = len(signed.payloads)
        if not is_log:
            self.windows.look(signed.author, signed.seq, count, signed.step)
        require(signed.author not in self.quarantined, "quarantined")
        result = verify(signed.author, signature_input(envelope.signed_bytes), envelope.signature)
        require(result == "valid", result)
        # Gate 18 without another look at the step: no time passes for a judge of the vectors.
        if not is_log:
            self.windows.accept(signed.author, signed.seq, count, signed.step, stale_before)


def read_judge(value):
    state = Fields(value, for_people=set())
    windows = ReplayWindows(
        state.get("replay_window", decimal),
        state.get("authors_max", number),
        state.get("replay_floor", optional(decimal)),
    )
    judge = Judge(
        state.get("mesh_name", text),
        state.get("mesh_secret", unhex),
        state.get("phase_interval", decimal),
        state.get("step", optional(decimal)),
        state.get("step_window_past", decimal),
        state.get("step_window_future", decimal),
        state.get("message_bytes_max", number),
        state.get("channel", text),
        windows,
    )
    for data in state.get("accepted_before", list_of(unhex)):
        expect("an envelope of accepted_before", judge.judge(data), "accepted")
    judge.quarantined.update(state.get("quarantined", list_of(unhex)))
    state.finish()
    return judge


def check_rejected(case):
    judge, data = case.get("judge", read_judge), b"".join(case.get("envelope", list_of(read_piece)))
    expect("reason", judge.judge(data), case.get("expect", text))
