"""How2: a folder with ``segments`` (clips and their times) and a transcript of each clip."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from avfusion.aveb.readers.fields import as_seconds, as_text, number_in, shown
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.media import is_file, sound_of
from avfusion.aveb.readers.source import Broken, Source, Unit
from avfusion.aveb.readers.whole import whole_recording
from avfusion.aveb.records import Record
from avfusion.errors import InvalidValueError

_TRANSCRIPTS = ("text.id.en", "text.en", "text")


def _transcripts(source: Source) -> Path | None:
    files = (source.path / name for name in _TRANSCRIPTS)
    return next((file for file in files if file.is_file()), None)


def _matches(source: Source) -> bool:
    return source.is_folder and (source.path / "segments").is_file() and _transcripts(source) is not None


def _units(source: Source, _: Context) -> Iterator[Unit]:
    file = _transcripts(source) or source.path
    times = {name: rest.split() for name, rest in _lines(source.path / "segments")}
    for index, (name, words) in enumerate(_lines(file)):
        found = times.get(name)
        if found is None or len(found) != 3:
            reason = f"segments: must have video, start and end of {shown(name)}, found {shown(found)}"
            yield Unit(index, Broken(reason), file)
        else:
            yield Unit(index, (name, words, found), file)


def _lines(file: Path) -> list[tuple[str, str]]:
    """The lines of a file, parted after their first word."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"{file}: cannot be read ({error})") from None
    parted = (line.strip().partition(" ") for line in lines if line.strip())
    return [(name, rest.strip()) for name, _, rest in parted]


def _build(raw: tuple[str, str, list[str]], context: Context) -> Iterable[Record]:
    name, words, (recording, start, end) = raw
    span = as_seconds((number_in(start, "segments"), number_in(end, "segments")), "segments")
    clip = f"{recording}_{start}_{end}"
    names = {"video": f"{clip}.mp4", "audio": f"{clip}.wav"}
    video = context.media.first(names["video"], f"{name}.mp4")
    audio = sound_of(video, context.media.first(names["audio"], f"{name}.wav"))
    fields: dict[str, Any] = {"video": video, "audio": audio}
    if not is_file(video):
        fields |= whole_recording(names, span, context.media)
    transcript = as_text(words, "transcript", blank=True)
    return [Record(id=as_text(name, "id"), task=context.task.name, span=span, references=(transcript,), **fields)]


HOW2 = Layout(
    name="How2",
    looks_for="a folder with segments and text.id.en, text.en or text",
    tasks=frozenset({"avsr"}),
    matches=_matches,
    units=_units,
    build=_build,
)
