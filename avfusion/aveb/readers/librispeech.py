"""LibriSpeech: folders with a ``*.trans.txt`` of transcripts beside their flac files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from avfusion.aveb.readers.fields import as_text, shown
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.media import is_file
from avfusion.aveb.readers.source import Broken, Source, Unit
from avfusion.aveb.records import Record

_NAME = "*.trans.txt"


def _matches(source: Source) -> bool:
    if source.is_folder:
        return next(source.path.rglob(_NAME), None) is not None
    return source.path.match(_NAME)


def _units(source: Source, _context: Context) -> Iterator[Unit]:
    files = sorted(source.path.rglob(_NAME)) if source.is_folder else [source.path]
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, ValueError) as error:
            yield Unit(0, Broken(f"cannot be read ({error})"), file)
            continue
        for index, line in enumerate(filter(str.strip, lines)):
            name, _, words = line.strip().partition(" ")
            if words.strip() and name.count("-") == 2:
                yield Unit(index, (file, name, words), file)
            else:
                reason = f"a line must be SPEAKER-CHAPTER-NUMBER and a transcript, found {shown(line)}"
                yield Unit(index, Broken(reason), file)


def _build(raw: tuple[Path, str, str], context: Context) -> Iterable[Record]:
    file, name, words = raw
    folder = "/".join(name.split("-")[:2])
    beside = next(filter(is_file, (file.with_name(f"{name}{ending}") for ending in (".flac", ".wav"))), None)
    audio = beside or context.media.first(f"{folder}/{name}.flac", f"{folder}/{name}.wav")
    fields: dict[str, Any] = {"id": as_text(name, "id"), "task": context.task.name}
    return [Record(**fields, audio=audio, references=(as_text(words, "transcript"),))]


LIBRISPEECH = Layout(
    name="LibriSpeech",
    looks_for="a folder with SPEAKER-CHAPTER.trans.txt files",
    tasks=frozenset({"asr"}),
    matches=_matches,
    units=_units,
    build=_build,
)
