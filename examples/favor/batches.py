"""Answers to many questions: workers read the media of the next ones while the model answers these."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avfusion import InvalidTypeError, InvalidValueError
from examples.favor.answering import Answerer
from examples.favor.processing_favor import FavorProcessor
from examples.favor.questions import Question


class Part(NamedTuple):
    """Questions that are answered together.

    Attributes:
        rows: how many.
        inputs: what the model takes for them.
        error: why there are no inputs.
    """

    rows: int
    inputs: dict[str, Tensor] | None
    error: str | None = None


def answers(
    answerer: Answerer, questions: Sequence[Question], *, batch_size: int, workers: int = 0
) -> Iterator[dict[str, str]]:
    """``{"answer": ...}`` for each question, in their order, as soon as its batch is answered.

    A question whose media cannot be read gets ``{"error": ...}``, and the others of its batch their answers.

    Args:
        answerer: model and processor.
        questions: all of them.
        batch_size: how many are answered at once.
        workers: processes that read media.
    """
    batches = _Batches(questions, answerer.processor, batch_size)
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=min(workers, len(batches)),
        pin_memory=answerer.model.device.type == "cuda",
        generator=torch.Generator(),  # a loader draws a number: not of those by which answers are sampled
    )
    waiting = iter(questions)
    for parts in loader:
        for part in parts:
            yield from _results(answerer, list(islice(waiting, part.rows)), part)


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Batches(Dataset[list[Part]]):
    """The inputs of each batch of questions; in parts where some have none."""

    def __init__(self, questions: Sequence[Question], processor: FavorProcessor, size: int) -> None:
        self.questions = questions
        self.processor = processor
        self.size = size

    def __len__(self) -> int:
        return math.ceil(len(self.questions) / self.size)

    def __getitem__(self, index: int) -> list[Part]:
        return _read(self.processor, self.questions[index * self.size : (index + 1) * self.size])


def _read(processor: FavorProcessor, questions: Sequence[Question]) -> list[Part]:
    try:
        return [Part(len(questions), dict(processor.apply_chat_template([one.messages for one in questions])))]
    except (InvalidValueError, InvalidTypeError) as error:
        if len(questions) == 1:
            return [Part(1, None, first_line(error))]
    return [part for question in questions for part in _read(processor, [question])]


def _results(answerer: Answerer, questions: list[Question], part: Part) -> list[dict[str, str]]:
    if part.inputs is None:
        return [{"error": str(part.error)}]
    try:
        return [{"answer": text} for text in answerer.answer_inputs(part.inputs)]
    except (InvalidValueError, InvalidTypeError) as error:
        if len(questions) == 1:
            return [{"error": first_line(error)}]
    alone = ((question, _read(answerer.processor, [question])[0]) for question in questions)
    return [result for question, one in alone for result in _results(answerer, [question], one)]
