"""Decoded sound of any kind to a :class:`~avfusion.Waveform`, with every sample at its time."""

import math
from fractions import Fraction

import torch
from av import AudioFrame, AudioResampler
from torch import Tensor

from avfusion.errors import MediaError
from avfusion.media._time import LONGEST_GAP, TICK, seconds
from avfusion.types import Waveform

_JUMP = 0.1  # seconds by which a time may differ from the count of samples before it is a gap rather than rounding
_BACK = 1.0  # seconds that a time may jump back, replacing what was there; a clock that runs slow does so a little
_LEAD = 0.1  # seconds beside the clip that are resampled with it, so that the filter has run in at its edges


class Sound:
    """Takes decoded sound in order and keeps what a clip ``[begin, end)`` needs of it.

    Args:
        zero: seconds on the file's clock that the clip's clock calls 0, before ``begin``.
        begin: seconds at which the clip begins.
        end: seconds at which it ends; ``inf`` for the whole file.
        sample_rate: samples a second of what is kept.
    """

    def __init__(self, *, zero: Fraction, begin: float, end: float, sample_rate: int) -> None:
        self.first: float | None = None
        self.end = -math.inf
        self.done = False
        self._origin = zero + Fraction(begin)
        self._length = end - begin
        self._sample_rate = sample_rate
        self._resampler: AudioResampler | None = None
        self._kind: tuple[int, str, str] | None = None
        self._runs: list[tuple[float, list[Tensor]]] = []  # gapless stretches: when each begins, its samples
        self._run_start = 0.0
        self._run_count = 0

    def add(self, frame: AudioFrame) -> None:
        expected = self._run_start + self._run_count / self._kind[0] if self._kind else 0.0
        heard = seconds(frame.pts, frame.time_base)
        time = expected if heard is None else float(heard - self._origin)
        lasts = _duration(frame)
        if self.first is None:
            self.first = time
        self.end = time + lasts
        self.done = time >= self._length + _LEAD
        if self.done or time + lasts < -_LEAD:
            return
        kind = (frame.sample_rate, frame.layout.name, frame.format.name)
        if kind != self._kind or abs(time - expected) > _JUMP:
            if self._kind and time < expected - _BACK:
                raise MediaError(f"sound times go back, from {expected:.3f} s to {time:.3f} s")
            if self._kind and time > expected + LONGEST_GAP:
                raise MediaError(f"sound times jump, from {expected:.3f} s to {time:.3f} s")
            self._close_run()
            # Asked for integers FFmpeg mixes down without exceeding full scale; asked for floats it adds 3 dB.
            self._resampler = AudioResampler(format="s32", layout="mono", rate=self._sample_rate)
            self._kind, self._run_start, self._run_count = kind, time, 0
            self._runs.append((time, []))
        self._run_count += frame.samples
        self._resample(frame)

    def _resample(self, frame: AudioFrame | None) -> None:
        assert self._resampler is not None
        for out in self._resampler.resample(frame):
            if out is not None:  # what a resampler with nothing to do answers to the end of the stream
                samples = torch.frombuffer(bytearray(out.planes[0]), dtype=torch.int32)[: out.samples]
                self._runs[-1][1].append(samples)

    def _close_run(self) -> None:
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None

    def finish(self) -> Waveform | None:
        """The sound of the clip, or None where it has none."""
        self._close_run()
        if not self._runs:
            return None
        begin, rate = min(time for time, _ in self._runs), self._sample_rate
        starts = [round((time - begin) * rate) for time, _ in self._runs]
        counts = [sum(chunk.shape[0] for chunk in chunks) for _, chunks in self._runs]
        samples = torch.zeros(max(start + count for start, count in zip(starts, counts, strict=True)))
        for start, (_, chunks) in zip(starts, self._runs, strict=True):
            if chunks:
                run = torch.cat(chunks)
                torch.div(run, 2.0**31, out=samples[start : start + run.shape[0]])
        first = max(0, math.ceil(-begin * rate - 1e-6))
        last = math.ceil((min(self.end, self._length) - begin - TICK) * rate)
        samples = samples[first : max(first, last)]
        if samples.shape[0] == 0:
            return None
        begin = max(0.0, begin + first / rate)
        self.end = min(self._length, begin + samples.shape[0] / rate)
        return Waveform.from_samples([samples.clone()], rate, start=begin)


def _duration(frame: AudioFrame) -> float:
    samples, stated = Fraction(frame.samples, frame.sample_rate), seconds(frame.duration, frame.time_base)
    # An encoder fills up its last frame, and some containers tell how much of it is real; others round.
    if stated and frame.time_base and samples - stated > frame.time_base:
        return float(stated)
    return float(samples)
