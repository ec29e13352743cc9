"""Items of sound alone, of a picture alone, and of a picture with a spoken question."""

import numpy as np

from avfusion.aveb.mini.items import Level, Made, draw_things, noisy, pick
from avfusion.aveb.mini.pictures import Thing, paint, write
from avfusion.aveb.mini.sounds import event, place, say
from avfusion.aveb.mini.speech import Speech
from avfusion.aveb.mini.vocabulary import COLOURS, SHAPES, SOUNDS, SPOKEN, VOICES

_ARTICLE = {"clicks": "clicks", "hiss": "a hiss"}


def asr(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """A few words."""
    words = pick(choose, SPOKEN, int(choose.integers(*level.words, endpoint=True)), repeat=True)
    sound, times = say(words, int(choose.integers(len(VOICES))), speech)
    return Made({"references": (" ".join(words),)}, {"words": words, "times": times}, sound=noisy(sound, level, choose))


def ac(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """One sound event after another."""
    names = pick(choose, SOUNDS, int(choose.integers(1, 2, endpoint=True)))
    pieces = [(0.2 + 1.3 * number, event(name, 1.0, choose)) for number, name in enumerate(names)]
    sound = noisy(place(pieces, 0.2 + 1.3 * len(names)), level, choose)
    caption = " and then ".join(_ARTICLE.get(name, f"a {name}") for name in names)
    return Made({"references": (caption,)}, {"sounds": names}, sound=sound)


def ic(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """One thing, or one left of another."""
    things = draw_things(int(choose.integers(1, 2, endpoint=True)), choose)
    things.sort(key=lambda thing: thing.x)
    caption = " left of ".join(f"a {thing.name}" for thing in things)
    return Made({"references": (caption,)}, {"things": things}, image=paint(things))


def ocr(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """A written word; ten people agree on it."""
    [word], [colour] = pick(choose, SPOKEN), pick(choose, COLOURS)
    size = {4: 20, 5: 18, 6: 17}.get(max(len(word), 4), 16)
    image = write(word, colour, (float(choose.uniform()), float(choose.uniform())), size)
    return Made({"references": (word,) * 10, "question": "Which word is written here?"}, {"word": word}, image=image)


def vqa(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """How many things, or the colour of one of them: which is asked, and every answer to it, is drawn alike."""
    things, question, answer = _asked(choose, level)
    text = f"{' '.join(question).capitalize()}?"
    return Made({"references": (answer,), "question": text}, {"things": things, "answer": answer}, image=paint(things))


def isqa(choose: np.random.Generator, level: Level, speech: Speech) -> Made:
    """The same, spoken."""
    things, question, answer = _asked(choose, level)
    sound, times = say(question, int(choose.integers(len(VOICES))), speech, gap=0.06)
    truth = {"things": things, "answer": answer, "words": question, "times": times}
    return Made({"references": (answer,)}, truth, image=paint(things), sound=noisy(sound, level, choose))


def _asked(choose: np.random.Generator, level: Level) -> tuple[list[Thing], list[str], str]:
    kind = int(choose.integers(3))
    if kind == 0:
        count = int(choose.integers(1, level.things, endpoint=True))
        number = ("one", "two", "three", "four")[count - 1]
        return draw_things(count, choose), ["how", "many", "shapes", "are", "there"], number
    things = draw_things(int(choose.integers(2, level.things, endpoint=True)), choose)
    taken = {thing.shape for thing in things[1:]}
    things[0] = things[0]._replace(shape=pick(choose, [shape for shape in SHAPES if shape not in taken])[0])
    if kind == 1:
        return things, ["which", "colour", "is", "the", things[0].shape], things[0].colour
    return things, ["which", "shape", "is", things[0].colour], things[0].shape
