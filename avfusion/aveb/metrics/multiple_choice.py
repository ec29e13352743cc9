"""Multiple choice."""

from avfusion.aveb.metrics._base import BenchmarkMetric, Item
from avfusion.aveb.parsers import parse_choice
from avfusion.errors import InvalidValueError


class MultipleChoice(BenchmarkMetric):
    """The share of questions answered with the right candidate, 0 to 1.

    Answers are read by :func:`avfusion.aveb.parsers.parse_choice`; one that picks no candidate, or several, is
    unparsed and wrong. ``update`` takes the candidates in the order in which the model was shown them.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        InvalidValueError: when candidates are missing, or no reference is one of them.

    Example:
        >>> from avfusion.aveb.metrics import MultipleChoice
        >>> metric = MultipleChoice()
        >>> shown = [["a hat", "a scarf"]] * 3
        >>> metric.update(["(B)", "It is a scarf.", "A or B"], [["a scarf"]] * 3, candidates=shown)
        >>> score = metric.compute()
        >>> round(score.value, 3), round(score.unparsed, 3)
        (0.667, 0.333)
    """

    def _measure(self, item: Item) -> tuple[float, float] | None:
        if item.candidates is None:
            raise InvalidValueError("candidates: must be given to score multiple choice, found none")
        right = {index for index, candidate in enumerate(item.candidates) if candidate in item.references}
        if not right:
            raise InvalidValueError(
                f"references: must hold one of the candidates {list(item.candidates)}, found {list(item.references)}"
            )
        picked = parse_choice(item.prediction, item.candidates)
        return None if picked is None else (float(picked in right), 1.0)
