"""VGG-Sound Source's JSON and VGG-Sound's CSV: ten-second clips with the name of what sounds."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from avfusion.aveb.readers.fields import as_object, as_text, find, number_in, shown
from avfusion.aveb.readers.labels import labels_of
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.media import kind_of, sound_of, without_ending
from avfusion.aveb.readers.pairs import partners
from avfusion.aveb.readers.source import Broken, Source, Unit
from avfusion.aveb.records import Record
from avfusion.errors import InvalidValueError


class _Clip(NamedTuple):
    name: str
    label: str


class _Pair(NamedTuple):
    seen: _Clip
    heard: _Clip


def _is_json(source: Source) -> bool:
    return source.form == "array" and source.has_keys("file", "class")


def _is_table(source: Source) -> bool:
    """VGG-Sound's table does not name its columns: video, second, label, split."""
    return source.form == "table" and len(source.columns) == 4 and source.columns[1].isdigit()


def _clips(source: Source, context: Context) -> Iterator[tuple[int, _Clip | Broken]]:
    if source.form == "array":
        for unit in source.units():
            yield unit.index, unit.value if isinstance(unit.value, Broken) else _tried(_from_json, unit.value)
        return
    for index, row in enumerate(source.rows):
        if isinstance(row, Broken) or len(row) != 4 or row[3].strip() == context.split:
            yield index, row if isinstance(row, Broken) else _tried(_from_row, row)


def _tried(read: Any, value: Any) -> _Clip | Broken:
    try:
        return read(value)
    except InvalidValueError as error:
        return Broken(str(error))


def _from_json(value: Any) -> _Clip:
    record = as_object(value)
    return _Clip(without_ending(as_text(find(record, "file"), "file")), as_text(find(record, "class"), "class"))


def _from_row(row: list[str]) -> _Clip:
    if len(row) != 4:
        raise InvalidValueError(f"a row must have video, second, label and split, found {shown(row)}")
    return _Clip(f"{as_text(row[0], 'video')}_{int(number_in(row[1], 'second')):06d}", as_text(row[2], "label"))


def _units(source: Source, context: Context) -> Iterator[Unit]:
    clips = list(_clips(source, context))
    if context.task.name != "avm":
        yield from (Unit(index, clip) for index, clip in clips)
        return
    labels = [None if isinstance(clip, Broken) else clip.label for _, clip in clips]
    for (index, clip), other in zip(clips, partners(labels, context.seed), strict=True):
        heard = clip if other is None else clips[other][1]
        yield Unit(index, clip if isinstance(clip, Broken) or isinstance(heard, Broken) else _Pair(clip, heard))


def _build(raw: _Clip | _Pair, context: Context) -> Iterable[Record]:
    seen, heard = raw if isinstance(raw, _Pair) else (raw, raw)
    picture = _picture(seen.name, context)
    audio = sound_of(_picture(heard.name, context), context.media.first(f"{heard.name}.wav", f"audio/{heard.name}.wav"))
    answers = ("Yes" if seen is heard else "No",) if isinstance(raw, _Pair) else labels_of(seen.label)
    name = seen.name if seen is heard else f"{seen.name}+{heard.name}"
    media = {kind_of(picture.name): picture, "audio": audio}
    return [Record(id=name, task=context.task.name, references=answers, **media)]


def _picture(name: str, context: Context) -> Any:
    return context.media.first(f"{name}.mp4", f"video/{name}.mp4", f"{name}.jpg", f"frames/{name}.jpg")


VGGSS = Layout(
    name="VGG-Sound Source",
    looks_for='a JSON array of objects with "file" and "class"',
    tasks=frozenset({"avssd", "avm"}),
    matches=_is_json,
    units=_units,
    build=_build,
)
VGGSOUND = Layout(
    name="VGG-Sound",
    looks_for="a CSV of video, second, label and split without a line of names",
    tasks=frozenset({"avssd", "avm"}),
    matches=_is_table,
    units=_units,
    build=_build,
)
