"""Decoded sound of any kind to a :class:`~avfusion.Waveform`, with every sample at its time."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from av import AudioFrame, FFmpegError
from torch import Tensor

from avfusion.errors import MediaError
from avfusion.media._limits import Gaps, MediaLimits, check_samples
from avfusion.media._resampling import Resampler, period
from avfusion.media._time import TICK, BackwardsError, seconds
from avfusion.types import Waveform

JUMP = 0.1  # seconds by which a time may differ from the count of samples before it is a gap rather than rounding
BACK = 1.0  # seconds that a time may jump back, saying again what was there; a clock that runs slow does so a little
_LEAD = 0.1  # seconds beside the clip that are resampled with it, so that the filter has run in at its edges


class Heard(NamedTuple):
    """A stretch of sound.

    Attributes:
        place: of its first sample, counted from the beginning of the sound.
        samples: ``(sample,)`` float32.
    """

    place: int
    samples: Tensor

    @property
    def stop(self) -> int:
        return self.place + self.samples.shape[0]


class Sound:
    """Takes decoded sound in order and keeps what a clip ``[begin, end)`` needs of it.

    Args:
        zero: seconds on the file's clock that the clip's clock calls 0, before ``begin``.
        begin: seconds at which the clip begins.
        end: seconds at which it ends; ``inf`` for the whole file.
        sample_rate: samples a second of what is kept.
        limits: on what is kept until it is taken.
    """

    def __init__(self, *, zero: Fraction, begin: float, end: float, sample_rate: int, limits: MediaLimits) -> None:
        self.first: float | None = None
        self.end = -math.inf
        self.done = False
        self.begin = 0.0  # when the sample at place 0 is heard
        self._origin = zero + Fraction(begin)
        self._begin, self._length = begin, end - begin
        self._sample_rate = sample_rate
        self._limits = limits
        self._gaps = Gaps("sound", limits)
        self._resampler: Resampler | None = None
        self._kind: tuple[int, str, str] | None = None
        self._run_start = 0.0  # of the gapless stretch that goes on: when it began, and what it took since
        self._run_count = 0
        self._place = 0  # of the next sample that the resampler gives
        self._stop = 0  # no sample before it will come
        self._taken = 0  # nor is any before it here
        self._waiting: list[Heard] = []

    def add(self, frame: AudioFrame) -> float:
        """Takes the next sound, and tells by how many seconds it is later than it should be; earlier, below 0."""
        expected = self._run_start + self._run_count / self._kind[0] if self._kind else -self._begin
        heard = seconds(frame.pts, frame.time_base)
        time = expected if heard is None else float(heard - self._origin)
        lasts = _duration(frame)
        if self.first is None:
            self.first = time
        self.end = max(self.end, time + lasts)
        self.done = time >= self._length + _LEAD
        if self.done:
            return 0.0
        kind, jump = (frame.sample_rate, frame.layout.name, frame.format.name), 0.0
        if kind != self._kind or abs(time - expected) > JUMP:
            if self._kind and time < expected - BACK:
                raise BackwardsError(f"sound times go back, from {expected:.3f} s to {time:.3f} s")
            if self._kind is None:
                self.begin = time
                self._gaps.add(0.0 - self._begin, min(time, self._length), since=0.0 - self._begin)
            else:
                jump = time - expected
                self._gaps.add(max(0.0, expected), max(0.0, time), since=max(0.0, expected))
            self.close()
            self._kind, self._run_start, self._run_count = kind, time, 0
            self._place = round((time - self.begin) * self._sample_rate)
            self._stop = max(self._stop, self._place)
        first, _ = self._edges()
        ahead = round((time + frame.samples / frame.sample_rate - self.begin) * self._sample_rate)
        check_samples(ahead - max(first, self._taken), self._limits)
        if self._resampler is None:
            self._open(frame)
        else:
            self._resample(frame)
        self._run_count += frame.samples
        return jump if abs(jump) > JUMP else 0.0

    def _open(self, frame: AudioFrame) -> None:
        """Begins to resample with this frame, unless all of it lies before the clip.

        What lies before is left out in whole periods of the two rates, so that a clip has the samples of the whole.
        """
        rate, step = frame.sample_rate, period(frame.sample_rate, self._sample_rate)
        first = 0
        if step <= _LEAD / 2 * rate:
            first = max(0, math.floor((-_LEAD - self._run_start) * rate / step)) * step
        skip = first - self._run_count
        if skip >= frame.samples:
            return
        assert skip >= 0
        self._place += first * self._sample_rate // rate
        self._stop = max(self._stop, self._place)
        try:
            self._resampler = Resampler(frame, self._sample_rate, skip)
        except (FFmpegError, ValueError) as error:
            kind = f"{frame.layout.name}, {frame.format.name}, {rate} Hz"
            raise MediaError(f"its sound ({kind}) cannot be mixed down to one channel") from error
        self._resample(frame)

    def _resample(self, frame: AudioFrame | None) -> None:
        assert self._resampler is not None
        for samples in self._resampler.resample(frame):
            # What comes again is left out: what has been taken cannot be replaced.
            fresh = samples[max(0, self._stop - self._place) :]
            self._place += samples.shape[0]
            if fresh.shape[0]:
                self._waiting.append(Heard(self._place - fresh.shape[0], fresh / 2.0**31))
                self._stop = self._place

    def close(self) -> None:
        """Ends the stretch that goes on, so that what the resampler still holds can be taken."""
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None

    def take(self) -> list[Heard]:
        """What has come since the last time and lies in the clip, in order."""
        first, last = self._edges()
        last = min(last, self._stop)
        taken = [_cut(heard, first, last) for heard in self._waiting]
        self._waiting = [kept for heard in self._waiting if (kept := _cut(heard, last, heard.stop)).samples.shape[0]]
        self._taken = max(self._taken, last)
        return [heard for heard in taken if heard.samples.shape[0]]

    @property
    def watermark(self) -> float:
        """Seconds up to which all sound has been taken."""
        return self.begin + self._taken / self._sample_rate

    def _edges(self) -> tuple[int, int]:
        """Places between which sound lies in the clip and before the end that its frames state."""
        rate, until = self._sample_rate, min(self.end, self._length)
        if until == -math.inf:
            return 0, 0
        first = max(0, math.ceil(-self.begin * rate - 1e-6))
        return first, max(first, math.ceil((until - self.begin - TICK) * rate))

    def finish(self) -> Waveform | None:
        """The sound of the clip, or None where it has none."""
        self.close()
        heard, (first, _) = self.take(), self._edges()
        if not heard:
            return None
        samples = lay(heard, first, max(piece.stop for piece in heard))
        begin = max(0.0, self.begin + first / self._sample_rate)
        self.end = min(self._length, begin + samples.shape[0] / self._sample_rate)
        return Waveform.from_samples([samples], self._sample_rate, start=begin)


def lay(heard: Sequence[Heard], first: int, last: int) -> Tensor:
    """``(sample,)``: the sound at places ``first`` to ``last``, silence where there is none."""
    samples = torch.zeros(last - first)
    for piece in heard:
        part = _cut(piece, first, last)
        samples[part.place - first : part.stop - first] = part.samples
    return samples


def _cut(heard: Heard, first: int, last: int) -> Heard:
    low, high = max(first, heard.place), min(last, heard.stop)
    return Heard(low, heard.samples[low - heard.place : max(low, high) - heard.place])


def _duration(frame: AudioFrame) -> float:
    samples, stated = Fraction(frame.samples, frame.sample_rate), seconds(frame.duration, frame.time_base)
    # An encoder fills up its last frame, and some containers tell how much of it is real; others round.
    if stated and frame.time_base and samples - stated > frame.time_base:
        return float(stated)
    return float(samples)
