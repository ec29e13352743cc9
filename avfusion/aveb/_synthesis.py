"""Speech by eSpeak NG, as the package espeakng-loader brings it.

The synthesiser goes on from what it said last, so that only a process of its own that says all texts in one order says
them alike every time.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise ImportError("speech needs numpy and espeakng-loader: pip install avfusion[aveb]") from error

from avfusion.errors import InvalidValueError

RATE = 22050
"""Samples per second."""


class Voice(NamedTuple):
    """A voice by the synthesiser's name for it, its speed in words per minute, and its pitch, 0 to 99."""

    name: str
    speed: int = 160
    pitch: int = 50


def synthesise(texts: Sequence[str], voices: Sequence[Voice]) -> dict[tuple[int, int], NDArray[np.float32]]:
    """Samples of each text by voice and text, all of one loudness and without the silence around them.

    Raises:
        ImportError: espeakng-loader is missing.
        InvalidValueError: the synthesiser failed, for want of a voice or because there is nothing to say.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "said.npz")
        command = [sys.executable, str(Path(__file__).with_name("_espeak.py")), str(file)]
        wanted = json.dumps({"voices": voices, "texts": texts})
        done = subprocess.run(command, input=wanted, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            if "espeakng_loader" in last:
                raise ImportError("speech needs espeakng-loader: pip install avfusion[aveb]")
            raise InvalidValueError(f"speak: eSpeak NG failed ({last})")
        with np.load(file) as said:
            return {
                (voice, text): said[f"{voice} {text}"] for voice in range(len(voices)) for text in range(len(texts))
            }
