"""Media files whose every frame and sample is known."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

MILLISECOND = Fraction(1, 1000)


def tone(frequency: float, seconds: float, rate: int, *, onset: float = 0.0, amplitude: float = 0.5) -> Tensor:
    """``(sample,)``: silence, then a sine that begins at its zero."""
    times = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    sine = amplitude * torch.sin(2 * math.pi * frequency * (times - onset))
    return torch.where(times >= onset, sine, 0.0).float()


def grey(levels: Sequence[int], height: int = 24, width: int = 32) -> Tensor:
    """``(frame, 3, height, width)`` uint8: one level a frame, so that each can be told from the others."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, height, width)


def levels_of(pixels: Tensor) -> list[float]:
    """The level of each frame of ``(frame, 3, height, width)``."""
    return pixels.float().mean((1, 2, 3)).tolist()


def write(
    path: Path,
    *,
    pixels: Tensor | None = None,
    times: Sequence[float] = (),
    video_codec: str = "libx264",
    pixel_format: str = "yuv444p",
    rotation: tuple[float, bool, bool] | None = None,
    samples: Tensor | None = None,
    rate: int = 48000,
    audio_codec: str = "aac",
    layout: str = "mono",
    sound_at: Sequence[tuple[float, int]] = ((0.0, 0),),
    options: dict[str, str] | None = None,
) -> Path:
    """Writes frames at ``times`` and ``samples`` ``(channel, sample)`` as given.

    ``sound_at`` holds pairs (seconds, index of the first sample that is there): more than one makes gaps.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        picture: Any = container.add_stream(video_codec, rate=25) if pixels is not None else None
        sound: Any = container.add_stream(audio_codec, rate=rate) if samples is not None else None
        if samples is not None:
            sound.layout = layout
        if pixels is not None:
            picture.height, picture.width = pixels.shape[2:]
            picture.pix_fmt = pixel_format
            picture.codec_context.time_base = MILLISECOND
            if video_codec == "libx264":
                picture.options = {"crf": "8", "preset": "ultrafast", "g": "10", "bf": "0"}
            if rotation is not None:
                picture.set_display_rotation(*rotation)
            for image, time in zip(pixels, times, strict=True):
                container.mux(picture.encode(picture_frame(image, round(time * 1000))))
            container.mux(picture.encode(None))
        if samples is not None:
            stops = [first for _, first in sound_at[1:]] + [samples.shape[1]]
            for (time, first), stop in zip(sound_at, stops, strict=True):
                container.mux(sound.encode(sound_frame(samples[:, first:stop], round(time * rate), rate, layout)))
            container.mux(sound.encode(None))
    return path


def picture_frame(image: Tensor, milliseconds: int) -> av.VideoFrame:
    height, width = image.shape[1:]
    frame = av.VideoFrame.from_ndarray(image.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
    assert (frame.height, frame.width) == (height, width)
    frame.pts, frame.time_base = milliseconds, MILLISECOND
    return frame


def sound_frame(samples: Tensor, place: int, rate: int, layout: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples.contiguous().numpy(), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
    return frame
