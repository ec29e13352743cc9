"""Any published file of the benchmark to records."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from avfusion.aveb.readers.audiocaps import AUDIOCAPS
from avfusion.aveb.readers.dialogue import AVSD
from avfusion.aveb.readers.flickr30k import FLICKR30K
from avfusion.aveb.readers.gqa import GQA
from avfusion.aveb.readers.how2 import HOW2
from avfusion.aveb.readers.layout import Context, Layout
from avfusion.aveb.readers.librispeech import LIBRISPEECH
from avfusion.aveb.readers.manifest import MANIFEST
from avfusion.aveb.readers.media import MediaRoot, is_file
from avfusion.aveb.readers.native import NATIVE
from avfusion.aveb.readers.nextqa import NEXTQA
from avfusion.aveb.readers.source import Broken, Source
from avfusion.aveb.readers.spokencoco import SPOKENCOCO
from avfusion.aveb.readers.textvqa import TEXTVQA
from avfusion.aveb.readers.vggsound import VGGSOUND, VGGSS
from avfusion.aveb.records import MEDIA, BadRecord, Record, RecordError, Records
from avfusion.aveb.tasks import Task, get_task
from avfusion.errors import InvalidTypeError, InvalidValueError

_LAYOUTS = (
    NATIVE,
    LIBRISPEECH,
    HOW2,
    AUDIOCAPS,
    NEXTQA,
    VGGSOUND,
    FLICKR30K,
    AVSD,
    TEXTVQA,
    SPOKENCOCO,
    GQA,
    VGGSS,
    MANIFEST,
)


def read_records(
    task: str | Task,
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    skip_bad: bool = False,
    check_files: bool = False,
    split: str = "test",
    keep_mislabelled: bool = False,
    turns: Literal["last", "all"] = "last",
    seed: int = 0,
) -> Records:
    """Reads the records of a task from a published manifest, or from the data set's own files.

    The layout is detected from the content of the file. Media are searched below ``media_root`` by the longest suffix
    of their published path that exists. If none exists, a relative path is appended as it is, and of an absolute path
    the file name. Repeated ids in a file get ``#2``, ``#3``, … in the order of the file.

    Args:
        task: the task, or its name.
        path: a manifest, or the data set's own file or folder.
        media_root: folder of the media; by default the folder of ``path``.
        skip_bad: skip invalid records and list them in ``skipped``, instead of raising an error at the first.
        check_files: treat a record whose media do not exist as invalid.
        split: the split to read from a file with several (Karpathy's and VGG-Sound's).
        keep_mislabelled: keep the published answer "No" of the AVM item ``1_0T2ZIjWnw_000031``, whose audio and video
            are from the same clip; by default it is read as "Yes".
        turns: ``"last"`` asks the last question of a dialogue with all earlier turns as history, ``"all"`` each of
            them.
        seed: seed of the pairs of audio and video, if AVM's pairs are drawn here instead of published.

    Raises:
        InvalidValueError: the file cannot be read, or has no layout of the task.
        RecordError: an invalid record; the message names file and index, the rule and the found value.

    Example:
        >>> import json, pathlib, tempfile
        >>> from avfusion.aveb import read_records
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "questions.json")
        ...     good = {"image": "n161313.jpg", "question": "Is it overcast?", "answer": "no"}
        ...     _ = file.write_text(json.dumps([good, {"image": "n143672.jpg"}]))
        ...     records = read_records("vqa", file, skip_bad=True)
        >>> records[0].question, records[0].references
        ('Is it overcast?', ('no',))
        >>> [(bad.index, bad.reason) for bad in records.skipped]
        [(1, 'a record must have "answer" or "answers"...')]
    """
    task = task if isinstance(task, Task) else get_task(task)
    if turns not in ("last", "all"):
        raise InvalidValueError(f'turns: must be "last" or "all", found {turns!r:.80}')
    source = Source(path)
    layout = _layout_of(source, task)
    root = media_root if media_root is not None else source.path if source.is_folder else source.path.parent
    context = Context(
        task=task,
        source=source,
        media=MediaRoot(root),
        split=split,
        keep_mislabelled=keep_mislabelled,
        turns=turns,
        seed=seed,
    )
    records: dict[str, Record] = {}
    times: Counter[str] = Counter()
    skipped: list[BadRecord] = []
    for found in _each(layout, context, check_files):
        if isinstance(found, BadRecord):
            if not skip_bad:
                raise RecordError(str(found))
            skipped.append(found)
        elif layout.merges and found.id in records:
            first = records[found.id]
            records[found.id] = replace(first, references=first.references + found.references)
        else:
            name = _unused(found.id, records, times)
            records[name] = replace(found, id=name)
    if not records and not skipped:
        raise InvalidValueError(f"{path}: must hold records of {layout.name}, found none")
    return Records(tuple(records.values()), tuple(skipped), layout.name)


def _layout_of(source: Source, task: Task) -> Layout:
    known = [layout for layout in _LAYOUTS if task.name in layout.tasks or layout is MANIFEST]
    for layout in known:
        if layout.matches(source):
            return layout
    looked_for = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in known)
    other = next((layout.name for layout in _LAYOUTS if layout not in known and layout.matches(source)), None)
    found = f"the layout of {other}" if other else _outline(source)
    raise InvalidValueError(f"{source.path}: must have a layout of {task.name} ({looked_for}), found {found}")


def _outline(source: Source) -> str:
    """What is in a file of no known layout, in a few words."""
    if source.form == "folder":
        return "a folder without any of these files"
    if source.form == "table":
        return f"text whose first line is {','.join(source.columns)!r:.80}"
    reason = next((unit.value.reason for unit in source.units() if isinstance(unit.value, Broken)), None)
    first = next(iter(source.sample), None)
    what = f"with the keys {sorted(first)!r:.80}" if isinstance(first, dict) else f"of {type(first).__name__}"
    return f"JSON {what}" if reason is None else f"JSON {what}; {reason}"


def _each(layout: Layout, context: Context, check_files: bool) -> Iterator[Record | BadRecord]:
    """The records and the bad ones, in the order of the file."""
    for unit in layout.units(context.source, context):
        file = unit.file or context.source.path
        if isinstance(unit.value, Broken):
            yield BadRecord(file, unit.index, unit.value.reason)
            continue
        try:
            built = list(layout.build(unit.value, context))
            for record in built:
                _check_fits(record, context.task, check_files)
        except (InvalidValueError, InvalidTypeError) as error:
            yield BadRecord(file, unit.index, str(error))
            continue
        yield from (replace(record, source=file, index=unit.index) for record in built)


def _check_fits(record: Record, task: Task, check_files: bool) -> None:
    """Refuses a record that a task cannot ask."""
    has = {kind: getattr(record, kind) for kind in MEDIA if getattr(record, kind) is not None}
    for need in task.needs:
        if not (has.keys() & {"video", "image"} if need == "visual" else need in has):
            raise InvalidValueError(f"media: {task.title} needs {need}, found {sorted(has)}")
    if record.question is None and task.prompt is None:
        raise InvalidValueError("question: must be given, found none")
    for kind, path in has.items():
        if check_files and not is_file(path):
            raise InvalidValueError(f"{kind}: no such file, {path}")


def _unused(name: str, taken: dict[str, Record], times: Counter[str]) -> str:
    """The name, with the first number from 2 that makes it a new one; ``times`` remembers how far the numbers are."""
    free = name
    while free in taken:
        times[name] += 1
        free = f"{name}#{times[name] + 1}"
    return free
