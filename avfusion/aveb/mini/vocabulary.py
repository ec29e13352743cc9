"""Everything that can be seen, heard and said in the miniature."""

from avfusion.aveb._synthesis import Voice

SIDE = 64
"""Pixels of a picture's sides."""

FRAME_RATE = 8.0
"""Pictures a second of all videos."""

COLOURS = {
    "red": (225, 30, 30),
    "green": (30, 190, 40),
    "blue": (40, 70, 235),
    "yellow": (235, 220, 30),
    "purple": (190, 40, 215),
    "white": (245, 245, 245),
}
"""Red, green and blue, 0 to 255, of everything that is shown, by name."""

SHAPES = ("circle", "square", "triangle", "cross")
"""Shapes of things in pictures."""

SOUNDS = ("beep", "hum", "siren", "chirp", "hiss", "clicks", "buzz", "bell")
"""Sound events."""

DIGITS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
"""Numbers that are spoken, from one on."""

DIRECTIONS = ("left", "right", "up", "down")

SPOKEN = (*COLOURS, *DIGITS, *DIRECTIONS)
"""Words that transcripts are made of."""

QUESTION_WORDS = ("which", "colour", "is", "the", "how", "many", "shapes", "are", "there", "shape", *SHAPES)
"""Words that spoken questions are made of beside colours."""

VOICES = (
    Voice("gmw/en-US", 150, 50),
    Voice("gmw/en", 165, 85),
    Voice("gmw/en-US+m4", 140, 35),
    Voice("gmw/en-GB-scotland", 180, 70),
)
"""The synthesiser's voices.

Its female variants are left out: they breathe at random, so that no two runs are alike."""
