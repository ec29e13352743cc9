"""The published manifests: a JSON array of objects with media, a question or a conversation, and answers."""

from collections.abc import Iterable, Mapping
from typing import Any

from avfusion.aveb.readers.answers import answer_fields
from avfusion.aveb.readers.dialogue import dialogue_records
from avfusion.aveb.readers.fields import as_list, as_object, as_seconds, as_text, find, shown
from avfusion.aveb.readers.layout import Context, Layout, stem
from avfusion.aveb.readers.media import kind_of
from avfusion.aveb.readers.source import Source
from avfusion.aveb.readers.whole import span_in, whole_recording
from avfusion.aveb.records import Record
from avfusion.aveb.tasks import TASKS
from avfusion.errors import InvalidValueError

_MEDIA = ("image", "image_name", "video", "audio")
_ABOUT = ("question", "answer", "answers", "conversation")
_IDS = ("id", "question_id", "qid")
_CUT = {"avsr", "ego4d_qa", "presentation_qa"}  # clips cut from recordings, at times that the record or the name tells
_MISLABELLED = "1_0T2ZIjWnw_000031"  # the picture and sound of one clip, said not to match


def _matches(source: Source) -> bool:
    if source.form not in ("array", "lines", "object"):
        return False
    keys = [set(value) for value in source.sample if isinstance(value, dict)]
    if source.form == "object":
        return all(names & {*_MEDIA} and names & {*_ABOUT} for names in keys)
    # One of the names is enough where there are several records, and an array may break off in its first one: what is
    # bad about a record is told with its number.
    return not source.sample or any(names & {*_MEDIA, *_ABOUT} for names in keys)


def _build(raw: Any, context: Context) -> Iterable[Record]:
    record = as_object(raw)
    names = _media_names(record)
    fields: dict[str, Any] = {kind: context.media.find(name) for kind, name in names.items()}
    fields |= {"id": _id(record, names), "task": context.task.name}
    if context.task.name in _CUT:
        fields["span"] = _span(record, names)
        fields |= whole_recording(names, fields["span"], context.media)
    if context.task.answer == "free_text" and ("conversation" in record or "question" not in record):
        return dialogue_records(find(record, "conversation"), fields, every=context.turns == "all")
    answer = find(record, "answer", "answers")
    if context.task.name == "avm" and _is_mislabelled(names) and not context.keep_mislabelled:
        answer = "Yes"
    fields |= answer_fields(context.task, answer, record.get("answer_candidates", record.get("candidates")))
    question = record.get("question")
    if question is not None:
        fields["question"] = as_text(question, "question")
    return [Record(**fields)]


def _media_names(record: Mapping[str, Any]) -> dict[str, str]:
    """The names of a record's files by kind; one key may list a video track and an audio track."""
    found: dict[str, str] = {}
    for key in _MEDIA:
        value = record.get(key)
        if value is None:
            continue
        for name in as_list(value, key) if isinstance(value, list) else [value]:
            if not isinstance(name, str):
                raise InvalidValueError(f"{key}: must be the name of a file, or two in a list, found {shown(value)}")
            kind = "audio" if key == "audio" else kind_of(name.strip())
            if found.setdefault(kind, name) != name:
                raise InvalidValueError(f"{key}: must have one video track and one audio track, found {shown(value)}")
    if not found:
        raise InvalidValueError(f'a record must have media under "image" or "image_name", found {sorted(record)}')
    if {"image", "video"} <= set(found):
        raise InvalidValueError(f"media: must have one video track, found {shown(sorted(found.values()))}")
    return found


def _id(record: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The record's own id, or the names of its files without their endings."""
    own = next((record[key] for key in _IDS if record.get(key) is not None), None)
    if own is not None:
        return as_text(own, "id")
    return "+".join(dict.fromkeys(stem(name) for name in names.values()))


def _span(record: Mapping[str, Any], names: Mapping[str, str]) -> tuple[float, float] | None:
    if record.get("duration") is not None:
        return as_seconds(record["duration"], "duration")
    return next(filter(None, map(span_in, names.values())), None)


def _is_mislabelled(names: Mapping[str, str]) -> bool:
    return len(names) == 2 and all(stem(name) == _MISLABELLED for name in names.values())


MANIFEST = Layout(
    name="published manifest",
    looks_for='a JSON array of objects with "image" or "image_name", and "question" and "answer" or "conversation"',
    tasks=frozenset(TASKS),
    matches=_matches,
    build=_build,
)
