"""Generates mini-AVEB: files, records, ground truth and a data card."""

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from avfusion.aveb.mini import moving, still
from avfusion.aveb.mini.files import write_media
from avfusion.aveb.mini.items import LEVELS, Difficulty, Level, Made
from avfusion.aveb.mini.speech import Speech, speak_all
from avfusion.aveb.readers import write_records
from avfusion.aveb.records import Record, stable_hash
from avfusion.errors import InvalidValueError
from avfusion.files import new_folder

SPLITS = {"train": 200, "validation": 25, "test": 50}
"""Items of each task, by split."""

TRUTH = "truth.jsonl"

MAKERS: Mapping[str, Callable[[np.random.Generator, Level, Speech], Made]] = {
    **{maker.__name__: maker for maker in (still.asr, still.ac, still.ic, still.ocr, still.vqa)},
    **{maker.__name__: maker for maker in (moving.video_qa, moving.avsr, moving.avsd)},
    **{maker.__name__: maker for maker in (still.isqa, moving.avssd, moving.avm)},
}
"""What makes an item of each task."""

_CHUNK = 25
_speech: Speech = {}


def generate(
    out: str | Path,
    *,
    seed: int = 0,
    items: Mapping[str, int] | None = None,
    tasks: tuple[str, ...] = tuple(MAKERS),
    difficulty: Difficulty = "easy",
    workers: int = 1,
) -> Path:
    """Generates mini-AVEB, the eleven tasks of AVEB on generated media.

    ``OUT/SPLIT/TASK.jsonl`` holds the records, for :func:`~avfusion.aveb.read_records` and ``run --data OUT/test``;
    ``OUT/SPLIT/media`` their files: 64 pixels wide, 8 pictures per second, sound at 22.05 kHz. ``truth.jsonl`` beside
    them describes the content of each file, and ``OUT/README.md`` the set. The same seed and package versions give the
    same bytes, for any number of workers.

    Args:
        out: a new or empty folder. Its files appear when all are generated.
        seed: seed of all content.
        items: items per task by split; ``SPLITS`` by default.
        tasks: names of tasks.
        difficulty: ``"easy"``, ``"medium"`` or ``"hard"``: number of words, objects and events, and level of noise.
        workers: number of processes.

    Returns:
        The folder.

    Raises:
        InvalidValueError: a folder that is not empty, or that another process is making,
            an unknown difficulty, task or split, fewer than one item.
        ImportError: the speech synthesiser is missing.

    Example:
        >>> import tempfile
        >>> from avfusion.aveb import read_records
        >>> from avfusion.aveb.mini import generate
        >>> folder = generate(tempfile.mkdtemp(), items={"test": 2}, tasks=("avm",))
        >>> [record.question for record in read_records("avm", folder / "test" / "avm.jsonl", check_files=True)]
        ['Do the sound and the picture belong together?', 'Do the sound and the picture belong together?']
    """
    folder = Path(out)
    counts = dict(SPLITS if items is None else items)
    _check(counts, tasks, difficulty, workers)
    with new_folder(folder) as part:  # so that a set that is there is whole
        _write(part, speak_all(), counts, tasks, seed=seed, difficulty=difficulty, workers=workers)
    return folder


def _write(
    folder: Path,
    speech: Speech,
    counts: Mapping[str, int],
    tasks: tuple[str, ...],
    *,
    seed: int,
    difficulty: Difficulty,
    workers: int,
) -> None:
    from avfusion.aveb.mini.card import card  # metrics are slow to import, and workers need none

    parts = [
        (split, task, range(first, min(first + _CHUNK, count)))
        for split, count in counts.items()
        for task in tasks
        for first in range(0, count, _CHUNK)
    ]
    for split in counts:
        (folder / split / "media").mkdir(parents=True, exist_ok=True)
    if workers == 1:
        _begin(speech)
        made = [_make(folder, seed, difficulty, part) for part in parts]
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(speech,)) as pool:
            made = list(pool.map(_make, repeat(folder), repeat(seed), repeat(difficulty), parts))
    for split in counts:
        truths = []
        for task in tasks:
            mine = (pairs for part, pairs in zip(parts, made, strict=True) if part[:2] == (split, task))
            found = [pair for pairs in mine for pair in pairs]
            write_records([record for record, _ in found], folder / split / f"{task}.jsonl")
            truths += [truth for _, truth in found]
        (folder / split / TRUTH).write_text("".join(json.dumps(truth) + "\n" for truth in truths))
    (folder / "README.md").write_text(card(folder, counts, tasks, seed=seed, difficulty=difficulty), encoding="utf-8")


def _check(counts: dict[str, int], tasks: tuple[str, ...], difficulty: str, workers: int) -> None:
    if difficulty not in LEVELS:
        raise InvalidValueError(f"difficulty: must be one of {', '.join(LEVELS)}, found {difficulty!r}")
    if not tasks or set(tasks) - set(MAKERS):
        raise InvalidValueError(f"tasks: must be among {', '.join(MAKERS)}, found {list(tasks)}")
    if not counts or set(counts) - set(SPLITS) or min(counts.values()) < 1:
        raise InvalidValueError(f"items: must be at least 1 for splits among {', '.join(SPLITS)}, found {counts}")
    if workers < 1:
        raise InvalidValueError(f"workers: must be at least 1, found {workers}")


def _begin(speech: Speech) -> None:
    """What a worker needs: the words, and no threads that would get in the others' way.

    It ends with the process that began it, even if that one is killed.
    """
    if parent_process() is not None:
        Thread(target=_end_with_parent, daemon=True).start()
    _speech.clear()
    _speech.update(speech)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(
    folder: Path, seed: int, difficulty: Difficulty, part: tuple[str, str, range]
) -> list[tuple[Record, dict[str, Any]]]:
    """Some items of a task; each is drawn from numbers of its own."""
    split, task, numbers = part
    found = []
    for number in numbers:
        choose = np.random.default_rng(stable_hash("mini-aveb", seed, difficulty, split, task, number))
        made = MAKERS[task](choose, LEVELS[difficulty], _speech)
        name = f"{split}-{task}-{number:05d}"
        media: dict[str, Any] = {**write_media(made, folder / split / "media" / name)}
        record = Record(id=name, task=task, **media, **made.record)
        found.append((record, {"id": name, "task": task, **made.truth}))
    return found
