"""Changes of bytes that need not be understood: flips, cuts, insertions, splices, sizes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

# Sizes and offsets at which arithmetic goes wrong.
INTEGERS = [
    0, 1, 2, 7, 8, 127, 128, 255, 256, 1000, 4096, 65_535, 65_536, 10**6, 2**24, 2**31 - 1, 2**31,
    2**32 - 1, 2**32, 2**48, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip
# The longest stretch that a repetition makes. Rarely such a long one, for they take their time.
LONG, VERY_LONG = 4_096, 1_000_000

Change = Callable[[random.Random, bytearray, int], None]


def mutate(
    rng: random.Random, content: bytes, others: Sequence[bytes], landmarks: Sequence[bytes] = ()
) -> bytes:
    """A file with one to a dozen changes, most of them few.

    `others` are valid files to splice with; `landmarks` are byte strings near which a change is
    likelier to meet what a loader looks at.
    """
    changed = bytearray(content)
    if others and rng.random() < 0.05:
        other = rng.choice(others)
        changed = changed[: rng.randrange(len(changed) + 1)] + other[rng.randrange(len(other)) :]
    for _ in range(1 + min(11, int(rng.expovariate(0.7)))):
        rng.choice(_CHANGES)(rng, changed, _position(rng, changed, landmarks))
    return bytes(changed)


def _position(rng: random.Random, content: bytearray, landmarks: Sequence[bytes]) -> int:
    if landmarks and rng.random() < 0.6:
        start = rng.randrange(len(content) + 1)
        mark = rng.choice(landmarks)
        found = content.find(mark, start)
        found = found if found >= 0 else content.find(mark)
        if found >= 0:
            return min(len(content), found + int(rng.expovariate(1 / 48)))
    if rng.random() < 0.3:  # the beginning, where headers are
        return min(len(content), int(rng.expovariate(1 / 64)))
    return rng.randrange(len(content) + 1)


def _flip_bit(rng: random.Random, content: bytearray, at: int) -> None:
    if at < len(content):
        content[at] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, content: bytearray, at: int) -> None:
    if at < len(content):
        content[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])


def _set_integer(rng: random.Random, content: bytearray, at: int) -> None:
    size = rng.choice([2, 4, 8])
    value = rng.choice(INTEGERS) % 256**size
    if rng.random() < 0.3:  # near to what is there
        value = (
            int.from_bytes(content[at : at + size], "little") + rng.randrange(-9, 10)
        ) % 256**size
    content[at : at + size] = value.to_bytes(size, rng.choice(["little", "little", "big"]))


def _set_float(rng: random.Random, content: bytearray, at: int) -> None:
    content[at : at + 4] = struct.pack("<f", rng.choice([float("nan"), float("inf"), 3e38, 1e-45]))


def _set_digits(rng: random.Random, content: bytearray, at: int) -> None:
    """Another number of as many digits in the next text."""
    for k in range(at, min(at + 2_000, len(content))):
        if 48 <= content[k] <= 57:
            content[k] = 48 + rng.randrange(10)
            if rng.random() < 0.5:
                return


def _cut(rng: random.Random, content: bytearray, at: int) -> None:
    del content[at : at + int(rng.expovariate(1 / 16)) + 1]


def _cut_end(rng: random.Random, content: bytearray, at: int) -> None:
    del content[at if rng.random() < 0.3 else max(0, len(content) - rng.randrange(1, 64)) :]


def _insert(rng: random.Random, content: bytearray, at: int) -> None:
    content[at:at] = rng.randbytes(rng.randrange(1, 17))


def _repeat(rng: random.Random, content: bytearray, at: int) -> None:
    piece = content[at : at + rng.choice([1, 2, 3, 4, 8, 16, 64])]
    longest = VERY_LONG if rng.random() < 0.02 else LONG
    if piece:
        content[at:at] = piece * rng.randrange(1, longest // len(piece) + 1)


def _copy(rng: random.Random, content: bytearray, at: int) -> None:
    """A piece of the file over another piece of it."""
    start, size = rng.randrange(len(content) + 1), rng.choice([1, 2, 4, 8, 32, 256])
    content[at : at + size] = content[start : start + size]


def _blank(rng: random.Random, content: bytearray, at: int) -> None:
    size = len(content[at : at + rng.choice([4, 8, 32, 256])])
    content[at : at + size] = bytes([rng.choice([0, 0, 255, 32])]) * size


_CHANGES: list[Change] = [
    _flip_bit, _flip_bit, _set_byte, _set_byte, _set_integer, _set_integer, _set_float,
    _set_digits, _set_digits, _cut, _cut_end, _insert, _repeat, _copy, _blank,
]  # fmt: skip
