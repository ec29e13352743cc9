"""Records as this library writes them: JSON lines with the fields of a record, media relative to the file."""

import json
import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from avfusion.aveb.readers.fields import as_object, shown
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.source import Source
from avfusion.aveb.records import MEDIA, Record
from avfusion.aveb.tasks import TASKS
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.files import write_whole

_MUST = ("id", "task", "references")
_NAMES = {field.name for field in fields(Record)} - {"source", "index"}


def write_records(records: Iterable[Record], path: str | Path) -> None:
    """Writes records to a JSONL file for :func:`~avfusion.aveb.read_records`; media paths are relative to it.

    Raises:
        InvalidValueError: a media file is not below the folder of the JSONL file.

    Example:
        >>> import pathlib, tempfile
        >>> from avfusion.aveb import Record, read_records, write_records
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> record = Record(id="1", task="asr", audio=folder / "media" / "1.wav", references=("hello",))
        >>> write_records([record], folder / "asr.jsonl")
        >>> read_records("asr", folder / "asr.jsonl")[0].audio == record.audio
        True

    Raises:
        InvalidValueError: media that are not below the file's folder.
    """
    path = Path(path)
    lines = (json.dumps(_as_json(record, path.parent), ensure_ascii=False) + "\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(lines))


def _as_json(record: Record, folder: Path) -> dict[str, Any]:
    given = {field.name: getattr(record, field.name) for field in fields(Record) if field.name in _NAMES}
    for kind in MEDIA:
        if given[kind] is not None:
            relative = Path(os.path.relpath(given[kind], folder)).as_posix()
            if relative.startswith("../"):
                raise InvalidValueError(f"{kind}: must be below {folder}, found {given[kind]}")
            given[kind] = relative
    return {name: value for name, value in given.items() if value is not None and value is not False and value != ()}


def _matches(source: Source) -> bool:
    return source.form in ("lines", "object") and source.has_keys(*_MUST)


def _build(raw: Any, context: Context) -> Iterable[Record]:
    given = dict(as_object(raw))
    if given.get("task") != context.task.name:
        raise InvalidValueError(f'task: must be "{context.task.name}", found {shown(given.get("task"))}')
    unknown = sorted(set(given) - _NAMES)
    if unknown or any(name not in given for name in _MUST):
        raise InvalidValueError(f"a record must have {', '.join(_MUST)}, and only fields of a record, found {unknown}")
    for name in ("references", "candidates", "span", "history"):
        if isinstance(given.get(name), list):
            given[name] = tuple(tuple(part) if isinstance(part, list) else part for part in given[name])
    for kind in MEDIA:
        if given.get(kind) is not None:
            if not isinstance(given[kind], str):
                raise InvalidTypeError(f"{kind}: must be a path, found {shown(given[kind])}")
            given[kind] = context.media.find(given[kind])
    return [Record(**given)]


NATIVE = Layout(
    name="records",
    looks_for='JSON lines with "id", "task" and "references"',
    tasks=frozenset(TASKS),
    matches=_matches,
    build=_build,
)
