"""What a reader declares."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from avfusion.aveb.readers.fields import shown
from avfusion.aveb.readers.media import MediaRoot
from avfusion.aveb.readers.source import Broken, Source, Unit
from avfusion.aveb.records import Record
from avfusion.aveb.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a reader is told beside the raw record.

    Attributes:
        task: the task that records are read for.
        source: the file that is read.
        media: where its media are.
        split: the split to keep of a file that holds several.
        keep_mislabelled: keep the published label of the item that is known to be wrong.
        turns: ask the last question of a dialogue or every one.
        seed: chooses the partners of the pairs that do not match.
    """

    task: Task
    source: Source
    media: MediaRoot
    split: str
    keep_mislabelled: bool = False
    turns: Literal["last", "all"] = "last"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which records are published.

    Attributes:
        name: what it is called.
        looks_for: what a file of it has, for the message about a file that has none.
        tasks: names of the tasks that it has records for.
        matches: whether a file has it.
        build: the records of a raw record; none if it belongs to another split.
        units: the raw records of a file; those that the file lists without it.
        merges: records of one id are one record with several references, as captions of one clip are.
    """

    name: str
    looks_for: str
    tasks: frozenset[str]
    matches: Callable[[Source], bool]
    build: Callable[[Any, Context], Iterable[Record]]
    units: Callable[[Source, Context], Iterator[Unit]] = lambda source, _: source.units()
    merges: bool = False


def stem(name: str) -> str:
    """A file's own name without its ending."""
    return PurePosixPath(name.strip().replace("\\", "/")).stem


def listed(values: Any, name: str) -> Iterator[Unit]:
    """The raw records of a list inside a JSON object."""
    units = values if isinstance(values, list) else [Broken(f"{name}: must be a list, found {shown(values)}")]
    return map(Unit, range(len(units)), units)
