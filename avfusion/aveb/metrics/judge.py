"""Free text as a judge finds it."""

from collections.abc import Callable, Sequence
from typing import Any

from avfusion.aveb.metrics._base import BenchmarkMetric, Item
from avfusion.errors import InvalidTypeError, InvalidValueError


class Judge(BenchmarkMetric):
    """The mean of what a judge of your own gives each answer, 0 to 1: a language model, a person, a rule.

    Args:
        judge: called once an item, when it is updated, as ``judge(question, references, prediction)``; gives 0 (wrong)
            to 1 (right).
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        InvalidTypeError: a judge that cannot be called, or that gives anything but a number.
        InvalidValueError: when questions are missing, or the judge gives a number outside 0 to 1.

    Example:
        >>> from avfusion.aveb.metrics import Judge
        >>> metric = Judge(lambda question, references, prediction: 1.0 if "music" in prediction else 0.25)
        >>> metric.update(["only music", "he talks"], [["music"]] * 2, questions=["Any audio?"] * 2)
        >>> metric.compute().value
        0.625
    """

    def __init__(
        self,
        judge: Callable[[str, Sequence[str], str], float],
        *,
        resamples: int = 1000,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not callable(judge):
            raise InvalidTypeError(f"judge: must be callable, found {type(judge).__name__}")
        super().__init__(resamples=resamples, seed=seed, **options)
        self.judge = judge

    def _measure(self, item: Item) -> tuple[float, float]:
        if item.question is None:
            raise InvalidValueError("questions: must be given to a judge, found none")
        found = self.judge(item.question, item.references, item.prediction)
        try:
            verdict = float(found)
        except (TypeError, ValueError):
            raise InvalidTypeError(f"judge: must give a number, found {found!r}") from None
        if not 0.0 <= verdict <= 1.0:
            raise InvalidValueError(f"judge: must give 0 to 1, found {verdict}")
        return verdict, 1.0
