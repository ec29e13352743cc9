"""Clips that are named after the recording they were cut from, where only the recording is there."""

import re
from collections.abc import Mapping
from typing import Any

from avfusion.aveb.readers.layout import stem
from avfusion.aveb.readers.media import MediaRoot, is_file

_TIMES = re.compile(r"(?P<recording>.+)_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"(?P<recording>.+)__\d+")


def span_in(name: str) -> tuple[float, float] | None:
    """Start and end that a file's name tells: ``G1z1RB3pOKM_116.13_117.75.mp4``."""
    found = _TIMES.fullmatch(stem(name))
    if found is None:
        return None
    start, end = float(found["start"]), float(found["end"])
    return (start, end) if start < end < 1e9 else None


def whole_recording(names: Mapping[str, str], span: tuple[float, float] | None, media: MediaRoot) -> dict[str, Any]:
    """The recording in the place of a clip that is not there, as the fields of a record; nothing if the clip is there.

    Ego4D is published as ``VIDEO.mp4`` and asked about as ``VIDEO__2.mp4``, How2 and presentations as
    ``VIDEO_START_END.mp4``. The sound is the recording's own unless it has a file of its own.
    """
    clips = {kind: media.find(name) for kind, name in names.items()}
    if span is None or all(map(is_file, clips.values())):
        return {}
    found: dict[str, Any] = {"needs_cut": True}
    for kind, name in names.items():
        match = _TIMES.fullmatch(stem(name)) or _NUMBER.fullmatch(stem(name))
        if match is None:
            return {}
        endings = [name[name.rindex(".") :].strip(), ".mp4"] if kind == "audio" else [name[name.rindex(".") :].strip()]
        files = [media.sibling(name, f"{match['recording']}{ending}") for ending in endings]
        file = next(filter(is_file, files), None)
        if file is None:
            return {}
        found[kind] = file
    return found
