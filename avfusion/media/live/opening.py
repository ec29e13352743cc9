"""Opens a file, a device, an address or a pipe."""

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import av
from av import AudioStream, VideoStream
from av.container import InputContainer
from PIL import Image

from avfusion.errors import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media._formats import DEVICES
from avfusion.media._limits import MediaLimits, decoder_options, limit_stream
from avfusion.media._opening import ANY_TEXT, MediaFile, open_container, open_file, shown
from avfusion.media._sizes import CorrectedFile
from avfusion.media._stills import open_image
from avfusion.media._streams import choose_streams
from avfusion.media.live.chunk import Stream
from avfusion.media.live.network import OPTIONS, NetworkStream
from avfusion.media.live.pipe import Pipe

Source = str | bytes | os.PathLike[str] | os.PathLike[bytes] | int | IO[bytes] | NetworkStream

_PIPE = re.compile(r"-|pipe:(\d*)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.,-]+:")  # two letters at least: one is a drive of Windows
_CAMERA = re.compile(r"/dev/video\d+")


class Opened(NamedTuple):
    """An open source.

    Attributes:
        name: its name in messages.
        container: FFmpeg's container; None for an image.
        image: Pillow's image, or None.
        pictured: the video stream to read, or None.
        sounding: the audio stream to read, or None.
        file: the file object that FFmpeg reads, or None.
        path: path of a local file, or None.
        is_file: whether all its data is available at once.
        can_stop: whether a read never blocks, or can be interrupted.
        stop: interrupts a read.
        close: closes everything.
    """

    name: str
    container: InputContainer | None
    image: Image.Image | None
    pictured: VideoStream | None
    sounding: AudioStream | None
    file: MediaFile | None
    path: Path | None
    is_file: bool
    can_stop: bool
    stop: Callable[[], None]
    close: Callable[[], None]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams to read."""
        shown: tuple[Stream, ...] = ("visual",) if self.pictured is not None or self.image is not None else ()
        return (*shown, "audio") if self.sounding is not None else shown


def open_source(
    source: Source,
    *,
    format: str | None,
    options: Mapping[str, str] | None,
    video: bool,
    audio: bool,
    audio_track: int | None = None,
    timeout: float,
    limits: MediaLimits,
) -> Opened:
    """Opens a source and chooses its streams.

    Raises:
        MediaError: the source does not exist, or has none of the requested streams.
        InvalidValueError: FFmpeg does not have this format.
        InvalidTypeError: ``source`` is not a source.
    """
    name = _name(source)
    if format is not None and format.split(":")[0] not in _formats():
        raise InvalidValueError(f"format: must be one that this FFmpeg reads, found {format!r}")
    place = _place(source, format)
    options = dict(options or {})
    container, image, file, pipe = None, None, None, None
    pictured, sounding = None, None
    try:
        if isinstance(place, _Direct):
            container = av.open(
                place.name,
                format=place.format,
                options={**options, **place.options, **decoder_options(limits)},
                **ANY_TEXT,
                timeout=timeout,
            )
        else:
            file, pipe = _file(place, timeout)
            image = open_image(file, limits) if format is None and pipe is None else None
            if image is None:
                container = open_container(file, limits=limits, format=format, options=options)
        if container is not None:
            pictured, sounding = choose_streams(container, video=video, audio=audio, audio_track=audio_track)
            limit_stream(pictured, limits)
        elif not video:
            raise MediaError("holds no audio (an image)")
    except (av.FFmpegError, OSError, MediaError) as error:
        for opened in (container, image, pipe or file):
            if opened is not None:
                opened.close()
        if isinstance(error, MediaError):
            raise MediaError(f"{name}: {error}") from error.__cause__
        reason = f"nothing came for {timeout} s" if is_timeout(error) else getattr(error, "strerror", None) or error
        raise MediaError(f"{name}: cannot be opened ({reason})") from error

    def close() -> None:
        for opened in (container, image):
            if opened is not None:
                opened.close()
        if pipe is not None:
            pipe.close()
        elif isinstance(place, Path) and file is not None:
            file.close()

    is_file = file is not None and pipe is None
    stop = _nothing if pipe is None else pipe.stop
    path = place if isinstance(place, Path) and is_file else None
    return Opened(name, container, image, pictured, sounding, file, path, is_file, file is not None, stop, close)


def is_timeout(error: BaseException) -> bool:
    """Whether an error is a timeout, of this module or of FFmpeg."""
    return isinstance(error, (TimeoutError, av.ExitError))


def _nothing() -> None:
    """Does nothing: FFmpeg's own reading cannot be interrupted, and ends with its timeout."""


def _formats() -> set[str]:
    return {name for names in av.formats_available for name in names.split(",")}


class _Direct(NamedTuple):
    """A device or address, which FFmpeg opens itself."""

    name: str
    format: str | None
    options: Mapping[str, str]


def _name(source: Source) -> str:
    if isinstance(source, NetworkStream):
        return source.address
    if isinstance(source, (str, bytes, os.PathLike)):
        return shown(source)
    if isinstance(source, bool) or not (isinstance(source, int) or hasattr(source, "read")):
        raise InvalidTypeError(
            "source: must be a path, a NetworkStream, an open file or its number, found " + type(source).__name__
        )
    name = getattr(source, "name", source)
    return f"file {name}" if isinstance(name, int) else str(name if isinstance(name, str) else "open file")


def _place(source: Source, format: str | None) -> "_Direct | Path | int | IO[bytes]":
    """What a source names: a path, file object, device or address."""
    if isinstance(source, NetworkStream):
        return _Direct(source.address, format, OPTIONS)
    if not isinstance(source, (str, bytes, os.PathLike)):
        return source
    name = os.fsdecode(source)
    if format is not None and format.split(":")[0] in DEVICES:
        return _Direct(name, format, {})
    if isinstance(source, str) and (numbered := _PIPE.fullmatch(source)):
        return int(numbered[1] or 0)
    path = Path(name)
    mode = _mode(path)
    if format is None and _CAMERA.fullmatch(name) and mode is not None:
        return _Direct(name, "v4l2", {})
    if mode is None and _ADDRESS.match(name):
        raise InvalidValueError(f"source: an address must be given as NetworkStream({name!r}), found plain text")
    return path


def _file(place: Path | int | IO[bytes], timeout: float) -> tuple[MediaFile, Pipe | None]:
    """The file object that FFmpeg reads, and its pipe or None."""
    if isinstance(place, Path):
        mode = _mode(place)
        if mode is None or not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return MediaFile(CorrectedFile(open_file(place)), place.name, timeout=timeout), None
        pipe = Pipe(os.open(place, os.O_RDONLY | os.O_NONBLOCK), timeout=timeout, owned=True)
    elif not isinstance(place, int) and place.seekable():
        return MediaFile(place, str(getattr(place, "name", "")), timeout=timeout), None
    else:
        pipe = Pipe(place, timeout=timeout)
    return MediaFile(pipe, ""), pipe


def _mode(path: Path) -> int | None:
    """The file type of a path, or None if it does not exist."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # opening it raises the error
        return None
