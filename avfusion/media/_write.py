"""Writing video files."""

import os
from fractions import Fraction

import av
import torch
from av import AudioFrame, VideoFrame
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError, MediaError

_SUFFIXES = (".mp4", ".mov", ".mkv")


_SMALL = 256 * 256  # pixels of a frame below which threads cost more than they save


def write_video(
    path: str | os.PathLike[str],
    pixels: Tensor,
    frame_rate: float,
    samples: Tensor | None = None,
    sample_rate: int = 16000,
    *,
    exact_colours: bool = False,
) -> None:
    """Writes an H.264 video (MPEG-4 if FFmpeg was built without x264), with AAC audio if samples are given.

    Args:
        path: ends in ``.mp4``, ``.mov`` or ``.mkv``; an existing file is replaced.
        pixels: ``(frame, 3, height, width)`` uint8 RGB, or floating point from 0 to 1.
        frame_rate: frames per second.
        samples: ``(sample,)`` or ``(2, sample)`` floating point from -1 to 1.
        sample_rate: sample rate of ``samples`` in Hz.
        exact_colours: store colour at full resolution (4:4:4) and high quality; not every player supports it. Always on
            for an odd height or width.

    Raises:
        InvalidValueError: shapes or numbers that cannot be written.
        InvalidTypeError: pixels or samples of another dtype.
        MediaError: the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from avfusion.media import write_video
        >>> tone = torch.sin(torch.arange(16000) * (2 * torch.pi * 440 / 16000))
        >>> write_video(tempfile.mkdtemp() + "/red.mp4", torch.zeros(5, 3, 32, 32), 5.0, samples=0.5 * tone)
    """
    name = os.fspath(path)
    pixels, samples = _checked(name, pixels, frame_rate, samples, sample_rate)
    try:
        _write(name, pixels, Fraction(frame_rate).limit_denominator(1001), samples, sample_rate, exact_colours)
    except av.FFmpegError as error:
        raise MediaError(f"{name}: cannot be written ({error.strerror})") from error


def _checked(
    name: str, pixels: Tensor, frame_rate: float, samples: Tensor | None, sample_rate: int
) -> tuple[Tensor, Tensor | None]:
    if not name.endswith(_SUFFIXES):
        raise InvalidValueError(f"path: must end in one of {', '.join(_SUFFIXES)}, found {name}")
    if pixels.ndim != 4 or pixels.shape[1] != 3 or 0 in pixels.shape:
        raise InvalidValueError(f"pixels: must be (frame, 3, height, width), found shape {tuple(pixels.shape)}")
    if not 0.01 <= frame_rate <= 1000:
        raise InvalidValueError(f"frame_rate: must be between 0.01 and 1000 a second, found {frame_rate}")
    if pixels.is_floating_point():
        pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    elif pixels.dtype != torch.uint8:
        raise InvalidTypeError(f"pixels: must be uint8 or floating point, found {pixels.dtype}")
    if samples is not None:
        samples = samples[None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or samples.shape[0] not in (1, 2) or samples.shape[1] == 0:
            raise InvalidValueError(f"samples: must be (sample,) or (2, sample), found shape {tuple(samples.shape)}")
        if not samples.is_floating_point():
            raise InvalidTypeError(f"samples: must be floating point, found {samples.dtype}")
        if sample_rate != int(sample_rate) or sample_rate <= 0:
            raise InvalidValueError(f"sample_rate: must be a positive whole number of Hz, found {sample_rate}")
        samples = samples.detach().to("cpu", torch.float32)
    return pixels.detach().cpu().permute(0, 2, 3, 1), samples


def _write(
    name: str, pixels: Tensor, frame_rate: Fraction, samples: Tensor | None, sample_rate: int, exact_colours: bool
) -> None:
    x264 = "libx264" in av.codecs_available
    odd = pixels.shape[1] % 2 or pixels.shape[2] % 2
    with av.open(name, "w") as container:
        picture = container.add_stream("libx264" if x264 else "mpeg4", rate=frame_rate)
        picture.height, picture.width = pixels.shape[1:3]
        picture.pix_fmt = "yuv444p" if x264 and (exact_colours or odd) else "yuv420p"
        picture.options = {"crf": "10" if exact_colours else "18", "preset": "veryfast"} if x264 else {"q": "2"}
        if pixels.shape[1] * pixels.shape[2] < _SMALL:
            picture.codec_context.thread_count = 1
        sound = None
        if samples is not None:
            rates = av.Codec("aac", "w").audio_rates or []
            sound = container.add_stream("aac", rate=sample_rate if sample_rate in rates else 48000)
            sound.layout = "mono" if samples.shape[0] == 1 else "stereo"
        written = 0
        for index, image in enumerate(pixels):
            container.mux(picture.encode(picture_frame(image, index, frame_rate)))
            if (
                sound is not None and samples is not None
            ):  # interleaved, so that a player finds both at the same position
                last = index + 1 == len(pixels)
                until = samples.shape[1] if last else int((index + 1) / frame_rate * sample_rate)
                piece = samples[:, written:until]
                if piece.shape[1]:
                    container.mux(sound.encode(_sound_frame(piece, written, sample_rate)))
                    written += piece.shape[1]
        container.mux(picture.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))


def picture_frame(image: Tensor, index: int, frame_rate: Fraction) -> VideoFrame:
    """Frame ``index`` of this rate, from ``(height, width, 3)`` uint8."""
    height, width, _ = image.shape
    frame = VideoFrame(width, height, "rgb24")
    plane = frame.planes[0]
    buffer = bytearray(plane.buffer_size)
    rows = torch.frombuffer(buffer, dtype=torch.uint8)[: height * plane.line_size].view(height, plane.line_size)
    rows[:, : 3 * width] = image.reshape(height, 3 * width)
    plane.update(bytes(buffer))
    frame.pts, frame.time_base = index, 1 / frame_rate
    return frame


def _sound_frame(samples: Tensor, place: int, sample_rate: int) -> AudioFrame:
    channels, count = samples.shape
    frame = AudioFrame(format="fltp", layout="mono" if channels == 1 else "stereo", samples=count)
    for plane, channel in zip(frame.planes, samples, strict=True):
        buffer = bytearray(plane.buffer_size)
        torch.frombuffer(buffer, dtype=torch.float32)[:count] = channel
        plane.update(bytes(buffer))
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, place, Fraction(1, sample_rate)
    return frame
