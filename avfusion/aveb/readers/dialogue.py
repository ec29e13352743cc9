"""AVSD: dialogues about a video, published as pairs or as the challenge's JSON."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from avfusion.aveb.readers.fields import as_list, as_object, as_text, find, shown
from avfusion.aveb.readers.layout import Context, Layout, listed
from avfusion.aveb.readers.media import sound_of
from avfusion.aveb.readers.source import Source, Unit
from avfusion.aveb.records import Record
from avfusion.errors import InvalidValueError

_UNDISCLOSED = "__UNDISCLOSED__"


def dialogue_records(turns: Any, fields: Mapping[str, Any], *, every: bool) -> list[Record]:
    """Records of a dialogue: its last question with all turns before it as history, or every question with its own.

    Args:
        turns: ``[question, answer]`` pairs, or objects with ``"question"`` and ``"answer"``.
        fields: the other fields of the records.
        every: a record for each turn, ``ID:1`` for the first, instead of one for the last.
    """
    pairs = tuple(map(_pair, as_list(turns, "conversation")))
    asked = range(len(pairs)) if every else [len(pairs) - 1]
    records = []
    for place in asked:
        question, answer = pairs[place]
        if not question or not answer or answer == _UNDISCLOSED:
            found = shown([question, answer])
            raise InvalidValueError(f"conversation: turn {place + 1} must have question and answer, found {found}")
        own = {"id": f"{fields['id']}:{place + 1}"} if every else {}
        records.append(Record(**{**fields, **own}, question=question, references=(answer,), history=pairs[:place]))
    return records


def _pair(turn: Any) -> tuple[str, str]:
    if isinstance(turn, Mapping):
        turn = [find(turn, "question"), find(turn, "answer")]
    if not isinstance(turn, list) or len(turn) != 2:
        raise InvalidValueError(f"conversation: a turn must be a pair of question and answer, found {shown(turn)}")
    return as_text(turn[0], "question", blank=True), as_text(turn[1], "answer", blank=True)


def _matches(source: Source) -> bool:
    return source.form == "object" and isinstance(source.value, dict) and "dialogs" in source.value


def _units(source: Source, _: Context) -> Iterator[Unit]:
    return listed(source.value["dialogs"], "dialogs")


def _build(raw: Any, context: Context) -> Iterable[Record]:
    record = as_object(raw)
    name = as_text(find(record, "image_id"), "image_id")
    video = context.media.first(f"{name}.mp4", f"Charades_v1_480/{name}.mp4")
    audio = context.media.first(f"{name}.wav", f"audios/{name}.wav")
    fields = {"id": name, "task": context.task.name, "video": video, "audio": sound_of(video, audio)}
    return dialogue_records(find(record, "dialog"), fields, every=context.turns == "all")


AVSD = Layout(
    name="AVSD challenge",
    looks_for='a JSON object with "dialogs", each with "image_id" and "dialog"',
    tasks=frozenset({"avsd"}),
    matches=_matches,
    units=_units,
    build=_build,
)
