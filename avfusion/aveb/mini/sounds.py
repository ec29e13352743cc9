"""Sound events, and sounds put one after the other."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avfusion.aveb._synthesis import RATE
from avfusion.aveb.mini.speech import Speech

Samples = NDArray[np.float32]

_TONES = {  # Hz and loudness
    "beep": ((880, 1.0),),
    "hum": ((160, 1.0), (320, 0.4)),
    "buzz": ((110, 1.0),),
    "bell": ((523, 1.0), (1414, 1.0), (2270, 1.0)),
}


def event(name: str, seconds: float, choose: np.random.Generator) -> Samples:
    """One of :data:`~avfusion.aveb.mini.vocabulary.SOUNDS`, a little different every time; of one loudness."""
    time = np.arange(round(seconds * RATE)) / RATE
    shift = float(choose.uniform(0.94, 1.06))
    made: NDArray[Any]
    if name == "hiss":
        made = choose.standard_normal(len(time))
    elif name == "clicks":
        made = np.where((time * 12 * shift) % 1 < 0.03, choose.standard_normal(len(time)), 0.0)
    elif name == "siren":
        made = _wave(shift * (700 + 250 * np.sin(2 * math.pi * 3 * time)))
    elif name == "chirp":
        made = _wave(shift * (1200 + 2400 * time / seconds))
    else:
        made = np.zeros_like(time)
        for hertz, loud in _TONES[name]:
            made += loud * _wave(np.full_like(time, shift * hertz))
        made = np.sign(made) if name == "buzz" else made * np.exp(-5 * time) if name == "bell" else made
    shaped = made * np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
    return np.asarray(0.12 * shaped / math.sqrt(float(np.mean(shaped**2))), np.float32).clip(-0.9, 0.9)


def _wave(frequency: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.sin(2 * math.pi * np.cumsum(frequency) / RATE))


def place(pieces: Sequence[tuple[float, Samples]], seconds: float) -> Samples:
    """Pieces at their times, in silence of so many seconds."""
    whole = np.zeros(round(seconds * RATE), np.float32)
    for start, piece in pieces:
        first = round(start * RATE)
        room = whole[first : first + len(piece)]
        room += piece[: len(room)]
    return whole.clip(-1, 1)


def say(
    words: Sequence[str], voice: int, speech: Speech, *, gap: float = 0.12
) -> tuple[Samples, list[tuple[float, float]]]:
    """A sentence, and when each word begins and ends."""
    times, pieces, now = [], [], 0.1
    for word in words:
        piece = speech[voice, word]
        pieces.append((now, piece))
        times.append((now, now + len(piece) / RATE))
        now = times[-1][1] + gap
    return place(pieces, now + 0.1), times
