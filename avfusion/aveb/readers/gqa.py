"""GQA: a JSON object of questions by their ids."""

from collections.abc import Iterable, Iterator
from typing import Any

from avfusion.aveb.readers.answers import answer_fields
from avfusion.aveb.readers.fields import as_object, as_text, find
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.source import Source, Unit
from avfusion.aveb.records import Record


def _matches(source: Source) -> bool:
    if source.form != "object" or not isinstance(source.value, dict):
        return False
    return any(isinstance(record, dict) and "imageId" in record for record in source.value.values())


def _units(source: Source, _: Context) -> Iterator[Unit]:
    return map(Unit, range(len(source.value)), source.value.items())


def _build(raw: tuple[str, Any], context: Context) -> Iterable[Record]:
    name, value = raw
    record = as_object(value)
    return [
        Record(
            id=as_text(name, "id"),
            task=context.task.name,
            image=context.media.find(f"{as_text(find(record, 'imageId'), 'imageId')}.jpg"),
            question=as_text(find(record, "question"), "question"),
            **answer_fields(context.task, find(record, "answer")),
        )
    ]


GQA = Layout(
    name="GQA",
    looks_for='a JSON object of questions by id, each with "imageId", "question" and "answer"',
    tasks=frozenset({"vqa"}),
    matches=_matches,
    units=_units,
    build=_build,
)
