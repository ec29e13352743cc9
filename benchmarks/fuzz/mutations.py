"""Broken files, drawn from whole ones."""

import random
import re
from collections.abc import Callable, Mapping, Sequence

_WORD = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}")  # what chunks and boxes are called
_VALUES = (
    0,
    1,
    2,
    255,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
)


def mutated(seeds: Mapping[str, bytes], seed: int, index: int) -> tuple[str, bytes]:
    """The name of a whole file, and what a few changes, drawn by these numbers, make of it."""
    draw = random.Random(f"{seed}:{index}")
    name = draw.choice(sorted(seeds))
    data = bytearray(seeds[name])
    others = [seeds[other] for other in sorted(seeds)]
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5))):
        if data:
            draw.choice(_CHANGES)(draw, data, others)
    return name, bytes(data)


def _flip_bits(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    for _ in range(draw.choice((1, 3, 20, 100))):
        data[_place(draw, data)] ^= 1 << draw.randrange(8)


def _set_bytes(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    for _ in range(draw.choice((1, 5, 50))):
        data[_place(draw, data)] = draw.choice((0, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _cut(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[draw.randrange(len(data)) :]


def _splice(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = draw.choice(others)
    start, length, at = draw.randrange(len(other)), draw.choice((4, 64, 1000, 10**6)), _place(draw, data)
    piece = other[start : start + length]
    data[at : at + draw.choice((0, len(piece)))] = piece


def _set_field(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    _write(draw, data, _place(draw, data))


def _set_near_a_word(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    """Sizes stand before or after the name of a chunk; durations, counts and times follow."""
    words = [match.start() for match in _WORD.finditer(data)]
    if words:
        _write(draw, data, max(0, draw.choice(words) + draw.choice((-4, 4, 8, 12, 16, 20, 24, 4 + draw.randrange(64)))))


def _insert(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    at, length = _place(draw, data), draw.choice((1, 4, 100, 5000))
    data[at:at] = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))


def _delete(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = _place(draw, data)
    del data[at : at + draw.choice((1, 4, 100, 5000))]


def _repeat(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    at, length = _place(draw, data), draw.choice((4, 100, 2000))
    data[at:at] = data[at : at + length] * draw.choice((1, 2, 10))


def _place(draw: random.Random, data: bytearray) -> int:
    """Anywhere, but more often in the first or the last bytes, where headers are."""
    reach = min(len(data), draw.choice((64, 1024, len(data))))
    return draw.choice((draw.randrange(reach), len(data) - 1 - draw.randrange(reach)))


def _write(draw: random.Random, data: bytearray, at: int) -> None:
    width = draw.choice((1, 2, 4, 4, 8))
    value = draw.choice((*_VALUES, len(data), draw.getrandbits(64))) % 2 ** (8 * width)
    data[at : at + width] = value.to_bytes(width, draw.choice(("big", "little")))


_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip_bits,
    _set_bytes,
    _cut,
    _splice,
    _set_field,
    _set_near_a_word,
    _set_near_a_word,
    _insert,
    _delete,
    _repeat,
)
