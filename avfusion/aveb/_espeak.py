"""Says texts in a process of its own: ``python _espeak.py FILE``, with voices and texts as JSON on its input.

It is run as a file, and imports nothing of the library, so that it starts at once.
"""

import ctypes
import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 22050
_PCM, _UTF8, _SPEED, _PITCH = 1, 1, 1, 3  # constants of the library's header


class Synthesiser:
    """The library itself; one per process."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        data = str(espeakng_loader.get_data_path()).encode()
        if self._library.espeak_Initialize(_PCM, 0, data, 0) != RATE:
            raise RuntimeError(f"eSpeak NG must give {RATE} samples a second")
        self._pieces: list[bytes] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)  # kept alive as long as the library may call it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, text: str, voice: str, speed: int, pitch: int) -> NDArray[np.float32]:
        self._pieces.clear()
        given = text.encode()
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {voice}")
        self._library.espeak_SetParameter(_SPEED, speed, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        if self._library.espeak_Synth(given, len(given) + 1, 0, 0, 0, _UTF8, None, None):
            raise RuntimeError(f"eSpeak NG cannot say {text!r}")
        self._library.espeak_Synchronize()
        return np.frombuffer(b"".join(self._pieces), np.int16).astype(np.float32) / np.float32(32768)


def _trimmed(samples: NDArray[np.float32], text: str) -> NDArray[np.float32]:
    """Without the silence around it, and as loud as all others."""
    if not samples.any():
        raise ValueError(f"there is nothing to say in {text!r:.80}")
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    kept = samples[loud[0] : loud[-1] + 1]
    return np.asarray((0.12 * kept / np.sqrt(np.mean(kept**2))).clip(-0.9, 0.9), np.float32)


def main(path: str, voices: list[tuple[str, int, int]], texts: list[str]) -> None:
    """Says every text in every voice and writes them down."""
    synthesiser = Synthesiser()
    said = {
        f"{number} {place}": _trimmed(synthesiser.say(text, *voice), text)
        for number, voice in enumerate(voices)
        for place, text in enumerate(texts)
    }
    np.savez(path, allow_pickle=False, **said)


if __name__ == "__main__":
    main(sys.argv[1], **json.load(sys.stdin))
