"""Shared by all metrics: items with identities, exact sums, the bootstrap."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from avfusion.aveb.metrics._bootstrap import interval
from avfusion.aveb.parsers import strip_reasoning
from avfusion.errors import InvalidTypeError, InvalidValueError


class Score(NamedTuple):
    """The outcome of a metric over a set of items.

    Attributes:
        value: the score.
        interval: 95 % bootstrap interval.
        items: number of distinct items.
        unparsed: share of items, 0 to 1, whose prediction could not be parsed; they count as wrong.

    Example:
        >>> from avfusion.aveb.metrics import Score
        >>> Score(value=0.5, interval=(0.4, 0.6), items=96, unparsed=0.0).interval
        (0.4, 0.6)
    """

    value: float
    interval: tuple[float, float]
    items: int
    unparsed: float


class Item(NamedTuple):
    """One prediction without its reasoning, and its references."""

    prediction: str
    references: tuple[str, ...]
    question: str | None
    candidates: tuple[str, ...] | None


class BenchmarkMetric(Metric):
    r"""Base of the metrics: a ratio of sums over distinct items, :math:`\sum_i a_i / \sum_i b_i`.

    Every item adds one row of numbers, in float64, because gathering from a process without items needs that dtype.
    Rows are sorted, repeated identities are dropped, and only then are rows summed: the result is bitwise independent
    of batches, order, and the distribution of items over processes.

    Args:
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        **options: options of :class:`torchmetrics.Metric`.

    Raises:
        InvalidValueError: fewer than one resample.

    Example:
        >>> from avfusion.aveb.metrics import BenchmarkMetric, YesNo
        >>> issubclass(YesNo, BenchmarkMetric)
        True
        >>> metric = YesNo(resamples=200)
        >>> metric.update(["Yes.", "No."], [["yes"], ["yes"]], ids=["1", "2"])
        >>> metric.update(["No."], [["yes"]], ids=["2"])  # seen before: counts once
        >>> metric.compute().value
        0.5
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update: bool | None = False

    _WIDTH: ClassVar[int] = 5  # identity, digest, unparsed, a, b
    rows: list[Tensor] | Tensor

    def __init__(self, *, resamples: int = 1000, seed: int = 0, **options: Any) -> None:
        if resamples < 1:
            raise InvalidValueError(f"resamples: must be at least 1, found {resamples}")
        super().__init__(**options)
        self.resamples = resamples
        self.seed = seed
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)  # the dtype that a process without items contributes

    def update(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        ids: Sequence[str] | None = None,
        questions: Sequence[str] | None = None,
        candidates: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Adds a batch, which may be empty; every metric takes the same arguments and ignores those it does not need.

        Args:
            predictions: the model's answers, one text per item; reasoning is removed
                (:func:`avfusion.aveb.parsers.strip_reasoning`).
            references: texts to compare with, at least one per item.
            ids: an identity per item; items with the same identity count once, over all processes. Without
                ids every item counts.
            questions: one per item, for the judge.
            candidates: the options of each item, for multiple choice.

        Raises:
            InvalidValueError: sequences of different length, an item without references, or invalid items.
            InvalidTypeError: a string instead of a sequence, or a sequence of anything but strings.
        """
        items = _items(predictions, references, questions, candidates)
        names: list[str | None] = [None] * len(items) if ids is None else list(_texts("ids", ids, len(items)))
        rows: list[float] = []
        for item, name in zip(items, names, strict=True):
            measured = self._measure(item)
            a, b = (0.0, 1.0) if measured is None else measured
            identity = -1.0 if name is None else _number(name)
            rows += [identity, _number(json.dumps(item)), float(measured is None), a, b]
        self._keep("rows", rows)

    def compute(self) -> Score:
        """The score over all items of all processes.

        Raises:
            InvalidValueError: no item.
        """
        table = self._kept("rows").reshape(-1, self._WIDTH)
        order = _distinct(table.tolist())
        if not order:
            raise InvalidValueError(f"update: must have been given at least one item, found none by {type(self)}")
        sums = self._statistics(table[:, 3:], order)
        bounds, value = interval(sums, self._of_sums, resamples=self.resamples, seed=self.seed)
        return Score(value, bounds, len(order), float(table[order, 2].mean()))

    @abstractmethod
    def _measure(self, item: Item) -> tuple[float, float] | None:
        """The item's a and b; ``None`` if the prediction cannot be parsed."""

    def _statistics(self, measured: Tensor, order: list[int]) -> Tensor:
        """``(item, statistic)`` numbers to sum, of the items that count in the order in which they do."""
        return measured[order]

    def _of_sums(self, sums: Tensor) -> Tensor:
        """``(resample,)`` values of ``(resample, statistic)`` sums."""
        return sums[:, 0] / sums[:, 1]

    def _keep(self, name: str, numbers: list[float]) -> None:
        if numbers:
            getattr(self, name).append(torch.tensor(numbers, dtype=torch.float64, device=self.device))

    def _kept(self, name: str) -> Tensor:
        state = getattr(self, name)
        if isinstance(state, Tensor):
            return state.cpu()
        return torch.cat(state).cpu() if state else torch.empty(0, dtype=torch.float64)


def _number(text: str) -> float:
    """53 bits of a hash, which float64 holds exactly: a collision among 100,000 texts has probability 1e-6."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return float(int.from_bytes(digest, "big") >> 11)


def _distinct(rows: list[list[float]]) -> list[int]:
    """Indices of the distinct rows, in an order that depends only on the rows."""
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return [
        index
        for place, index in enumerate(order)
        if place == 0 or rows[index][0] < 0 or rows[index][0] != rows[order[place - 1]][0]
    ]


def _items(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    questions: Sequence[str] | None,
    candidates: Sequence[Sequence[str]] | None,
) -> list[Item]:
    count = len(predictions)
    said = [strip_reasoning(prediction) for prediction in _texts("predictions", predictions, count)]
    asked = [None] * count if questions is None else _texts("questions", questions, count)
    right = _lists("references", references, count)
    choices = [None] * count if candidates is None else _lists("candidates", candidates, count)
    return [Item(*parts) for parts in zip(said, right, asked, choices, strict=True)]


def _lists(name: str, values: Sequence[Sequence[str]], count: int) -> tuple[tuple[str, ...], ...]:
    if isinstance(values, str) or any(isinstance(value, str) for value in values):
        raise InvalidTypeError(f"{name}: must be a sequence of sequences of strings, found a string in place of one")
    if len(values) != count:
        raise InvalidValueError(f"{name}: must be one for each of {count} predictions, found {len(values)}")
    empty = [index for index, value in enumerate(values) if len(value) == 0]
    if empty:
        raise InvalidValueError(f"{name}: must hold at least one text an item, found none in item {empty[0]}")
    return tuple(_texts(name, value, len(value)) for value in values)


def _texts(name: str, values: Sequence[str], count: int) -> tuple[str, ...]:
    if isinstance(values, str):
        raise InvalidTypeError(f"{name}: must be a sequence of strings, found one string")
    if len(values) != count:
        raise InvalidValueError(f"{name}: must be one for each of {count} predictions, found {len(values)}")
    wrong = next((value for value in values if not isinstance(value, str)), "")
    if not isinstance(wrong, str):
        raise InvalidTypeError(f"{name}: must hold strings, found {type(wrong).__name__}")
    return tuple(values)
