"""Exact match."""

from avfusion.aveb._text import plain
from avfusion.aveb.metrics._base import BenchmarkMetric, Item


class ExactMatch(BenchmarkMetric):
    """The share of answers that are one of the references, but for case, spaces and punctuation around words.

    GQA's accuracy (Hudson & Manning, GQA: A New Dataset for Real-World Visual Reasoning, 2019), 0 to 1. An answer that
    says more than the reference is wrong. An answer without a word is unparsed.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Example:
        >>> from avfusion.aveb.metrics import ExactMatch
        >>> metric = ExactMatch()
        >>> metric.update(["Skier.", "no, it is clear", ""], [["skier"], ["no"], ["blue"]])
        >>> score = metric.compute()
        >>> round(score.value, 3), round(score.unparsed, 3)
        (0.333, 0.333)
    """

    def _measure(self, item: Item) -> tuple[float, float] | None:
        said = plain(item.prediction)
        right = any(said == plain(reference) for reference in item.references)
        return (float(right), 1.0) if said else None
