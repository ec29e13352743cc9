"""Requests to a model, and the protocol of models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Protocol, runtime_checkable

from avfusion.aveb.records import Record
from avfusion.aveb.tasks import get_task

CHOOSE = "Answer with the letter of the right option."


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to a model.

    Attributes:
        id: id of the record.
        task: task of the record.
        prompt: the question; for multiple choice with the lettered candidates.
        history: earlier (question, answer) pairs of a dialogue.
        video: video file, or ``None``, as for the next two.
        audio: audio file; may be the video file.
        image: image file.
        span: interval of the files in seconds that the question is about; ``None`` for the whole files.

    Example:
        >>> from pathlib import Path
        >>> from avfusion.aveb import Record, make_request
        >>> record = Record(id="1", task="vqa", image=Path("n1.jpg"), question="Is it overcast?", references=("no",))
        >>> request = make_request(record)
        >>> request.id, request.image.name, request.video is None
        ('1', 'n1.jpg', True)
    """

    id: str
    task: str
    prompt: str
    history: tuple[tuple[str, str], ...] = ()
    video: Path | None = None
    audio: Path | None = None
    image: Path | None = None
    span: tuple[float, float] | None = None


@runtime_checkable
class Answerer(Protocol):
    """The protocol of models: answers a few requests at once, in their order.

    ``InvalidValueError``, ``InvalidTypeError`` and ``OSError`` are errors of a request, such as a file that cannot be
    read; any other error ends the run.

    Example:
        >>> class Silent:
        ...     def answer(self, requests):
        ...         return ["" for request in requests]
        >>> from avfusion.aveb import Answerer
        >>> isinstance(Silent(), Answerer)
        True
    """

    def answer(self, requests: Sequence[Request]) -> Sequence[str]:
        """Returns one text per request."""
        ...


def make_request(record: Record, *, blind: bool = False) -> Request:
    """The request of a record.

    Args:
        record: its candidates are offered in its own order; see :func:`~avfusion.aveb.shuffled`.
        blind: withhold the media.

    Example:
        >>> from pathlib import Path
        >>> from avfusion.aveb import Record, make_request
        >>> record = Record(
        ...     id="1", task="video_qa", video=Path("1.mp4"), question="Who barks?", references=("a dog",),
        ...     candidates=("a cat", "a dog"), answer_index=1
        ... )
        >>> print(make_request(record).prompt)
        Who barks?
        A. a cat
        B. a dog
        Answer with the letter of the right option.
    """
    prompt = record.question or get_task(record.task).prompt or ""
    if record.candidates is not None:
        options = (f"{letter}. {text}" for letter, text in zip(ascii_uppercase, record.candidates, strict=False))
        prompt = "\n".join((prompt, *options, CHOOSE))
    media = {} if blind else {"video": record.video, "audio": record.audio, "image": record.image}
    span = record.span if record.needs_cut and not blind else None
    return Request(id=record.id, task=record.task, prompt=prompt, history=record.history, span=span, **media)
