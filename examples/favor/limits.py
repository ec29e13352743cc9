"""What a visitor of the page may ask for, and what is said to one who asks for more."""

import argparse
import html
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avfusion import InvalidValueError

_HELP = {
    "question": "characters of a question",
    "dialogue": "characters of a whole dialogue",
    "upload": "MiB of a file",
    "clip": "seconds of a clip",
    "seconds": "for an answer, the reading of its clip included; then it ends where it is",
    "live": "seconds that the live tab watches",
    "watching": "visitors of whom the live tab watches something at once",
    "waiting": "requests that may wait for their turn",
}
_MARKS = re.compile(r"([\\`*_{}\[\]|#~$!])")
_FOLDERS = re.compile(r"(?<![\w/\\])(?:/(?:[^/\s'\"<>:]+/)*(?=[^\s/])|[A-Za-z]:[\\/](?:[^\\/\s'\"<>:]+[\\/])*)")


class Limits(NamedTuple):
    """For each visitor of a page; an option ``--max-NAME`` each.

    Attributes:
        question: characters of a question.
        dialogue: characters of a whole dialogue.
        upload: MiB of a file.
        clip: seconds of a clip.
        seconds: for an answer, the reading of its clip included.
        live: seconds that the live tab watches.
        watching: visitors of whom the live tab watches something at once.
        waiting: requests that may wait for their turn.
    """

    question: int = 2_000
    dialogue: int = 20_000
    upload: int = 200
    clip: float = 600.0
    seconds: float = 300.0
    live: float = 1_800.0
    watching: int = 4
    waiting: int = 64

    def check(self) -> "Limits":
        """Itself.

        Raises:
            InvalidValueError: one that is not above 0.
        """
        for name, value in self._asdict().items():
            if not value > 0:
                raise InvalidValueError(f"max-{name}: must be above 0, found {value}")
        return self

    def check_texts(self, turns: Sequence[str]) -> None:
        """Refuses a dialogue that is too long; its last turn is the question."""
        for name, most, count in (
            ("question", self.question, len(turns[-1])),
            ("dialogue", self.dialogue, sum(map(len, turns))),
        ):
            if count > most:
                raise InvalidValueError(f"{name}: must have at most {most} characters, found {count}")

    def check_files(self, files: Iterable[str | None]) -> None:
        """Refuses a file that is too large; one that is not there is told of by who reads it."""
        for file in files:
            if file is not None and Path(file).is_file() and Path(file).stat().st_size > self.upload * 2**20:
                raise InvalidValueError(f"{Path(file).name}: must be at most {self.upload} MiB large, found more")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each limit."""
    for name, value in Limits()._asdict().items():
        parser.add_argument(
            f"--max-{name}", type=type(value), default=value, metavar="N", help=f"{_HELP[name]} ({value:g})"
        )


def from_options(options: argparse.Namespace) -> Limits:
    """The limits that were given."""
    return Limits(**{name: getattr(options, f"max_{name}") for name in Limits._fields}).check()


def for_visitors(problem: object, files: Iterable[str | None] = ()) -> str:
    """The first line of a problem as Markdown that shows it literally, without where anything lies on the server.

    Args:
        problem: an error or a text.
        files: what the visitor has given, of which the names may be shown.
    """
    text = (str(problem).splitlines() or ["unknown error"])[0] or "unknown error"
    return _MARKS.sub(r"\\\1", html.escape(without_folders(text, files), quote=False))


def without_folders(text: str, files: Iterable[str | None] = ()) -> str:
    """A text in which of every path the last part is left."""
    roots = {str(Path.home()), tempfile.gettempdir(), str(Path.cwd()), sys.prefix}
    folders = roots | {str(Path(file).parent) for file in files if file}
    folders |= {os.path.realpath(folder) for folder in folders}
    for folder in sorted(folders - {"/", "."}, key=len, reverse=True):  # their names may hold spaces
        text = text.replace(folder.rstrip("/\\") + os.sep, "/")
    return _FOLDERS.sub("", text)


def plain(content: Any) -> str:
    """A turn's text, which the page hands back as a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else [content]
    texts = (part.get("text", "") if isinstance(part, Mapping) else part for part in parts)
    return " ".join(text for text in texts if isinstance(text, str))
