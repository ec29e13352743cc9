"""What an item of the miniature is made from, and how hard it is."""

from typing import Any, Literal, NamedTuple

import numpy as np

from avfusion.aveb.mini.pictures import Picture, Thing
from avfusion.aveb.mini.sounds import Samples
from avfusion.aveb.mini.vocabulary import COLOURS, SHAPES, SIDE

Difficulty = Literal["easy", "medium", "hard"]
"""How hard a set is: a key of :data:`~avfusion.aveb.mini.LEVELS`."""


class Level(NamedTuple):
    """How hard a set is.

    Attributes:
        words: fewest and most words that are spoken.
        things: most things in a picture.
        events: fewest and most events of a clip; each is a second or so.
        noise: of the sound, beside a loudness of 0.12.
    """

    words: tuple[int, int]
    things: int
    events: tuple[int, int]
    noise: float


LEVELS: dict[Difficulty, Level] = {
    "easy": Level(words=(2, 3), things=2, events=(3, 4), noise=0.0),
    "medium": Level(words=(2, 5), things=3, events=(4, 6), noise=0.01),
    "hard": Level(words=(3, 8), things=4, events=(6, 10), noise=0.04),
}
"""Words, things, events and noise of each difficulty."""


class Made(NamedTuple):
    """One item before it is written.

    Attributes:
        record: fields of the record, without its files.
        truth: what is in the media, for the oracle and for tests.
        image: a still picture.
        frames: moving pictures, at :data:`~avfusion.aveb.mini.vocabulary.FRAME_RATE`.
        sound: of the video if there is one, else by itself.
    """

    record: dict[str, Any]
    truth: dict[str, Any]
    image: Picture | None = None
    frames: list[Picture] | None = None
    sound: Samples | None = None


def noisy(sound: Samples, level: Level, choose: np.random.Generator) -> Samples:
    """With the level's noise."""
    return (sound + level.noise * choose.standard_normal(len(sound), np.float32)).clip(-1, 1)


def draw_things(count: int, choose: np.random.Generator, *, shapes: tuple[str, ...] | None = None) -> list[Thing]:
    """Things of different colours and, as far as they go, shapes, beside each other."""
    colours = choose.permutation([*COLOURS])[:count]
    kinds = choose.permutation([*SHAPES])[:count] if shapes is None else np.array(shapes)
    columns = 1 if count == 1 else 2
    rows = -(-count // columns)
    radius = min(SIDE / columns, SIDE / rows) / 2.6
    cells = choose.permutation(rows * columns)[:count]
    return [
        Thing(
            str(colour),
            str(shape),
            (cell % columns + 0.5) * SIDE / columns + float(choose.uniform(-3, 3)),
            (cell // columns + 0.5) * SIDE / rows + float(choose.uniform(-3, 3)),
            radius * float(choose.uniform(0.8, 1)),
        )
        for colour, shape, cell in zip(colours, kinds, cells, strict=True)
    ]


def pick(choose: np.random.Generator, values: Any, count: int = 1, *, repeat: bool = False) -> list[Any]:
    """Some of the values, in a drawn order."""
    values = list(values)
    return [values[place] for place in choose.choice(len(values), count, replace=repeat)]
