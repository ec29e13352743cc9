"""Answers on disk: a line each, written at once, none lost or written twice."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avfusion.aveb.records import Record
from avfusion.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said to a record, with all that scoring needs.

    Attributes:
        id: the record's.
        task: the record's.
        prediction: what the model said; empty where it could not be asked.
        references: the right answers.
        question: what was asked, without candidates.
        candidates: in the order in which they were shown.
        published_place: place of the right candidate in the published order.
        error: why the model could not be asked, if so.

    Example:
        >>> from avfusion.aveb.runner import Answer
        >>> print(Answer(id="1", task="avm", prediction="Yes.", references=("yes",)).line().strip())
        {"id": "1", "task": "avm", "prediction": "Yes.", "references": ["yes"]}
    """

    id: str
    task: str
    prediction: str
    references: tuple[str, ...]
    question: str | None = None
    candidates: tuple[str, ...] | None = None
    published_place: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, record: Record, shown: Record, prediction: str, error: str | None = None) -> "Answer":
        """The answer to a record that was shown with its candidates in another order."""
        return cls(
            id=record.id,
            task=record.task,
            prediction=prediction,
            references=record.references,
            question=record.question,
            candidates=shown.candidates,
            published_place=record.answer_index,
            error=error,
        )

    def line(self) -> str:
        """One line of JSON without what is not there."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(fields, ensure_ascii=False) + "\n"


class AnswerLog:
    """A file to which answers are added, each on the disk before the next is asked for.

    Args:
        path: a JSONL; made if it is not there. A last line that a killed process left unfinished is taken off.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def add(self, answers: Iterable[Answer]) -> None:
        """Writes answers through to the disk."""
        self._file.write("".join(answer.line() for answer in answers))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "AnswerLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def read_answers(path: Path, *, torn: bool = False) -> list[Answer]:
    """Answers of a file, in its order.

    Args:
        path: a JSONL, as a run writes it.
        torn: leave out a last line that has no end.

    Raises:
        InvalidValueError: a line that is not an answer; the message names file and line.

    Example:
        >>> import pathlib, tempfile
        >>> from avfusion.aveb.runner import Answer, read_answers
        >>> file = pathlib.Path(tempfile.mkdtemp(), "avm.jsonl")
        >>> _ = file.write_text(Answer(id="1", task="avm", prediction="Yes.", references=("yes",)).line())
        >>> [answer.prediction for answer in read_answers(file)]
        ['Yes.']
    """
    return list(_read(path, torn))


def _read(path: Path, torn: bool) -> Iterator[Answer]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"answers: cannot read {path} ({error})") from None
    last = lines.pop()
    if last and not torn:
        lines.append(last)
    for number, line in enumerate(lines, 1):
        try:
            yield _parsed(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidValueError(f"{path}:{number}: must be an answer as a run writes it ({error})") from None


def _parsed(fields: Mapping[str, Any]) -> Answer:
    listed = {name: tuple(fields[name]) for name in ("references", "candidates") if fields.get(name) is not None}
    answer = Answer(**{**fields, **listed})
    if not isinstance(answer.prediction, str) or not answer.references:
        raise ValueError("prediction must be text and references not empty")
    return answer
