"""Section 22 of docs/protocol.md, Jobs, its parts on which commit counts and on snapshots: what operations amount to.

Checks job_ledgers.json.
"""

from .cases import expect, fold_log, items_of, text
from .cbor import Text
from .jobs import FALLBACK, SKIP, fan_out, read_job_operation
from .notation import U64, Refused, derive_key
from .task_keys import slot_of_input, slot_of_outputs, task_inputs
from .wide_cbor import Raw, write_wide


def output_of(result):
    """Hash and size; None if the task was skipped."""
    state, _, commit = result
    return commit["output"] if state == "SUCCEEDED" else None


class Ledger:
    """All operations that count, sorted whenever somebody asks, as in the registry."""

    def __init__(self):
        self.operations, self.heads, self.cuts, self.floor = {}, {}, {}, 0

    def apply(self, entry):
        author, seq = entry["author"], entry["seq"]
        if author in self.cuts and seq > self.cuts[author][0]:
            return "cut_off"
        self.heads[author] = max(self.heads.get(author, (0, b"")), (seq, entry["hash"]))
        if entry["channel"] != "job":
            return "other_category"
        try:
            said = read_job_operation(entry["payload"], author)
        except Refused as refused:
            return str(refused)
        for name in said["jobs"]:
            self.operations.setdefault(name, {})[(entry["step"], author, seq)] = said
        return "applied"

    def jobs(self):
        jobs = [Job(name, operations) for name, operations in sorted(self.operations.items())]
        return [job for job in jobs if not job.ended_before(self.floor)]

    def hash(self):
        digests = [derive_key("omnimesh 2026-11 ledger job", write_wide(job.item())) for job in self.jobs()]
        return derive_key("omnimesh 2026-11 ledger", b"".join(digests))

    def snapshot(self):
        heads, cuts = ([[author, *end] for author, end in sorted(ends.items())] for ends in (self.heads, self.cuts))
        body = write_wide([1, self.floor, heads, cuts, [job.item() for job in self.jobs()]])
        return body + derive_key("omnimesh 2026-11 ledger snapshot", body)


class Job:
    """What the operations on one job amount to. A stamp is step, author and sequence number of an entry."""

    def __init__(self, name, operations):
        self.name, self.submission, self.spec = name, None, None
        self.takes, self.leases, self.last = {}, {}, {}
        self.retries, self.cancels, self.finishes = {}, {}, {}
        self.kept, self.kept_of = {}, {}  # commits, and how many of each author, task and round
        for stamp in sorted(operations):
            self.last[stamp[1]] = stamp[2]
            self.fold(stamp, operations[stamp])
        tasks = None if self.spec is None else fan_out(self.spec)
        # In the order of the entries, and in that within each.
        self.records = [
            record for record in self.kept.values()
            if tasks is None or record["chunk"] < tasks.get(record["task"], 0)
        ]  # fmt: skip
        self.round = next(n for n in range(1001) if n + 1 not in self.retries)

    def fold(self, stamp, said):
        step, author, _ = stamp
        if said["action"] == "submit":
            if self.submission is None:
                self.submission, self.spec = (stamp, said["spec"]), said["says"]
            self.prolong(author, step + 60)
        elif said["action"] == "lease":
            if said["is_taken"]:
                self.takes[author] = (self.takes.get(author, (stamp,))[0], stamp)
            self.prolong(author, step + said["steps"])
        elif said["action"] == "retry":
            if 1 <= said["round"] <= 1000:
                self.retries.setdefault(said["round"], (stamp,))
        elif said["action"] == "cancel":
            if said["round"] <= 1000:
                self.cancels.setdefault(said["round"], (stamp, said["reason"], Text(said["text"])))
        elif author in self.takes or self.submission and self.submission[0][1] == author:
            if said["round"] > 1000:
                return
            if said["action"] == "commit":
                self.prolong(author, step + 60)
                for at, commit in enumerate(said["commits"]):
                    self.keep(stamp, at, said["round"], commit)
            else:
                self.finishes.setdefault(said["round"], (stamp,))

    def prolong(self, author, until):
        self.leases[author] = min(max(self.leases.get(author, 0), until), U64)

    def keep(self, stamp, at, in_round, commit):
        whose = (stamp[1], commit["task"], commit["chunk"], in_round)
        what = (*whose, commit["inputs"], commit["output"] is not None)
        # They come in their order, so that the first 16 are those that are there.
        if what in self.kept or self.kept_of.get(whose, 0) == 16:
            return
        self.kept[what] = {**commit, "stamp": stamp, "at": at, "round": in_round}
        self.kept_of[whose] = self.kept_of.get(whose, 0) + 1

    def ended_before(self, floor):
        return self.round in self.finishes and self.finishes[self.round][0][0] < floor

    def item(self):
        takes = [take for _, take in sorted(self.takes.items())]
        retries, cancels, finishes = (
            [[n, *said] for n, said in sorted(each.items())] for each in (self.retries, self.cancels, self.finishes)
        )
        order = sorted(self.records, key=lambda one: (one["task"], one["chunk"], one["stamp"], -one["at"]))
        records = [[record["stamp"], record["round"], Raw(record["raw"])] for record in order]
        leases, last = sorted(self.leases.items()), sorted(self.last.items())
        return [self.name, self.submission, takes, leases, retries, cancels, finishes, records, last]

    def driver(self):
        last = max((stamp for _, stamp in self.takes.values()), default=self.submission[0])
        return last[1]

    def line(self, nodes):
        """Who would take the job, the first of all first."""

        def rank(node):
            return node == self.submission[0][1], derive_key("omnimesh 2026-11 job rendezvous", self.name + node)

        return sorted(nodes, key=rank, reverse=True)

    def results(self):
        """The state of the job, and by task and chunk the state, the inputs and the commit that counts."""
        results, counts = {}, fan_out(self.spec)
        for place, count in counts.items():
            for chunk in range(count):
                results[place, chunk] = self.result(results, counts, place, chunk)
        states = {state for state, _, _ in results.values()}
        state = "RUNNING"
        if "FAILED" in states:
            state = "FAILED"
        elif states <= {"SUCCEEDED", "SKIPPED"}:
            state = "SUCCEEDED"
        elif self.round in self.cancels:
            state = "CANCELLED"
        if state == "FAILED" or self.round in self.cancels:
            for where, (old, inputs, commit) in results.items():
                if old in ("PENDING", "READY"):
                    results[where] = "CANCELLED", inputs, commit
        return state, sorted(results.items())

    def result(self, results, counts, place, chunk):
        task = self.spec["tasks"][place]

        def all_of(other):
            return [results[other, n] for n in range(counts[other])]

        reads = list(self.reads(task, chunk, all_of))
        tasks_are = [one for _, these in reads for one in these]
        awaited = tasks_are + [one for other in task["after"] for one in all_of(other)]
        if not all(state in ("SUCCEEDED", "SKIPPED") for state, _, _ in awaited):
            return "PENDING", None, None
        outputs = [output_of(one) for one in tasks_are]
        is_left = any(slot for slot, _ in reads) or any(outputs)
        if None in outputs and not (task["omits"] and is_left):
            return "SKIPPED", None, None
        slots = [slot or slot_of_outputs([output_of(one) for one in these]) for slot, these in reads]
        return self.outcome(task, place, chunk, task_inputs(slots))

    def reads(self, task, chunk, all_of):
        """What a task reads, in order: the slot of an input and nothing, or no slot and the results of tasks."""
        each = task["each"] or {}
        if "input" in each:
            start, size = chunk * each["bytes"], self.spec["inputs"][each["input"]]["size"]
            yield self.slot(each["input"], start, min(start + each["bytes"], size), each["align"]), []
        if "task" in each:
            yield None, all_of(each["task"])[chunk * each["group"] : (chunk + 1) * each["group"]]
        for kind, other in task["sources"]:
            if kind == "input":
                yield self.slot(other, 0, self.spec["inputs"][other]["size"], 0), []
            else:
                yield None, all_of(other)

    def slot(self, place, start, end, align):
        content = self.spec["inputs"][place]
        return slot_of_input(content["hash"], content["size"], start, end, align)

    def outcome(self, task, place, chunk, inputs):
        on_failure = task["on_failure"][0]
        last_stage = 1 if on_failure == FALLBACK else 0
        these = [
            record for record in self.records
            if (record["task"], record["chunk"], record["inputs"]) == (place, chunk, inputs)
            and record["stage"] <= last_stage
        ]  # fmt: skip
        for record in these:
            if record["output"] is not None:
                return "SUCCEEDED", inputs, record
        for record in these:
            if record["round"] == self.round and record["stage"] == last_stage:
                return "SKIPPED" if on_failure == SKIP else "FAILED", inputs, record
        return "READY", inputs, None


def say_job(job):
    state, results = job.results()
    cancel = job.cancels.get(job.round)
    return {
        "id": job.name.hex(), "state": state, "round": job.round, "cancelled": cancel and str(cancel[1]),
        "is_finished": job.round in job.finishes, "driver": job.driver().hex(),
        "until": str(job.leases[job.driver()]),
        "line": [node.hex() for node in job.line([bytes([n]) * 32 for n in (1, 2, 3)])],
        "results": [say_result(*where, *result) for where, result in results],
    }  # fmt: skip


def say_result(task, chunk, state, inputs, commit):
    _, author, seq = commit["stamp"] if commit else (None, None, None)
    return {
        "task": task, "chunk": chunk, "state": state, "inputs": inputs and inputs.hex(),
        "author": author and author.hex(), "seq": None if seq is None else str(seq),
    }  # fmt: skip


def check_job_ledger(case):
    ledger = fold_log(case, Ledger())
    jobs = [say_job(job) for job in ledger.jobs() if job.submission is not None]
    expect("jobs", jobs, case.get("jobs", items_of))
    expect("hash", ledger.hash().hex(), case.get("hash", text))
    expect("snapshot", ledger.snapshot().hex(), case.get("snapshot", text))
