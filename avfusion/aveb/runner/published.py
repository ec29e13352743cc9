"""Files of generated answers, as the benchmark's authors publish them: ``answer`` beside ``gen_answer``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avfusion.aveb.readers.answers import answer_fields
from avfusion.aveb.readers.fields import as_object, as_text, find
from avfusion.aveb.readers.source import Broken, Source
from avfusion.aveb.runner.answers import Answer, read_answers
from avfusion.aveb.tasks import Task, get_task
from avfusion.errors import InvalidTypeError, InvalidValueError

_IDS = ("id", "question_id", "qid")
_GENERATED = ("gen_answer", "prediction", "generated")


def load_answers(path: str | Path, task: str | Task | None = None) -> list[Answer]:
    """Answers of a run, or of a file of ``answer`` and ``gen_answer``, JSON or JSONL.

    Args:
        path: the file.
        task: what an authors' file is about; a run's own says so itself.

    Raises:
        InvalidValueError: neither of both, or a task that is not told.

    Example:
        >>> import json, pathlib, tempfile
        >>> from avfusion.aveb.runner import load_answers
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "ocr.json")
        ...     said = {"question": "Which brand?", "answer": ["dell"], "gen_answer": "Dell."}
        ...     _ = file.write_text(json.dumps([said]))
        ...     [answer] = load_answers(file, "ocr")
        >>> answer.prediction, answer.references
        ('Dell.', ('dell',))
    """
    source = Source(path)
    if source.is_folder:
        raise InvalidValueError(f"path: must be a file of answers, found the folder {path}")
    if source.has_keys("prediction", "references", "task"):
        answers = read_answers(source.path)
        if task is not None and any(answer.task != _task(task).name for answer in answers):
            raise InvalidValueError(f"{path}: must hold answers to {_task(task).name}, found {answers[0].task}")
        return answers
    if task is None:
        raise InvalidValueError(f"{path}: a file of gen_answer does not say its task; give it as TASK=FILE")
    answers = []
    for unit in source.units():
        try:
            if isinstance(unit.value, Broken):
                raise InvalidValueError(unit.value.reason)
            answers.append(_answer(as_object(unit.value), unit.index, _task(task)))
        except (InvalidValueError, InvalidTypeError) as error:
            raise InvalidValueError(f"{path}[{unit.index}]: {error}") from None
    if not answers:
        raise InvalidValueError(f"{path}: must hold answers, found none")
    return answers


def _task(task: str | Task) -> Task:
    return task if isinstance(task, Task) else get_task(task)


def _answer(raw: Mapping[str, Any], index: int, task: Task) -> Answer:
    candidates = raw.get("answer_candidates", raw.get("candidates"))
    fields = answer_fields(task, find(raw, "answer", "answers"), candidates)
    name = next((raw[key] for key in _IDS if raw.get(key) is not None), None)
    question = raw.get("question")
    return Answer(
        id=f"#{index}" if name is None else f"{name}#{index}",
        task=task.name,
        prediction=as_text(find(raw, *_GENERATED), "gen_answer", blank=True),
        references=fields["references"],
        question=question if isinstance(question, str) else None,
        candidates=fields.get("candidates"),
        published_place=fields.get("answer_index"),
    )
