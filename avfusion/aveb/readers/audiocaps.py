"""AudioCaps: a CSV with a row for each caption; the captions of a clip become the references of one record."""

from collections.abc import Iterable
from typing import Any

from avfusion.aveb.readers.fields import as_object, as_text, find, number_in
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.source import Source
from avfusion.aveb.records import Record

_COLUMNS = {"youtube_id", "start_time", "caption"}
_LENGTH = 10.0  # seconds of a clip


def _matches(source: Source) -> bool:
    return set(source.columns) >= _COLUMNS


def _build(raw: Any, context: Context) -> Iterable[Record]:
    row = as_object(raw)
    video = as_text(find(row, "youtube_id"), "youtube_id")
    start = number_in(find(row, "start_time"), "start_time")
    name = f"{video}_{start:g}"
    names = [f"{stem}{ending}" for stem in (name, video, f"Y{video}") for ending in (".wav", ".flac", ".mp3")]
    return [
        Record(
            id=name,
            task=context.task.name,
            audio=context.media.first(*names),
            span=(start, start + _LENGTH),
            references=(as_text(find(row, "caption"), "caption"),),
        )
    ]


AUDIOCAPS = Layout(
    name="AudioCaps",
    looks_for="a CSV with the columns youtube_id, start_time and caption",
    tasks=frozenset({"ac"}),
    matches=_matches,
    build=_build,
    merges=True,
)
