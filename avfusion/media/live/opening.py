"""Opening whatever can be played: a file, a device, an address, a pipe."""

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import av
from av import AudioStream, VideoStream
from av.container import InputContainer

from avfusion.errors import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media._streams import choose_streams
from avfusion.media.live.pipe import Pipe

Source = str | os.PathLike[str] | int | IO[bytes]

_PIPE = re.compile(r"-|pipe:(\d*)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.,-]+:")  # two letters at least: one is a drive of Windows
_CAMERA = re.compile(r"/dev/video\d+")


class Opened(NamedTuple):
    """A source that can be read.

    Attributes:
        name: for messages.
        container: what FFmpeg made of it.
        pictured: the pictures to read, or None.
        sounding: the sound to read, or None.
        is_file: whether it is all there already, and waits.
        path: of a file, or None.
        can_stop: whether a read never waits, or can be made to give up.
        stop: makes it give up.
        close: releases everything.
    """

    name: str
    container: InputContainer
    pictured: VideoStream | None
    sounding: AudioStream | None
    is_file: bool
    path: Path | None
    can_stop: bool
    stop: Callable[[], None]
    close: Callable[[], None]


def open_source(
    source: Source,
    *,
    format: str | None,
    options: Mapping[str, str] | None,
    video: bool,
    audio: bool,
    timeout: float,
) -> Opened:
    """Opens a source and chooses its streams.

    Raises:
        MediaError: a source that is not there, or holds nothing of what is asked for.
        InvalidValueError: a format that FFmpeg does not have.
        InvalidTypeError: something that is no source.
    """
    name = _name(source)
    if format is not None and format.split(":")[0] not in _formats():
        raise InvalidValueError(f"format: must be one that this FFmpeg reads, found {format!r}")
    file, pipe, path = _file(source, name, format, timeout)
    if format is None and _CAMERA.fullmatch(name):
        format = "v4l2"
    container = None
    try:
        container = av.open(
            file,
            format=format,
            options=dict(options or {}),
            metadata_errors="replace",
            timeout=None if path is not None else timeout,
        )
        pictured, sounding = choose_streams(container, video=video, audio=audio)
    except (av.FFmpegError, TimeoutError, MediaError) as error:
        for opened in (container, pipe):
            if opened is not None:
                opened.close()
        if isinstance(error, MediaError):
            raise MediaError(f"{name}: {error}") from error.__cause__
        reason = f"nothing came for {timeout} s" if is_timeout(error) else getattr(error, "strerror", None) or error
        raise MediaError(f"{name}: cannot be opened ({reason})") from error

    def close() -> None:
        container.close()
        if pipe is not None:
            pipe.close()

    is_file = path is not None or (pipe is None and not isinstance(source, (str, os.PathLike)))
    stop = _nothing if pipe is None else pipe.stop
    return Opened(name, container, pictured, sounding, is_file, path, is_file or pipe is not None, stop, close)


def is_timeout(error: BaseException) -> bool:
    """Whether a read gave up, ours or FFmpeg's."""
    return isinstance(error, (TimeoutError, av.ExitError))


def _nothing() -> None:
    """There is no way to stop FFmpeg's own reading; it ends with its timeout."""


def _formats() -> set[str]:
    return {name for names in av.formats_available for name in names.split(",")}


def _name(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, bool) or not (isinstance(source, int) or hasattr(source, "read")):
        raise InvalidTypeError(
            f"source: must be a path, an address, an open file or its number, found {type(source).__name__}"
        )
    name = getattr(source, "name", source)
    return f"file {name}" if isinstance(name, int) else str(name if isinstance(name, str) else "open file")


def _file(source: Source, name: str, format: str | None, timeout: float) -> tuple[object, Pipe | None, Path | None]:
    """What FFmpeg opens; the pipe that it is, or None; the path of a regular file, or None."""
    if isinstance(source, int):
        pipe = Pipe(source, timeout=timeout)
        return pipe, pipe, None
    if not isinstance(source, (str, os.PathLike)):
        if source.seekable():
            return source, None, None
        pipe = Pipe(source, timeout=timeout)
        return pipe, pipe, None
    if isinstance(source, str) and (numbered := _PIPE.fullmatch(source)):
        pipe = Pipe(int(numbered[1] or 0), timeout=timeout)
        return pipe, pipe, None
    path = Path(source)
    if path.is_fifo():
        pipe = Pipe(os.open(path, os.O_RDONLY | os.O_NONBLOCK), timeout=timeout, owned=True)
        return pipe, pipe, None
    if path.is_file():
        if path.stat().st_size == 0:
            raise MediaError(f"{name}: is empty")
        # Absolute, so that FFmpeg does not take a name with a colon for an address.
        return str(path.absolute()), None, path
    if path.is_dir():
        raise MediaError(f"{name}: is a directory, not a file")
    if format is None and not _ADDRESS.match(name) and not _is_device(path):
        raise MediaError(f"{name}: does not exist")
    return name, None, None


def _is_device(path: Path) -> bool:
    return path.exists() and stat.S_ISCHR(path.stat().st_mode)
