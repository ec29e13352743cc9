"""Still images and animated WebP, read with Pillow.

Pillow puts tiles together, turns a picture as its EXIF says, and gives the pixels that image processors are trained on;
FFmpeg's image demuxers call every picture a short video, and its frames hide mirrored EXIF orientations.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from av import VideoFrame
from PIL import Image, ImageFile, ImageOps, ImageSequence
from torch import Tensor

from avfusion.errors import MediaError
from avfusion.media._limits import LimitError
from avfusion.media._opening import MediaFile
from avfusion.media._write import picture_frame

# What says at its beginning what it is. "HEIF" is there once an opener was registered, as pillow-heif does.
_FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000"),
    *("MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TIFF", "WEBP"),
)
_VIDEO_SUFFIXES = (".mjpg", ".mjpeg")  # JPEG after JPEG
_MILLISECONDS = Fraction(1000)  # a second


def open_image(file: MediaFile) -> Image.Image | None:
    """The image that a file holds, not decoded yet; None for a file of another kind.

    Raises:
        LimitError: an image of more pixels than Pillow opens.
    """
    if file.name.endswith(_VIDEO_SUFFIXES):
        return None
    Image.init()
    file.seek(0)
    asked: Any = file
    try:
        return Image.open(asked, formats=[name for name in _FORMATS if name in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = "has more pixels than limits=MediaLimits(picture_pixels=...) and PIL.Image.MAX_IMAGE_PIXELS allow"
        raise LimitError(reason) from error
    except Exception:  # noqa: BLE001  # Pillow's plugins raise whatever comes of a broken head, and FFmpeg tells more
        file.head = b""  # it has read less than what tells other kinds
        return None


def is_animated(image: Image.Image) -> bool:
    """Whether an image moves; the pages of a TIFF and the pictures of a stereo camera do not."""
    try:
        return image.format in ("AVIF", "GIF", "PNG", "WEBP") and getattr(image, "is_animated", False)
    except Exception:  # noqa: BLE001  # it looks for the second picture, which is broken
        return True


def read_still(image: Image.Image, size: tuple[int, int] | None, *, partial: bool = False) -> Tensor:
    """``(3, height, width)`` uint8 RGB, turned and mirrored as its EXIF says.

    Args:
        image: that was opened.
        size: ``(height, width)`` of the result.
        partial: whether to give what was decoded before, of an image that :func:`read_still` refused.

    Raises:
        MediaError: an image that cannot be decoded.
    """
    try:
        if partial and isinstance(image, ImageFile.ImageFile):
            image.tile = []  # nothing more is to come
        image.load()
        return _pixels(_upright(image), size)
    except Exception as error:  # Pillow's decoders raise whatever comes of a broken file
        raise _broken(image, error) from error


def read_animation(image: Image.Image) -> Iterator[VideoFrame]:
    """The pictures of an animation, each with its time and how long it is shown.

    Raises:
        MediaError: one that cannot be decoded.
    """
    now = 0
    try:
        with image:
            for picture in ImageSequence.Iterator(image):
                picture.load()
                lasts = round(picture.info.get("duration") or 100)  # milliseconds; browsers show 0 as 100
                frame = picture_frame(_pixels(picture, None).permute(1, 2, 0), now, _MILLISECONDS)
                frame.duration = lasts
                now += lasts
                yield frame
    except Exception as error:
        raise _broken(image, error) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # EXIF that cannot be read says nothing of how to turn the picture
        return image


def _pixels(image: Image.Image, size: tuple[int, int] | None) -> Tensor:
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    image = image.convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).contiguous()


def _broken(image: Image.Image, error: Exception) -> MediaError:
    reason = " ".join(str(error).split()) or type(error).__name__
    what = "cut short" if "truncated" in reason else "broken"
    return MediaError(f"is {what}: its {image.format} image cannot be decoded ({reason})")
