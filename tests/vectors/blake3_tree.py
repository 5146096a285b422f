"""BLAKE3 from within: the chaining values that section 24 of docs/protocol.md, Blob streams, makes outlines of.

The library shows none. Many blocks are compressed at once: word n of all of them is one long number, with 64 bits for
each block, of which the upper 32 take what overflows. The vectors are checked in `blobs`.
"""

from .notation import U32, le64

CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
BLAKE3_IV = [
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
]  # fmt: skip
BLAKE3_ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
BLAKE3_MIXES = [
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
]  # fmt: skip


class Lanes:
    def __init__(self, count):
        self.count, self.ones = count, self.pack([1] * count)
        self.mask = self.ones * U32

    @staticmethod
    def pack(numbers):
        return int.from_bytes(b"".join(le64(number) for number in numbers), "little")

    def words(self, data, at, stride):
        """The sixteen words of the blocks at `at` in each stride of `data`."""
        words = []
        for start in range(at, at + 64, 4):
            lanes = bytearray(8 * self.count)
            for i in range(4):
                lanes[i::8] = data[start + i :: stride]
            words.append(int.from_bytes(lanes, "little"))
        return words

    def rotate(self, word, bits):
        return (word >> bits | word << (32 - bits)) & self.mask

    def compress(self, values, words, counters, length, flags):
        state = values + [word * self.ones for word in BLAKE3_IV[:4]]
        state += [self.pack(n & U32 for n in counters), self.pack(n >> 32 for n in counters)]
        state += [length * self.ones, flags * self.ones]
        for _ in range(7):
            for at, (a, b, c, d) in enumerate(BLAKE3_MIXES):
                for word, first, second in ((words[2 * at], 16, 12), (words[2 * at + 1], 8, 7)):
                    state[a] = state[a] + state[b] + word & self.mask
                    state[d] = self.rotate(state[d] ^ state[a], first)
                    state[c] = state[c] + state[d] & self.mask
                    state[b] = self.rotate(state[b] ^ state[c], second)
            words = [words[place] for place in BLAKE3_ORDER]
        return [state[i] ^ state[i + 8] for i in range(8)]

    def start(self):
        return [word * self.ones for word in BLAKE3_IV]

    def values(self, words):
        """The chaining value of each lane."""
        columns = [word.to_bytes(8 * self.count, "little") for word in words]
        return [b"".join(column[8 * i : 8 * i + 4] for column in columns) for i in range(self.count)]


def chunk_values(data, first, length):
    """The chaining values of chunks of `length` bytes, of which the first has the number `first`."""
    lanes = Lanes(len(data) // length)
    counters, values = range(first, first + lanes.count), lanes.start()
    padded = -(-length // 64) * 64
    data = data if padded == length else data + bytes(padded - length)  # such a chunk is alone
    for at in range(0, padded, 64):
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END if at + 64 == padded else 0)
        values = lanes.compress(values, lanes.words(data, at, padded), counters, min(length - at, 64), flags)
    return lanes.values(values)


def parent_values(values, flags):
    lanes = Lanes(len(values) // 2)
    words = lanes.words(b"".join(values[: 2 * lanes.count]), 0, 64)
    return lanes.values(lanes.compress(lanes.start(), words, [0] * lanes.count, 64, flags | PARENT))


def subtree_value(values, root_flag=0):
    """What a list of neighbours comes to. Pair by pair is the tree of BLAKE3: its left sides are full."""
    while len(values) > 1:
        odd = values[-1:] if len(values) % 2 else []
        values = parent_values(values, root_flag if len(values) == 2 else 0) + odd
    return values[0]
