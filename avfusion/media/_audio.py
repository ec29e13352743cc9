"""Places decoded audio on the clip's clock as a :class:`~avfusion.Waveform`."""

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

JUMP = 0.1  # largest rounding error in seconds between a timestamp and the sample count; more is a gap
BACK = 1.0  # seconds that a timestamp may go back, with overlapping audio; a slow clock does so
_LEAD = 0.1  # seconds beyond the clip that are resampled, for the filter's transient


class AudioSegment(NamedTuple):
    """A segment of audio.

    Attributes:
        place: index of its first sample.
        samples: ``(sample,)`` float32.
    """

    place: int
    samples: Tensor

    @property
    def stop(self) -> int:
        return self.place + self.samples.shape[0]


class AudioCollector:
    """Collects the audio of a clip ``[begin, end)`` from decoded frames.

    Args:
        zero: seconds on the file's clock at which the clip's clock is 0, before ``begin``.
        begin: start of the clip in seconds.
        end: end of the clip in seconds; ``inf`` for the whole file.
        sample_rate: sample rate of the result in Hz.
        limits: limits on samples that were not taken yet.
    """

    def __init__(self, *, zero: Fraction, begin: float, end: float, sample_rate: int, limits: MediaLimits) -> None:
        self.first: float | None = None
        self.end = -math.inf
        self.done = False
        self.begin = 0.0  # time of sample 0
        self._origin = zero + Fraction(begin)
        self._begin, self._length = begin, end - begin
        self._sample_rate = sample_rate
        self._limits = limits
        self._gaps = Gaps("audio", limits)
        self._resampler: Resampler | None = None
        self._kind: tuple[int, str, str] | None = None
        self._run_start = 0.0  # of the current segment: its start time and number of samples
        self._run_count = 0
        self._place = 0  # index of the resampler's next sample
        self._stop = 0  # all earlier samples have arrived
        self._taken = 0  # all earlier samples have been taken
        self._waiting: list[AudioSegment] = []

    def add(self, frame: AudioFrame) -> float:
        """Adds a frame, and returns by how many seconds it is late; negative if it is early."""
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
                raise BackwardsError(f"audio times go back, from {expected:.3f} s to {time:.3f} s")
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
        """Starts to resample with this frame, unless it ends before the clip.

        Samples before the clip are dropped in whole periods of the two rates, so that a clip has the samples of the
        whole file.
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
            raise MediaError(f"its audio ({kind}) cannot be mixed down to one channel") from error
        self._resample(frame)

    def _resample(self, frame: AudioFrame | None) -> None:
        assert self._resampler is not None
        for samples in self._resampler.resample(frame):
            # Overlapping samples are dropped: samples that were taken cannot be replaced.
            fresh = samples[max(0, self._stop - self._place) :]
            self._place += samples.shape[0]
            if fresh.shape[0]:
                self._waiting.append(AudioSegment(self._place - fresh.shape[0], fresh / 2.0**31))
                self._stop = self._place

    def close(self) -> None:
        """Ends the current segment, so that the samples in the resampler can be taken."""
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None

    def take(self) -> list[AudioSegment]:
        """The audio of the clip that was added since the last call, in order."""
        first, last = self._edges()
        last = min(last, self._stop)
        taken = [_cut(heard, first, last) for heard in self._waiting]
        self._waiting = [kept for heard in self._waiting if (kept := _cut(heard, last, heard.stop)).samples.shape[0]]
        self._taken = max(self._taken, last)
        return [heard for heard in taken if heard.samples.shape[0]]

    @property
    def watermark(self) -> float:
        """Seconds up to which all audio has been taken."""
        return self.begin + self._taken / self._sample_rate

    def _edges(self) -> tuple[int, int]:
        """Indices between which samples are in the clip and before the stated end of the frames."""
        rate, until = self._sample_rate, min(self.end, self._length)
        if until == -math.inf:
            return 0, 0
        first = max(0, math.ceil(-self.begin * rate - 1e-6))
        return first, max(first, math.ceil((until - self.begin - TICK) * rate))

    def finish(self) -> Waveform | None:
        """The audio of the clip, or None."""
        self.close()
        heard, (first, _) = self.take(), self._edges()
        if not heard:
            return None
        samples = lay(heard, first, max(piece.stop for piece in heard))
        begin = max(0.0, self.begin + first / self._sample_rate)
        self.end = min(self._length, begin + samples.shape[0] / self._sample_rate)
        return Waveform.from_samples([samples], self._sample_rate, start=begin)


def lay(heard: Sequence[AudioSegment], first: int, last: int) -> Tensor:
    """``(sample,)``: samples ``first`` to ``last``, with silence in gaps."""
    samples = torch.zeros(last - first)
    for piece in heard:
        part = _cut(piece, first, last)
        samples[part.place - first : part.stop - first] = part.samples
    return samples


def _cut(heard: AudioSegment, first: int, last: int) -> AudioSegment:
    low, high = max(first, heard.place), min(last, heard.stop)
    return AudioSegment(low, heard.samples[low - heard.place : max(low, high) - heard.place])


def _duration(frame: AudioFrame) -> float:
    samples, stated = Fraction(frame.samples, frame.sample_rate), seconds(frame.duration, frame.time_base)
    # Encoders pad their last frame. Some containers state its real length; others round it.
    if stated and frame.time_base and samples - stated > frame.time_base:
        return float(stated)
    return float(samples)
