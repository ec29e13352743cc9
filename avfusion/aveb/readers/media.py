"""Names of media in manifests to files on this machine."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from avfusion.aveb.readers.fields import as_text, shown
from avfusion.errors import InvalidTypeError, InvalidValueError

_KINDS = {
    "image": "bmp gif jpeg jpg png tif tiff webp",
    "audio": "aac aif aiff flac m4a mp3 oga ogg opus wav wma",
    "video": "3gp avi flv m4v mkv mov mp4 mpeg mpg ogv webm wmv",
}
_KIND_OF = {f".{ending}": kind for kind, endings in _KINDS.items() for ending in endings.split()}
_DRIVE = re.compile(r"^[A-Za-z]:")


def kind_of(name: str) -> str:
    """``"video"``, ``"audio"`` or ``"image"``, by the ending of a file's name."""
    ending = PurePosixPath(name).suffix.lower()
    if ending not in _KIND_OF:
        raise InvalidValueError(f"media: must be a video, sound or image by its ending, found {shown(name)}")
    return _KIND_OF[ending]


def without_ending(name: str) -> str:
    """A file's own name without its ending, which has to be that of media: ``a.b_000030`` has none."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in _KIND_OF else path.name


class MediaRoot:
    """The folder that media are looked for in.

    Manifests name media by paths on their authors' machines. A name becomes the longest end of it that is a file below
    the root: ``a/b/c.mp4`` is looked for as ``ROOT/a/b/c.mp4``, ``ROOT/b/c.mp4`` and ``ROOT/c.mp4``. If none is there,
    a relative name is kept whole, ``ROOT/a/b/c.mp4``, and of an absolute one only the file's own name, ``ROOT/c.mp4``.
    A name never leads out of the root: ``..`` only undoes the folder before it.
    """

    def __init__(self, root: str | Path) -> None:
        if not isinstance(root, str | Path):
            raise InvalidTypeError(f"media_root: must be a folder, found {root!r:.80}")
        self.root = Path(root)

    def find(self, name: Any) -> Path:
        """The file of a name, whether it is there or not."""
        parts, absolute = self._parts(name)
        for start in range(len(parts)):
            path = self.root.joinpath(*parts[start:])
            if is_file(path):
                return path
        return self.root.joinpath(*parts[-1:] if absolute else parts)

    def first(self, *names: str) -> Path:
        """The first of several possible files that is there; the first one if none is."""
        found = [self.find(name) for name in names]
        return next((path for path in found if is_file(path)), found[0])

    def sibling(self, name: str, other: str) -> Path:
        """The file of another name beside a name: ``a/b.mp4`` and ``c.mp4`` give what ``a/c.mp4`` gives."""
        parts, _ = self._parts(name)
        return self.find("/".join([*parts[:-1], other]))

    def _parts(self, name: Any) -> tuple[list[str], bool]:
        if not isinstance(name, str):
            raise InvalidValueError(f"media: must be the name of a file, found {shown(name)}")
        text = as_text(name, "media")
        if "\0" in text:
            raise InvalidValueError(f"media: must be the name of a file, found {shown(name)}")
        if _DRIVE.match(text) or "/" not in text:
            text = text.replace("\\", "/")
        parts: list[str] = []
        for part in _DRIVE.sub("/", text).split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in ("", "."):
                parts.append(part)
        if not parts:
            raise InvalidValueError(f"media: must be the name of a file, found {shown(name)}")
        return parts, text.startswith("/") or bool(_DRIVE.match(text))


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def sound_of(video: Path, audio: Path) -> Path:
    """The sound of a video: a file of its own, or the video where there is only that."""
    return video if is_file(video) and not is_file(audio) else audio
