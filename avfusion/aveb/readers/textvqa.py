"""TextVQA: a JSON object with ``"data"``, ten answers to a question."""

from collections.abc import Iterable, Iterator
from typing import Any

from avfusion.aveb.readers.answers import answer_fields
from avfusion.aveb.readers.fields import as_object, as_text, find
from avfusion.aveb.readers.layout import Context, Layout, listed
from avfusion.aveb.readers.source import Source, Unit
from avfusion.aveb.records import Record


def _matches(source: Source) -> bool:
    if source.form != "object" or not isinstance(source.value, dict) or not isinstance(source.value.get("data"), list):
        return False
    return any(isinstance(record, dict) and "question_id" in record for record in source.value["data"][:50])


def _units(source: Source, _: Context) -> Iterator[Unit]:
    return listed(source.value["data"], "data")


def _build(raw: Any, context: Context) -> Iterable[Record]:
    record = as_object(raw)
    return [
        Record(
            id=as_text(find(record, "question_id"), "question_id"),
            task=context.task.name,
            image=context.media.find(f"{as_text(find(record, 'image_id'), 'image_id')}.jpg"),
            question=as_text(find(record, "question"), "question"),
            **answer_fields(context.task, find(record, "answers")),
        )
    ]


TEXTVQA = Layout(
    name="TextVQA",
    looks_for='a JSON object with "data", each with "question_id", "image_id", "question" and "answers"',
    tasks=frozenset({"ocr"}),
    matches=_matches,
    units=_units,
    build=_build,
)
