"""Pictures of shapes and of words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avfusion.aveb.mini.vocabulary import COLOURS, SIDE

Picture = NDArray[np.uint8]


class Thing(NamedTuple):
    """A coloured shape at a place, in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """``"red circle"``."""
        return f"{self.colour} {self.shape}"


def paint(things: Sequence[Thing], background: int = 40) -> Picture:
    """``(height, width, 3)``: things on grey."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    picture = np.full((SIDE, SIDE, 3), background, np.uint8)
    for thing in things:
        x, y, r = columns - thing.x, rows - thing.y, thing.radius
        inside = {
            "circle": x**2 + y**2 < r**2,
            "square": np.maximum(np.abs(x), np.abs(y)) < 0.85 * r,
            "triangle": (y < 0.8 * r) & (y > 2 * np.abs(x) - r),
            "cross": (np.minimum(np.abs(x), np.abs(y)) < 0.3 * r) & (np.maximum(np.abs(x), np.abs(y)) < r),
        }[thing.shape]
        picture[inside] = COLOURS[thing.colour]
    return picture


def write(text: str, colour: str, place: tuple[float, float], size: int, background: int = 40) -> Picture:
    """``(height, width, 3)``: a word; ``place`` is 0 … 1 of the room that it leaves."""
    image = Image.new("RGB", (SIDE, SIDE), (background,) * 3)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    corner = (place[0] * max(SIDE - (right - left), 0) - left, place[1] * max(SIDE - (bottom - top), 0) - top)
    draw.text(corner, text, COLOURS[colour], font=font)
    return np.asarray(image)
