"""Resampling audio of any layout and rate to mono."""

import itertools
import math
from fractions import Fraction

import torch
from av import AudioFrame
from av.filter import Graph
from torch import Tensor

_FILTER = 64  # samples of the lower rate, more than the filter spans


class Resampler:
    """Resamples a stream of audio frames.

    Args:
        frame: the first frame; all others have the same format.
        rate: sample rate of the result.
        skip: samples to drop at the beginning.
    """

    def __init__(self, frame: AudioFrame, rate: int, skip: int = 0) -> None:
        self._graph = Graph()
        source = self._graph.add(
            "abuffer",
            sample_rate=str(frame.sample_rate),
            sample_fmt=frame.format.name,
            channel_layout=frame.layout.name,
            time_base=f"1/{frame.sample_rate}",
        )
        # FFmpeg's filter returns nothing for fewer samples than its length, 22 at the lower rate: so audio is padded.
        self._least = 0 if rate == frame.sample_rate else math.ceil(_FILTER * max(1.0, frame.sample_rate / rate))
        self._ratio, self._came, self._gave = Fraction(rate, frame.sample_rate), -skip, 0
        nodes = [source]
        if skip:
            nodes.append(self._graph.add("atrim", f"start_sample={skip}"))
        if weights := _weights(frame):
            nodes.append(self._graph.add("pan", "mono|c0=" + "+".join(f"{by:.17f}*c{at}" for at, by in weights)))
        if self._least:
            nodes.append(self._graph.add("apad", f"whole_len={self._least}"))
        # FFmpeg mixes integers down without clipping, but adds 3 dB to floats.
        nodes.append(self._graph.add("aformat", f"sample_fmts=s32:channel_layouts=mono:sample_rates={rate}"))
        nodes.append(self._graph.add("abuffersink"))
        for node, following in itertools.pairwise(nodes):
            node.link_to(following)
        self._graph.configure()

    def resample(self, frame: AudioFrame | None) -> list[Tensor]:
        """``(sample,)`` int32: samples that this frame completes; all remaining samples for None."""
        self._graph.push(frame)
        self._came += 0 if frame is None else frame.samples
        out: list[Tensor] = []
        while True:
            try:
                piece = self._graph.pull()
            except (BlockingIOError, EOFError):
                return out
            assert isinstance(piece, AudioFrame)
            samples = torch.frombuffer(bytearray(piece.planes[0]), dtype=torch.int32)[: piece.samples]
            if frame is None and self._came < self._least:
                samples = samples[: max(0, math.ceil(self._came * self._ratio) - self._gave)]
            self._gave += samples.shape[0]
            out.append(samples)


def _weights(frame: AudioFrame) -> list[tuple[int, float]]:
    """Channels and their weights, for a layout that FFmpeg does not mix down."""
    name, count = frame.layout.name, frame.layout.nb_channels
    if name.startswith("ambisonic"):
        return [(0, 1.0)]  # omnidirectional channels
    if name == f"{count} channels" and (count > 1):
        return [(channel, 1 / count) for channel in range(count)]
    return []


def period(rate_in: int, rate_out: int) -> int:
    """Samples after which the sampling times of two rates coincide again."""
    return rate_in // math.gcd(rate_in, rate_out)
