"""Yes or no."""

from avfusion.aveb.metrics._base import BenchmarkMetric, Item
from avfusion.aveb.parsers import parse_yes_no
from avfusion.errors import InvalidValueError


class YesNo(BenchmarkMetric):
    """The share of questions answered with the right one of yes and no, 0 to 1.

    Answers are read by :func:`avfusion.aveb.parsers.parse_yes_no`; one that says neither, or both, is unparsed and
    wrong.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        InvalidValueError: when an item's references do not agree on yes or no.

    Example:
        >>> from avfusion.aveb.metrics import YesNo
        >>> metric = YesNo()
        >>> metric.update(["Yes, they match.", "Perhaps"], [["Yes"], ["No"]])
        >>> metric.compute().value
        0.5
    """

    def _measure(self, item: Item) -> tuple[float, float] | None:
        right = {parse_yes_no(reference) for reference in item.references}
        if len(right) != 1 or None in right:
            raise InvalidValueError(f"references: must say yes or say no, found {list(item.references)}")
        said = parse_yes_no(item.prediction)
        return None if said is None else (float(said in right), 1.0)
