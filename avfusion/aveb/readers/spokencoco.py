"""SpokenCOCO: pictures with captions that were read aloud, made into pairs that match and pairs that do not."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from avfusion.aveb.readers.fields import as_list, as_object, as_text, find
from avfusion.aveb.readers.layout import Context, Layout, listed, stem
from avfusion.aveb.readers.pairs import partners
from avfusion.aveb.readers.source import Broken, Source, Unit
from avfusion.aveb.records import Record
from avfusion.errors import InvalidValueError


class _Pair(NamedTuple):
    image: str
    wav: str
    match: bool


def _matches(source: Source) -> bool:
    if source.form != "object" or not isinstance(source.value, dict) or not isinstance(source.value.get("data"), list):
        return False
    return any(isinstance(record, dict) and "captions" in record for record in source.value["data"][:50])


def _units(source: Source, context: Context) -> Iterator[Unit]:
    pairs = [_own_pair(unit.value) for unit in listed(source.value["data"], "data")]
    images = [None if isinstance(pair, Broken) else pair.image for pair in pairs]
    for index, (pair, place) in enumerate(zip(pairs, partners(images, context.seed), strict=True)):
        other = pair if place is None else pairs[place]
        if isinstance(pair, Broken) or isinstance(other, Broken):
            yield Unit(index, pair)
        else:
            yield Unit(index, _Pair(pair.image, other.wav, place is None))


def _own_pair(value: Any) -> _Pair | Broken:
    """A picture with the first of its captions."""
    if isinstance(value, Broken):
        return value
    try:
        record = as_object(value)
        caption = as_object(as_list(find(record, "captions"), "captions")[0])
        return _Pair(as_text(find(record, "image"), "image"), as_text(find(caption, "wav"), "wav"), match=True)
    except InvalidValueError as error:
        return Broken(str(error))


def _build(raw: _Pair, context: Context) -> Iterable[Record]:
    return [
        Record(
            id=f"{stem(raw.image)}+{stem(raw.wav)}",
            task=context.task.name,
            image=context.media.find(raw.image),
            audio=context.media.find(raw.wav),
            references=("Yes" if raw.match else "No",),
        )
    ]


SPOKENCOCO = Layout(
    name="SpokenCOCO",
    looks_for='a JSON object with "data", each with "image" and "captions" that have a "wav"',
    tasks=frozenset({"avm"}),
    matches=_matches,
    units=_units,
    build=_build,
)
