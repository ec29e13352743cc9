"""NExT-QA: a CSV of multiple-choice questions, with a table of the videos' folders beside it."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from avfusion.aveb.readers.answers import at_place
from avfusion.aveb.readers.fields import as_text, find, number_in, shown
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.source import Broken, Source, Unit
from avfusion.aveb.records import Record
from avfusion.errors import InvalidValueError

_CANDIDATES = ("a0", "a1", "a2", "a3", "a4")
_FOLDERS = "map_vid_vidorID.json"


def _matches(source: Source) -> bool:
    return set(source.columns) >= {"video", "question", "answer", *_CANDIDATES}


def _units(source: Source, _context: Context) -> Iterator[Unit]:
    folders = _folders(source)
    for unit in source.units():
        yield unit if isinstance(unit.value, Broken) else Unit(unit.index, (unit.value, folders))


def _folders(source: Source) -> dict[str, Any]:
    """The data set's own table of ``"1101/2574374895"`` by video, if it lies beside the questions."""
    try:
        table = json.loads(source.path.with_name(_FOLDERS).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"{source.path.with_name(_FOLDERS)}: cannot be read ({error})") from None
    if not isinstance(table, dict):
        raise InvalidValueError(f"{source.path.with_name(_FOLDERS)}: must be an object, found {shown(table)}")
    return table


def _build(raw: tuple[dict[str, str], dict[str, Any]], context: Context) -> Iterable[Record]:
    row, folders = raw
    video = as_text(find(row, "video"), "video")
    place = number_in(find(row, "answer"), "answer")
    if place not in range(len(_CANDIDATES)):
        raise InvalidValueError(f"answer: must be from 0 to {len(_CANDIDATES) - 1}, found {shown(row['answer'])}")
    return [
        Record(
            id=f"{video}_{as_text(row['qid'], 'qid')}" if "qid" in row else video,
            task=context.task.name,
            video=context.media.first(f"{as_text(folders.get(video, video), _FOLDERS)}.mp4", f"{video}.mp4"),
            question=as_text(find(row, "question"), "question"),
            **at_place(tuple(as_text(row[name], name) for name in _CANDIDATES), int(place)),
        )
    ]


NEXTQA = Layout(
    name="NExT-QA",
    looks_for="a CSV with the columns video, question, answer and a0 to a4",
    tasks=frozenset({"video_qa"}),
    matches=_matches,
    units=_units,
    build=_build,
)
