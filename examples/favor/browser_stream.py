"""Pictures and sound that a browser hands over bit by bit, as a stream that is opened like any other."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av import AudioFrame, AudioResampler, VideoFrame

RATE = 16000  # samples a second
OFF = 0.5  # seconds by which sound may come off its clock: browsers hand it over in lumps
_MILLISECOND = Fraction(1, 1000)


class BrowserStream:
    """Writes what comes to a pipe, with the time at which it came.

    ``open_live(stream.reading, **stream.options)`` opens the other end.

    Args:
        size: ``(height, width)`` of the pictures in it.
        picture: whether pictures will come.
        sound: whether sound will.
        clock: tells the time in seconds.
    """

    # The streams are described in full: nothing needs to be looked at before they are read.
    options: dict[str, Any] = {  # noqa: RUF012
        "format": "nut",
        "options": {"fpsprobesize": "0", "probesize": "100000", "analyzeduration": "1"},
    }

    def __init__(
        self, *, size: tuple[int, int], picture: bool, sound: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reading, writing = os.pipe()
        self._file = os.fdopen(writing, "wb", buffering=0)
        self._lock, self._clock = threading.Lock(), clock
        settings = {"flush_packets": "1", "max_interleave_delta": "1"}  # everything goes out as it comes
        self._container = av.open(self._file, "w", format="nut", options=settings)
        self._picture: Any = None
        self._sound: Any = None
        if picture:
            seen: Any = self._container.add_stream("rawvideo", rate=30)
            seen.height, seen.width = size
            seen.pix_fmt, seen.codec_context.time_base = "rgb24", _MILLISECOND
            self._picture = seen
        if sound:
            heard: Any = self._container.add_stream("pcm_s16le", rate=RATE)
            heard.layout = "mono"
            self._sound = heard
        self._container.start_encoding()
        self._size, self._began, self._ended = size, clock(), False
        self._resampler: Any = None
        self._kind: tuple[int, int] | None = None
        self._shown, self._heard = -1, 0  # milliseconds of the last picture; the place of the next sample

    def show(self, picture: np.ndarray[Any, Any] | None) -> None:
        """A picture ``(height, width, 3)`` uint8 that is seen now."""
        if picture is None or self._picture is None:
            return
        with self._lock:
            at = max(self._shown + 1, round(1000 * (self._clock() - self._began)))
            height, width = self._size
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture[..., :3]), format="rgb24")
            frame = frame.reformat(width=width, height=height)
            frame.pts, frame.time_base, self._shown = at, _MILLISECOND, at
            self._write(self._picture, frame)

    def sound(self, rate: int, samples: np.ndarray[Any, Any]) -> None:
        """Sound ``(sample,)`` or ``(sample, channel)`` int16 that has just been heard."""
        if self._sound is None or not len(samples):
            return
        with self._lock:
            channels = samples.reshape(len(samples), -1)[:, :2]
            if self._kind != (rate, channels.shape[1]):
                self._kind = (rate, channels.shape[1])
                self._resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
            layout = "mono" if channels.shape[1] == 1 else "stereo"
            lump = AudioFrame.from_ndarray(channels.astype(np.int16).reshape(1, -1), format="s16", layout=layout)
            lump.sample_rate = rate
            begun = round((self._clock() - self._began - len(samples) / rate) * RATE)
            if begun > self._heard + OFF * RATE:  # nothing was handed over for a while
                self._heard = begun
            for frame in self._resampler.resample(lump):
                frame.pts, frame.time_base = self._heard, Fraction(1, RATE)
                self._heard += frame.samples
                self._write(self._sound, frame)

    def end(self) -> None:
        """Nothing more will come."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            with contextlib.suppress(BrokenPipeError):  # nobody reads any more
                self._container.close()
            with contextlib.suppress(BrokenPipeError):
                self._file.close()

    def close(self) -> None:
        """Closes both ends; after whoever reads has gone."""
        os.close(self.reading)  # first, so that no one goes on waiting for a reader
        self.end()

    def _write(self, stream: Any, frame: Any) -> None:
        if not self._ended:
            with contextlib.suppress(BrokenPipeError):
                self._container.mux(stream.encode(frame))
