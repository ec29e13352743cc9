"""Runs a model on tasks: in batches, over processes, resumable."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from avfusion.aveb.records import Record, shuffled
from avfusion.aveb.requests import Answerer, make_request
from avfusion.aveb.runner.answers import Answer, AnswerLog, read_answers
from avfusion.aveb.runner.processes import Processes
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.files import locked, write_whole

SETTINGS = "settings.json"


def run_task(
    model: Answerer,
    records: Sequence[Record],
    out: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    seed: int = 0,
    blind: bool = False,
    skip_bad: bool = False,
    progress: bool = False,
) -> list[Answer]:
    """Asks a model about every record of a task and writes ``OUT/TASK.jsonl``, in the order of the records.

    Every answer is written to disk before the next request. A repeated call resumes an interrupted run and skips
    answered records. Under ``accelerate launch`` or ``torchrun`` the records are distributed over processes; the
    resulting file is the same.

    Args:
        model: the model to evaluate.
        records: records of one task, with unique ids.
        out: folder of the answers.
        settings: other settings that affect the answers, such as the model's name; a folder with answers of other
            settings raises an error.
        batch_size: requests per call of the model.
        seed: seed of the order of candidates.
        blind: withhold the media.
        skip_bad: continue after a record that cannot be read, for example because of a broken file, and store the
            reason; the record counts as an empty answer. Otherwise the run ends with an error.
        progress: show a progress bar.

    Returns:
        The answers of all processes, in the order of the records.

    Raises:
        InvalidValueError: records of several tasks or none, other settings, a record that cannot be read, a model that
            returns too few or too many answers, or a folder in which another run writes.
        InvalidTypeError: a model that returns anything but text.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from avfusion.aveb import Record
        >>> from avfusion.aveb.runner import run_task
        >>> class Parrot:
        ...     def answer(self, requests):
        ...         return [request.prompt for request in requests]
        >>> records = [Record(id="1", task="asr", audio=Path("1.flac"), references=("hello",))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [answer] = run_task(Parrot(), records, folder)
        >>> answer.prediction, answer.references
        ('Transcribe the speech.', ('hello',))
    """
    task = _only_task(records)
    if batch_size < 1:
        raise InvalidValueError(f"batch_size: must be at least 1, found {batch_size}")
    folder, processes = Path(out), Processes()
    with locked(folder) if processes.first else nullcontext():
        if processes.first:
            _agree(folder, task, {**(settings or {}), "seed": seed, "blind": blind}, records)
        processes.wait()
        _ask(model, records, folder, processes, batch_size, progress, seed=seed, blind=blind, skip_bad=skip_bad)
        if processes.first:
            _join(folder, task, records)
        processes.wait()
    return read_answers(folder / f"{task}.jsonl")


def _ask(
    model: Answerer,
    records: Sequence[Record],
    folder: Path,
    processes: Processes,
    batch_size: int,
    progress: bool,
    **options: Any,
) -> None:
    """This process's share of the unanswered records."""
    task = records[0].task
    done = {answer.id: answer for path in _parts(folder, task) for answer in read_answers(path, torn=True)}
    waiting = [record for record in records if record.id not in done]
    share = waiting[processes.rank :: processes.count]
    processes.wait()  # until all have read the existing answers
    part = folder / f"{task}.part{processes.rank}.jsonl"
    with AnswerLog(part) as log:
        for batch in _batches(share, batch_size, progress and processes.first, task):
            for answers in _answered(model, batch, **options):
                log.add(answers)
    processes.wait()


def _only_task(records: Sequence[Record]) -> str:
    tasks = sorted({record.task for record in records})
    if len(tasks) != 1:
        raise InvalidValueError(f"records: must be of one task, found {tasks}")
    if len({record.id for record in records}) < len(records):
        raise InvalidValueError(f"records: ids must differ, found {len(records)} records of {tasks[0]} with fewer ids")
    return tasks[0]


def _agree(folder: Path, task: str, settings: dict[str, Any], records: Sequence[Record]) -> None:
    """Stores the settings, or compares them with those of the folder's answers."""
    ids = hashlib.sha256("\0".join(record.id for record in records).encode("utf-8", "surrogatepass")).hexdigest()
    path = folder / SETTINGS
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {**settings, "records": {}}
    for name in sorted(({*known} | {*settings}) - {"records"}):
        if known.get(name) != settings.get(name):
            raise InvalidValueError(
                f"out: {folder} holds answers made with {name}={known.get(name)!r}, found {settings.get(name)!r}; "
                "choose another folder"
            )
    if known["records"].setdefault(task, ids) != ids:
        raise InvalidValueError(f"out: {folder} holds answers to other records of {task}; choose another folder")
    write_whole(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def _parts(folder: Path, task: str) -> list[Path]:
    """Existing answers: the joined file, and the parts of all processes of this run and of earlier ones."""
    return [*folder.glob(f"{task}.jsonl"), *sorted(folder.glob(f"{task}.part*.jsonl"))]


def _batches(records: Sequence[Record], size: int, progress: bool, task: str) -> Iterator[Sequence[Record]]:
    if not progress:
        yield from (records[start : start + size] for start in range(0, len(records), size))
        return
    from tqdm import tqdm

    with tqdm(total=len(records), desc=task, unit="record", disable=None) as bar:
        for start in range(0, len(records), size):
            yield records[start : start + size]
            bar.update(min(size, len(records) - start))


def _answered(
    model: Answerer, records: Sequence[Record], *, seed: int, blind: bool, skip_bad: bool
) -> Iterator[list[Answer]]:
    """Answers to a batch; if one record fails, each record separately."""
    shown = [shuffled(record, seed) for record in records]
    try:
        said = model.answer([make_request(record, blind=blind) for record in shown])
    except (InvalidValueError, InvalidTypeError, OSError) as error:
        if len(records) > 1:
            for record in records:
                yield from _answered(model, [record], seed=seed, blind=blind, skip_bad=skip_bad)
            return
        if not skip_bad:
            raise InvalidValueError(f"{records[0].task} {records[0].id}, {records[0].place}: {error}") from error
        yield [Answer.of(records[0], shown[0], "", str(error))]
        return
    texts = _checked(said, len(records))
    yield [Answer.of(record, other, text) for record, other, text in zip(records, shown, texts, strict=True)]


def _checked(said: Sequence[str], count: int) -> Sequence[str]:
    if isinstance(said, str) or len(said) != count:
        found = "a text" if isinstance(said, str) else len(said)
        raise InvalidValueError(f"model: must give an answer to each of {count} requests, found {found}")
    wrong = next((text for text in said if not isinstance(text, str)), "")
    if not isinstance(wrong, str):
        raise InvalidTypeError(f"model: must answer with text, found {type(wrong).__name__}")
    return said


def _join(folder: Path, task: str, records: Sequence[Record]) -> None:
    """Joins all parts to one file in the order of the records, and then deletes the parts."""
    answers = {answer.id: answer for path in _parts(folder, task) for answer in read_answers(path, torn=True)}
    write_whole(folder / f"{task}.jsonl", "".join(answers[record.id].line() for record in records))
    for path in folder.glob(f"{task}.part*.jsonl"):
        path.unlink()
