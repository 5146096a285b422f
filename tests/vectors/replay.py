"""Section 8 of docs/protocol.md, Replay windows. Checks replay.json."""

from .cases import Fields, decimal, expect, items_of, number, optional, text
from .notation import Refused, require


class Author:
    def __init__(self, floor):
        self.top, self.used, self.last_step, self.floor = 0, set(), 0, floor


class ReplayWindows:
    def __init__(self, window, authors_max, floor):
        self.window = -(-window // 64) * 64  # rounded up
        self.authors_max, self.floor = authors_max, floor
        self.authors = {}  # in order of the last acceptance: who is accepted is taken out and put at the end

    def look(self, author, seq, count, step):
        entry = self.authors.get(author)
        floor = self.floor if entry is None else entry.floor
        require(floor is None or step > floor, "not_provably_new")
        if entry is not None:
            require(seq >= max(entry.top - self.window + 1, 1), "replay")
            require(entry.used.isdisjoint(range(seq, seq + count)), "replay")

    def accept(self, author, seq, count, step, stale_before):
        self.look(author, seq, count, step)
        if author not in self.authors:
            self.make_room(stale_before)
        entry = self.authors.pop(author, None) or Author(self.floor)
        entry.top = max(entry.top, seq + count - 1)
        bottom = entry.top - self.window + 1
        entry.used = {n for n in entry.used.union(range(seq, seq + count)) if n >= bottom}
        entry.last_step = max(entry.last_step, step)
        self.authors[author] = entry

    def make_room(self, stale_before):
        while self.authors:
            oldest = next(iter(self.authors))
            last_step = self.authors[oldest].last_step
            if last_step >= stale_before:
                if len(self.authors) < self.authors_max:
                    return
                self.floor = last_step if self.floor is None else max(self.floor, last_step)
            del self.authors[oldest]


def check_replay(case):
    windows = ReplayWindows(
        case.get("window", decimal), case.get("authors_max", number), case.get("floor", optional(decimal))
    )
    for at, value in enumerate(case.get("messages", items_of)):
        message = Fields(value)
        author = message.get("author", number)
        numbers = [message.get(name, decimal) for name in ("seq", "count", "step", "stale_before")]
        result = "accepted"
        try:
            windows.accept(author, *numbers)
        except Refused as refused:
            result = str(refused)
        expect(f"message {at}", result, message.get("result", text))
        message.finish()
    floor = None if windows.floor is None else str(windows.floor)
    expect("floor_after", floor, case.get("floor_after", optional(text)))
