"""Section 4 of docs/protocol.md, Steps and patterns. Checks patterns.json."""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from .cases import Failed, decimal, expect, text, unhex
from .notation import derive_key, le64


class Pattern:
    def __init__(self, secret, phase_interval, step):
        self.phase, self.block = divmod(step, phase_interval)
        self.phase_key = derive_key("omnimesh 2026-11 phase key", secret + le64(self.phase))
        # The library's IV of 16 bytes is the block counter and the nonce of the original ChaCha20.
        cipher = Cipher(ChaCha20(self.phase_key, le64(self.block) + bytes(8)), mode=None)
        stream = cipher.encryptor().update(bytes(64))
        self.tag_key = stream[:32]
        self.value = int.from_bytes(stream[32:40], "little")


def check_pattern(case):
    interval = case.get("phase_interval", decimal)
    if not 1 <= interval <= 2**32:
        raise Failed("a phase interval that is not allowed")
    pattern = Pattern(case.get("mesh_secret", unhex), interval, case.get("step", decimal))
    expect("phase", str(pattern.phase), case.get("phase", text))
    expect("phase_key", pattern.phase_key.hex(), case.get("phase_key", text))
    expect("block", str(pattern.block), case.get("block", text))
    expect("tag_key", pattern.tag_key.hex(), case.get("tag_key", text))
    expect("value", str(pattern.value), case.get("value", text))
