"""Still images and animated PNG and WebP, read with Pillow.

Pillow assembles tiles, applies the EXIF orientation, and gives the pixels that image processors were trained on.
FFmpeg's image demuxers treat every image as a short video, and hide mirrored EXIF orientations.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import torch
from av import VideoFrame
from PIL import Image, ImageFile, ImageOps, ImageSequence
from torch import Tensor

from avfusion.errors import MediaError
from avfusion.media._limits import LimitError, MediaLimits, check_picture
from avfusion.media._opening import MediaFile
from avfusion.media._write import picture_frame

# Formats with a signature. "HEIF" is available after pillow-heif has registered it.
_FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000"),
    *("MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TIFF", "WEBP"),
)
_NAMED, _NAMED_SUFFIXES = ("TGA", *_FORMATS), (".tga", ".icb", ".vda", ".vst")  # TGA has no signature
_VIDEO_SUFFIXES = (".mjpg", ".mjpeg")  # concatenated JPEG images
_TICKS = Fraction(1_000_000)  # a second
_PNG = b"\x89PNG\r\n\x1a\n"
_UNSEEN = (b"iCCP", b"zTXt", b"iTXt", b"tEXt")  # PNG chunks that are not used


def open_image(file: MediaFile, limits: MediaLimits) -> Image.Image | None:
    """Opens an image without decoding it; None if FFmpeg has to read the file.

    Raises:
        LimitError: the image has too many pixels.
        MediaError: a PNG that Pillow cannot open. FFmpeg would decompress it without a limit.
    """
    if file.name.endswith(_VIDEO_SUFFIXES):
        return None
    file.seek(0)
    image = _open(file, _NAMED if file.name.endswith(_NAMED_SUFFIXES) else _FORMATS)
    if image is None and file.seek(0) == 0 and file.read(len(_PNG)) == _PNG:
        image = _open(_without_texts(file), ("PNG",))
        if image is None:
            raise MediaError("is broken: its PNG image cannot be opened")
    if image is None or (is_animated(image) and image.format not in ("PNG", "WEBP")):
        file.head = b""  # it has read less than other signatures need
        return None
    check_picture(image.height, image.width, limits)
    return image


def _open(file: Any, formats: Sequence[str]) -> Image.Image | None:
    Image.init()
    try:
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = "has more pixels than limits=MediaLimits(frame_pixels=...) and PIL.Image.MAX_IMAGE_PIXELS allow"
        raise LimitError(reason) from error
    except Exception:  # noqa: BLE001  # Pillow's plugins raise whatever comes of a broken head, and FFmpeg tells more
        return None


def _without_texts(file: MediaFile) -> BytesIO:
    """A PNG without texts and colour profile; Pillow refuses to open a PNG whose texts or profile are large when
    decompressed.
    """
    file.seek(0)
    kept = [file.read(len(_PNG))]
    while len(head := file.read(8)) == 8:
        rest = file.read(int.from_bytes(head[:4], "big") + 4)
        if head[4:] not in _UNSEEN:
            kept += [head, rest]
    return BytesIO(b"".join(kept))


def is_animated(image: Image.Image) -> bool:
    """Whether an image is an animation. The pages of a TIFF and the images of a stereo camera are not."""
    try:
        return image.format in ("AVIF", "GIF", "PNG", "WEBP") and getattr(image, "is_animated", False)
    except Exception:  # noqa: BLE001  # it looks for the second frame, which is broken
        return True


def read_still(image: Image.Image, size: tuple[int, int] | None, *, partial: bool = False) -> Tensor:
    """Decodes an image to ``(3, height, width)`` uint8 RGB, in its EXIF orientation.

    Args:
        image: an open image.
        size: ``(height, width)`` of the result.
        partial: whether to return the decoded part of an image that :func:`read_still` refused.

    Raises:
        MediaError: the image cannot be decoded.
    """
    try:
        if partial and isinstance(image, ImageFile.ImageFile):
            image.tile = []  # no more data
        image.load()
        return _pixels(_upright(image), size)
    except Exception as error:  # Pillow's decoders raise any exception for a broken file
        raise _broken(image, error) from error


def read_animation(image: Image.Image) -> Iterator[VideoFrame]:
    """The frames of an animation, each with its timestamp and duration.

    Raises:
        MediaError: a frame cannot be decoded.
    """
    now = 0.0
    try:
        with image:
            for picture in ImageSequence.Iterator(image):
                picture.load()
                if image.tell() == 0 and image.info.get("default_image"):
                    continue  # it is the fallback for viewers without animation
                ends = now + 1000 * (picture.info.get("duration") or 100)  # browsers treat 0 ms as 100 ms
                frame = picture_frame(_pixels(picture, None).permute(1, 2, 0), round(now), _TICKS)
                frame.duration = round(ends) - round(now)
                now = ends
                yield frame
    except Exception as error:
        raise _broken(image, error) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # EXIF that cannot be read says nothing of how to turn the frame
        return image


def _pixels(image: Image.Image, size: tuple[int, int] | None) -> Tensor:
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow would clip 16-bit values at 255
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
