"""mini-AVEB: the benchmark's eleven tasks on generated media, without downloads.

``generate(folder)`` writes them, as ``python -m avfusion.aveb mini --out FOLDER`` does.
"""

try:
    import av as _av  # noqa: F401
    import numpy as _np  # noqa: F401, ICN001
    import PIL.Image as _Image  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.aveb.mini needs NumPy, Pillow and PyAV: pip install avfusion[aveb]") from error

from avfusion.aveb.mini.generating import MAKERS, SPLITS, generate
from avfusion.aveb.mini.items import LEVELS, Difficulty
from avfusion.aveb.mini.moving import PULSE, SCENE
from avfusion.aveb.mini.oracle import Oracle, judge
from avfusion.aveb.mini.vocabulary import COLOURS, DIGITS, QUESTION_WORDS, SHAPES, SOUNDS, SPOKEN

__all__ = [
    "COLOURS",
    "DIGITS",
    "LEVELS",
    "MAKERS",
    "PULSE",
    "QUESTION_WORDS",
    "SCENE",
    "SHAPES",
    "SOUNDS",
    "SPLITS",
    "SPOKEN",
    "Difficulty",
    "Oracle",
    "generate",
    "judge",
]
