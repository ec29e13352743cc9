"""One item of the benchmark, and the order of its candidates."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from avfusion.errors import InvalidTypeError, InvalidValueError

MEDIA = ("video", "audio", "image")
"""The kinds of media that a record may have, by the names of its fields."""


class RecordError(InvalidValueError):
    """A record that cannot be read; the message names file and index, what is wrong and what was found.

    Example:
        >>> import pathlib, tempfile
        >>> from avfusion.aveb import RecordError, read_records
        >>> file = pathlib.Path(tempfile.mkdtemp(), "avm.json")
        >>> _ = file.write_text('[{"image_name": ["1.jpg", "1.wav"], "question": "Alike?", "answer": "maybe"}]')
        >>> try:
        ...     read_records("avm", file)
        ... except RecordError as error:
        ...     print(str(error).removeprefix(str(file)))
        [0]: answer: must be "Yes" or "No", found 'maybe'
    """


@dataclass(frozen=True, kw_only=True)
class Record:
    """One item: media, a question about them, and the right answers.

    Attributes:
        id: unique inside a task.
        task: name of the task, as :func:`get_task` takes it.
        references: the right answers, at least one.
        question: the question to the model; the task's prompt by default.
        video: video file.
        audio: audio file; may be the video file.
        image: image file. A record has at least one of the three.
        candidates: options of a multiple-choice question.
        answer_index: index of the right candidate.
        history: earlier (question, answer) pairs of a dialogue.
        span: (start, end) of the clip in seconds of the recording it comes from.
        needs_cut: the files contain the whole recording, from which ``span`` must be cut; otherwise only the clip.
        source: the file that the record was read from.
        index: index of the record in that file, from 0.

    Raises:
        InvalidValueError: inconsistent values.
        InvalidTypeError: a value of the wrong type.

    Example:
        >>> from pathlib import Path
        >>> from avfusion.aveb import Record
        >>> record = Record(id="1", task="vqa", image=Path("n1.jpg"), question="Is it overcast?", references=("no",))
        >>> record.audio is None, record.references
        (True, ('no',))
    """

    id: str
    task: str
    references: tuple[str, ...]
    question: str | None = None
    video: Path | None = None
    audio: Path | None = None
    image: Path | None = None
    candidates: tuple[str, ...] | None = None
    answer_index: int | None = None
    history: tuple[tuple[str, str], ...] = ()
    span: tuple[float, float] | None = None
    needs_cut: bool = False
    source: Path | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        for name in ("id", "task"):
            _check_texts((getattr(self, name),), name)
        if self.question is not None:
            _check_texts((self.question,), "question")
        _check_texts(self.references, "references", empty=True)
        for name in (*MEDIA, "source"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Path):
                raise InvalidTypeError(f"{name}: must be a Path or None, found {value!r:.80}")
        if not any(getattr(self, name) for name in MEDIA):
            raise InvalidValueError(f"media: must have at least one of {', '.join(MEDIA)}, found none")
        self._check_candidates()
        if not isinstance(self.history, tuple):
            raise InvalidTypeError(f"history: must be a tuple of pairs, found {self.history!r:.80}")
        for pair in self.history:
            _check_texts(pair, "history", empty=True)
            if len(pair) != 2:
                raise InvalidValueError(f"history: must hold pairs of question and answer, found {pair!r:.80}")
        self._check_span()

    def _check_candidates(self) -> None:
        if self.candidates is None:
            if self.answer_index is not None:
                raise InvalidValueError(f"answer_index: must be None without candidates, found {self.answer_index!r}")
            return
        _check_texts(self.candidates, "candidates")
        if len(self.candidates) < 2:
            raise InvalidValueError(f"candidates: must be at least two, found {self.candidates!r:.80}")
        if type(self.answer_index) is not int or not 0 <= self.answer_index < len(self.candidates):
            raise InvalidValueError(
                f"answer_index: must be from 0 to {len(self.candidates) - 1}, found {self.answer_index!r}"
            )
        if self.references != (self.candidates[self.answer_index],):
            raise InvalidValueError(
                f"references: must be the candidate at answer_index alone, {self.candidates[self.answer_index]!r:.80}, "
                f"found {self.references!r:.80}"
            )

    def _check_span(self) -> None:
        if self.span is None:
            if self.needs_cut:
                raise InvalidValueError("needs_cut: needs a span, found None")
            return
        if (
            not isinstance(self.span, tuple)
            or len(self.span) != 2
            or {type(value) for value in self.span} - {int, float}
        ):
            raise InvalidTypeError(f"span: must be two numbers of seconds, found {self.span!r:.80}")
        start, end = self.span
        if not 0 <= start < end or not math.isfinite(end):
            raise InvalidValueError(f"span: must be 0 <= start < end < inf, found {self.span!r:.80}")

    @property
    def place(self) -> str:
        """The record's place as messages give it, ``"FILE[INDEX]"``."""
        return f"{self.source}[{self.index}]"


def _check_texts(values: Sequence[str], name: str, *, empty: bool = False) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
        raise InvalidTypeError(f"{name}: must be text, several as a tuple, found {values!r:.80}")
    if not values:
        raise InvalidValueError(f"{name}: must not be empty, found {values!r}")
    if not empty and not all(value.strip() for value in values):
        raise InvalidValueError(f"{name}: must not be blank, found {values!r:.80}")


@dataclass(frozen=True)
class BadRecord:
    """A record that was skipped.

    Attributes:
        file: the file of the record.
        index: its index in the file, from 0; ``None`` for the whole file.
        reason: what is wrong and what was found.

    Example:
        >>> from pathlib import Path
        >>> from avfusion.aveb import BadRecord
        >>> print(BadRecord(file=Path("avm.json"), index=3, reason="answer: must be text, found None"))
        avm.json[3]: answer: must be text, found None
    """

    file: Path
    index: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.index is None else f'[{self.index}]'}: {self.reason}"


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """The records of a file: a sequence that also lists skipped records.

    Attributes:
        records: the records, in the order of the file.
        skipped: invalid records that were skipped, in the order of the file.
        layout: name of the detected layout of the file.

    Example:
        >>> from pathlib import Path
        >>> from avfusion.aveb import Record, Records
        >>> record = Record(id="1", task="vqa", image=Path("n1.jpg"), question="Is it overcast?", references=("no",))
        >>> records = Records((record,))
        >>> len(records), records[0].id, records.skipped
        (1, '1', ())
    """

    records: tuple[Record, ...]
    skipped: tuple[BadRecord, ...] = ()
    layout: str = ""

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


def shuffled(record: Record, seed: int = 0) -> Record:
    """The record with shuffled candidates; the order depends only on seed and id.

    In two of the published sets the third candidate is right in 48 % of the items, so a model that always answers the
    third scores as high as the published systems. The order comes from a SHA-256 hash: it does not depend on the
    process, the platform or the version of Python. A record without candidates is returned as it is.

    Example:
        >>> from pathlib import Path
        >>> from avfusion.aveb import Record, shuffled
        >>> record = Record(
        ...     id="1", task="video_qa", video=Path("1.mp4"), references=("cat",),
        ...     candidates=("dog", "cat"), answer_index=1
        ... )
        >>> other = shuffled(record, seed=3)
        >>> other.candidates[other.answer_index], other == shuffled(record, seed=3)
        ('cat', True)
    """
    if record.candidates is None or record.answer_index is None:
        return record
    order = sorted(range(len(record.candidates)), key=lambda place: stable_hash(seed, record.id, place))
    return replace(
        record,
        candidates=tuple(record.candidates[place] for place in order),
        answer_index=order.index(record.answer_index),
    )


def stable_hash(*parts: object) -> int:
    """A hash of the texts of the parts, the same in every process and on every machine."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
