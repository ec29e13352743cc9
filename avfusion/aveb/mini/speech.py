"""Spoken words, by eSpeak NG as the package espeakng-loader brings it.

The synthesiser goes on from what it said last, so that only a process of its own that says all words in one order says
them alike every time.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avfusion.aveb.mini.vocabulary import QUESTION_WORDS, SPOKEN, VOICES
from avfusion.errors import InvalidValueError

Speech = dict[tuple[int, str], NDArray[np.float32]]
"""Samples of each word by voice and word."""


def speak_all() -> Speech:
    """Every word in every voice, without the silence around it.

    Raises:
        ImportError: espeakng-loader is missing.
        InvalidValueError: the synthesiser failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "words.npz")
        command = [sys.executable, str(Path(__file__).with_name("_espeak.py")), str(file)]
        wanted = json.dumps({"voices": VOICES, "words": list(dict.fromkeys((*SPOKEN, *QUESTION_WORDS)))})
        done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            if "espeakng_loader" in last:
                raise ImportError("speech needs espeakng-loader: pip install avfusion[aveb]")
            raise InvalidValueError(f"speech: the synthesiser failed ({last})")
        with np.load(file) as words:
            names = (name.split(" ", 1) for name in words.files)
            return {(int(voice), word): words[f"{voice} {word}"] for voice, word in names}
