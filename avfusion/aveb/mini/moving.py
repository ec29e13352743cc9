"""Items of moving pictures, silent or with sound; each is decided by what happens when."""

import numpy as np

from avfusion.aveb._synthesis import RATE
from avfusion.aveb.mini.items import Level, Made, draw_things, noisy, pick
from avfusion.aveb.mini.pictures import Picture, Thing, paint
from avfusion.aveb.mini.sounds import Samples, event, place, say
from avfusion.aveb.mini.speech import Speech
from avfusion.aveb.mini.vocabulary import COLOURS, FRAME_RATE, SHAPES, SIDE, SOUNDS, SPOKEN, VOICES

SCENE = 1.5
"""Seconds of a scene: a window of five seconds holds three, so that what comes next is often in the next one."""


def video_qa(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """Which thing comes right after, or right before, another; all candidates but one are of the same clip if it has
    as many.
    """
    count = int(choose.integers(*level.events, endpoint=True)) + 1
    scenes = _scenes(count, choose)
    asked = int(choose.integers(1, count))
    after = bool(choose.integers(2))
    shown, answer = (scenes[asked - 1], scenes[asked]) if after else (scenes[asked], scenes[asked - 1])
    others = [thing.name for thing in scenes if thing.name not in (shown.name, answer.name)]
    more = [name for name in _names() if name not in {thing.name for thing in scenes}]
    wrong = (pick(choose, others, len(others)) + pick(choose, more, 4))[:4]
    place_of_answer = int(choose.integers(5))
    candidates = [*wrong[:place_of_answer], answer.name, *wrong[place_of_answer:]]
    question = f"What is shown right {'after' if after else 'before'} the {shown.name}?"
    record = {
        "question": question,
        "candidates": tuple(candidates),
        "answer_index": place_of_answer,
        "references": (answer.name,),
    }
    truth = {"scenes": [thing.name for thing in scenes], "asked": shown.name, "after": after}
    return Made(record, truth, frames=_film(scenes, choose))


def avsr(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """Spoken words, some of them colours under noise: what is on screen at that moment is the word.

    Whenever a word is spoken a disc of some colour is shown, so that only its time says which colour was meant.
    """
    count = int(choose.integers(*level.words, endpoint=True))
    hidden = set(pick(choose, range(count), max(1, count // 3)))
    words = [pick(choose, COLOURS)[0] if place in hidden else pick(choose, SPOKEN)[0] for place in range(count)]
    sound, times = say(words, int(choose.integers(len(VOICES))), speech, gap=0.5)
    colours = [word if place in hidden else pick(choose, COLOURS)[0] for place, word in enumerate(words)]
    for number in hidden:
        first, last = (round(time * RATE) for time in times[number])
        sound[first:last] = event("hiss", (last - first) / RATE, choose)[: last - first]
    frames = []
    for number in range(round(len(sound) / RATE * FRAME_RATE)):
        now = (number + 0.5) / FRAME_RATE
        shown = [colours[word] for word, (start, end) in enumerate(times) if start - 0.2 <= now < end + 0.2]
        frames.append(paint([Thing(colour, "circle", SIDE / 2, SIDE / 2, 20) for colour in shown]))
    truth = {"words": words, "times": times, "hidden": sorted(hidden), "colours": colours}
    return Made({"references": (" ".join(words),)}, truth, frames=frames, sound=noisy(sound, level, choose))


def avsd(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """A dialogue about scenes that each have a sound of their own; the last question joins the two."""
    scenes = _scenes(int(choose.integers(*level.events, endpoint=True)), choose)
    sounds = pick(choose, SOUNDS, len(scenes), repeat=len(scenes) > len(SOUNDS))
    asked = int(choose.integers(len(scenes)))
    if sounds.count(sounds[asked]) > 1:  # only one scene may fit the question
        free = next(name for name in SOUNDS if name not in sounds[:asked] + sounds[asked + 1 :])
        sounds[asked] = free
    history = (("How many things are shown?", str(len(scenes))), ("Is there sound?", "yes"))
    question = f"What is shown while the {sounds[asked]} is heard?"
    record = {"question": question, "history": history, "references": (scenes[asked].name,)}
    truth = {"scenes": [thing.name for thing in scenes], "sounds": sounds, "asked": asked}
    return Made(record, truth, frames=_film(scenes, choose), sound=_heard(sounds, level, choose))


def avssd(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """Things side by side that pulse; the one that pulses with the sound is its source."""
    count = max(2, min(level.things, 3))
    things = draw_things(count, choose)
    beats = _beats(count, choose)
    source = int(choose.integers(count))
    [sound] = pick(choose, SOUNDS)
    seconds = 4.0
    frames = [
        paint([_pulsed(thing, mine, now) for thing, mine in zip(things, beats, strict=True)])
        for now in _instants(seconds)
    ]
    heard = place([(beat, event(sound, PULSE, choose)) for beat in beats[source]], seconds)
    truth = {"things": things, "beats": beats, "source": source, "sound": sound}
    return Made({"references": (things[source].name,)}, truth, frames=frames, sound=noisy(heard, level, choose))


def avm(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """A thing that pulses and a sound that comes with every pulse, or at other times as often."""
    [thing] = draw_things(1, choose)
    seen, other = _beats(2, choose)
    match = bool(choose.integers(2))
    [sound] = pick(choose, SOUNDS)
    seconds = 4.0
    frames = [paint([_pulsed(thing, seen, now)]) for now in _instants(seconds)]
    heard = place([(beat, event(sound, PULSE, choose)) for beat in (seen if match else other)], seconds)
    record = {"references": ("Yes" if match else "No",), "question": "Do the sound and the picture belong together?"}
    truth = {"thing": thing.name, "match": match, "seen": seen, "heard": seen if match else other, "sound": sound}
    return Made(record, truth, frames=frames, sound=noisy(heard, level, choose))


PULSE = 0.25
"""Seconds for which a thing is large when it pulses: two pictures."""

_BEATS = 4


def _instants(seconds: float) -> list[float]:
    """The middle of each picture's time."""
    return [(number + 0.5) / FRAME_RATE for number in range(round(seconds * FRAME_RATE))]


def _beats(count: int, choose: np.random.Generator) -> list[list[float]]:
    """For each of several, times of its pulses; no two have one at the same time."""
    slots, step = (8, 0.5) if count <= 2 else (12, 1 / 3)
    drawn = choose.permutation(slots)[: count * _BEATS].reshape(count, _BEATS)
    return [[round(float(slot) * step * FRAME_RATE) / FRAME_RATE for slot in sorted(part)] for part in drawn]


def _pulsed(thing: Thing, beats: list[float], now: float) -> Thing:
    on = any(beat <= now < beat + PULSE for beat in beats)
    return thing._replace(radius=thing.radius * (1.0 if on else 0.55))


def _names() -> list[str]:
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def _scenes(count: int, choose: np.random.Generator) -> list[Thing]:
    """Things that all differ, one per scene."""
    found = []
    for name in pick(choose, _names(), count):
        colour, shape = name.split()
        x, y = (float(value) for value in choose.uniform(20, SIDE - 20, 2))
        found.append(Thing(colour, shape, x, y, float(choose.uniform(12, 17))))
    return found


def _film(scenes: list[Thing], choose: np.random.Generator) -> list[Picture]:
    """Each thing drifts a little."""
    frames = []
    for thing in scenes:
        to_x, to_y = (float(value) for value in choose.uniform(-6, 6, 2))
        steps = round(SCENE * FRAME_RATE)
        frames += [
            paint([thing._replace(x=thing.x + to_x * step / steps, y=thing.y + to_y * step / steps)])
            for step in range(steps)
        ]
    return frames


def _heard(sounds: list[str], level: Level, choose: np.random.Generator) -> Samples:
    pieces = [(SCENE * number + 0.1, event(name, SCENE - 0.2, choose)) for number, name in enumerate(sounds)]
    return noisy(place(pieces, SCENE * len(sounds)), level, choose)
