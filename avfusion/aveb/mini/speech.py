"""The spoken words of the miniature."""

import numpy as np
from numpy.typing import NDArray

from avfusion.aveb._synthesis import synthesise
from avfusion.aveb.mini.vocabulary import QUESTION_WORDS, SPOKEN, VOICES

Speech = dict[tuple[int, str], NDArray[np.float32]]
"""Samples of each word by voice and word."""


def speak_all() -> Speech:
    """Every word in every voice.

    Raises:
        ImportError: espeakng-loader is missing.
    """
    words = list(dict.fromkeys((*SPOKEN, *QUESTION_WORDS)))
    return {(voice, words[place]): samples for (voice, place), samples in synthesise(words, VOICES).items()}
