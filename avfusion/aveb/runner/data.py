"""Where the records of each task are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from avfusion.aveb.tasks import TASKS, get_task
from avfusion.errors import InvalidValueError

_ENDINGS = (".jsonl", ".json", ".csv", "")


def find_data(data: Sequence[str], tasks: Sequence[str] = ()) -> Mapping[str, Path]:
    """The file or folder of each task.

    Args:
        data: folders that hold ``TASK.jsonl``, ``TASK.json``, ``TASK.csv`` or a folder ``TASK``; or ``TASK=PATH``,
            which goes before.
        tasks: names of tasks; all for which there are data without them.

    Raises:
        InvalidValueError: a task without data, data that are not there, or none at all.

    Example:
        >>> import pathlib, tempfile
        >>> from avfusion.aveb.runner import find_data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "asr.jsonl").write_text("")
        ...     found = find_data([folder, "ocr=textvqa.json"])
        >>> {task: path.name for task, path in found.items()}
        {'asr': 'asr.jsonl', 'ocr': 'textvqa.json'}
    """
    named: dict[str, Path] = {}
    folders: list[Path] = []
    for value in data:
        task, equals, path = value.partition("=")
        if equals and not Path(value).exists():
            named[get_task(task).name] = Path(path)
        elif Path(value).is_dir():
            folders.append(Path(value))
        else:
            raise InvalidValueError(f"data: must be a folder, or TASK=PATH, found {value!r}")
    wanted = [get_task(name).name for name in tasks] or list(TASKS)
    found: dict[str, Path] = {}
    for task in wanted:
        places = [folder / f"{task}{ending}" for folder in folders for ending in _ENDINGS]
        place = named.get(task) or next((place for place in places if place.exists()), None)
        if place is not None:
            found[task] = place
        elif tasks:
            raise InvalidValueError(f"data: must hold {task}.jsonl, .json, .csv or a folder {task}, found {list(data)}")
    if not found:
        raise InvalidValueError(f"data: must hold records of a task, such as asr.jsonl, found none in {list(data)}")
    return found
