"""What the tests of live sources share: a clock that they turn, and chunks put together."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avfusion.media import LiveChunk, LiveSource, Media
from tests.media.files import grey, tone, write


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def clip(path: Path, *, seconds: float = 2.0, audio_codec: str = "aac", start: float = 0.0, **options: Any) -> Path:
    """Frames of rising levels at 10 a second, and a tone that rises with time, so that no two moments are alike."""
    count = round(10 * seconds)
    given: dict[str, Any] = {
        "pixels": grey([10 + 230 * index // count for index in range(count)]),
        "times": [start + index / 10 for index in range(count)],
        "samples": tone(200, seconds, 48000)[None] * torch.linspace(0.1, 1, round(48000 * seconds)),
        "audio_codec": audio_codec,
        "sound_at": ((start, 0),),
    }
    return write(path, **{**given, **options})


@contextmanager
def pipe_of(*pieces: bytes, hold: threading.Event | None = None) -> Iterator[int]:
    """The number of a pipe to which a thread writes; it stays open until ``hold`` is set."""
    reading, writing = os.pipe()

    def fill() -> None:
        with open(writing, "wb") as file:  # noqa: PTH123  # it has no path
            try:
                for piece in pieces:
                    file.write(piece)
                    file.flush()
                if hold is not None:
                    hold.wait()
            except BrokenPipeError:
                return

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield reading
    finally:
        if hold is not None:
            hold.set()
        os.close(reading)
        thread.join()


def pixels_of(chunks: Sequence[LiveChunk]) -> Tensor:
    return torch.cat([chunk.video.pixels[0] for chunk in chunks if chunk.video is not None])


def spans_of(chunks: Sequence[LiveChunk]) -> Tensor:
    return torch.cat([chunk.video.spans[0] for chunk in chunks if chunk.video is not None])


def samples_of(chunks: Sequence[LiveChunk]) -> Tensor:
    """The audio, each chunk's at its time, NaN where there is none."""
    waves = [chunk.waveform for chunk in chunks if chunk.waveform is not None]
    places = [round(float(wave.start) * wave.sample_rate) for wave in waves]
    samples = torch.full((places[-1] + waves[-1].samples.shape[1],), torch.nan)
    for place, wave in zip(places, waves, strict=True):
        assert samples[place : place + wave.samples.shape[1]].isnan().all()
        samples[place : place + wave.samples.shape[1]] = wave.samples[0]
    return samples


def kinds_of(chunks: Sequence[LiveChunk]) -> set[str]:
    return {fault.kind for chunk in chunks for fault in chunk.report.faults}


def settle(live: LiveSource) -> None:
    """Waits until the source has been decoded to its end."""
    for thread in live._threads:
        thread.join()


def assert_same(chunks: Sequence[LiveChunk], media: Media) -> None:
    """Asserts that the chunks are the clip, to the bit, and in order."""
    if media.video is None:
        assert all(chunk.video is None for chunk in chunks)
    else:
        assert torch.equal(pixels_of(chunks), media.video.pixels[0])
        assert torch.equal(spans_of(chunks), media.video.spans[0])
    waves = [chunk.waveform for chunk in chunks if chunk.waveform is not None]
    if media.waveform is None:
        assert not waves
    else:
        assert torch.equal(torch.cat([wave.samples for wave in waves], 1), media.waveform.samples)
        assert torch.equal(waves[0].start, media.waveform.start)
        at = float(media.waveform.start)
        for wave in waves:  # each begins where the one before it ended
            assert abs(float(wave.start) - at) < 1e-9
            at = float(wave.start) + wave.samples.shape[1] / wave.sample_rate
    assert [chunk.ended for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
