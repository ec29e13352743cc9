"""What the generator says is in a file, as targets: of each picture, and of each hundredth of two seconds of sound."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from avfusion.aveb.mini import COLOURS, PULSE, QUESTION_WORDS, SCENE, SHAPES, SOUNDS, SPOKEN
from examples.mini_aveb.towers import AUDIO_RATE, FRAME_RATE, PIXELS

THINGS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
HEARD = ("nothing", *SOUNDS, *dict.fromkeys((*SPOKEN, *QUESTION_WORDS)))
SEEN = 3 * len(THINGS) + len(SPOKEN)
"""Targets of a picture: things in its left half, in its right half, things that are large now, and written words."""


def seen(truth: Mapping[str, Any], frames: int) -> Tensor:
    """``(frame, SEEN)``: 1 for what is in each picture."""
    found = torch.zeros(frames, SEEN)
    times = [(frame + 0.5) / FRAME_RATE for frame in range(frames)]
    things = truth.get("things", ())
    for place, (colour, shape, x, *_) in enumerate(things):
        beats, left = truth["beats"][place] if "beats" in truth else None, None if len(things) == 1 else x < PIXELS / 2
        for row, now in enumerate(times):
            _put(found[row], f"{colour} {shape}", left=left, large=_on(beats, now))
    if "seen" in truth:
        for row, now in enumerate(times):
            _put(found[row], truth["thing"], left=None, large=_on(truth["seen"], now))
    if "scenes" in truth:
        for row, now in enumerate(times):
            _put(found[row], truth["scenes"][min(int(now / SCENE), len(truth["scenes"]) - 1)], left=None)
    for colour, (start, end) in zip(truth.get("colours", ()), truth.get("times", ()), strict=False):
        for row, now in enumerate(times):
            if start - 0.2 <= now < end + 0.2:
                _put(found[row], f"{colour} circle", left=None)
    if "word" in truth:
        found[:, 3 * len(THINGS) + SPOKEN.index(truth["word"])] = 1
    return found


def heard(truth: Mapping[str, Any], steps: int) -> Tensor:
    """``(step,)`` int64: index in :data:`HEARD` of what each token of sound is about."""
    found = torch.zeros(steps, dtype=torch.int64)
    for name, start, end in _events(truth):
        found[round(start * AUDIO_RATE) : round(end * AUDIO_RATE)] = HEARD.index(name)
    return found


def _events(truth: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    if "words" in truth:
        hidden = truth.get("hidden", ())
        pairs = enumerate(zip(truth["words"], truth["times"], strict=True))
        return [("hiss" if place in hidden else word, *times) for place, (word, times) in pairs]
    if "scenes" in truth and "sounds" in truth:
        return [(name, SCENE * place + 0.1, SCENE * (place + 1) - 0.1) for place, name in enumerate(truth["sounds"])]
    if "sounds" in truth:
        return [(name, 0.2 + 1.3 * place, 1.2 + 1.3 * place) for place, name in enumerate(truth["sounds"])]
    if "beats" in truth:
        return [(truth["sound"], beat, beat + PULSE) for beat in truth["beats"][truth["source"]]]
    return [(truth["sound"], beat, beat + PULSE) for beat in truth.get("heard", ())]


def _on(beats: list[float] | None, now: float) -> bool:
    return beats is not None and any(beat <= now < beat + PULSE for beat in beats)


def _put(row: Tensor, name: str, *, left: bool | None, large: bool = False) -> None:
    """A thing in one half of a picture, or in both where it is in the middle."""
    place, count = THINGS.index(name), len(THINGS)
    if left is not False:
        row[place] = 1
    if left is not True:
        row[count + place] = 1
    if large:
        row[2 * count + place] = 1
