"""VQA's soft accuracy."""

from avfusion.aveb._text import vqa_answer
from avfusion.aveb.metrics._base import BenchmarkMetric, Item
from avfusion.errors import InvalidValueError

_ENOUGH = 3  # people who agree


class VQAAccuracy(BenchmarkMetric):
    r"""The answer counts as right as people would find one another right, as TextVQA scores it.

    .. math:: \frac{1}{n} \sum_{i=1}^{n} \min\Bigl(1, \tfrac{1}{3} \sum_{j \ne i} [a = a_j]\Bigr)

    over the n, usually ten, people's answers :math:`a_j` to one question (Antol et al., VQA: Visual Question
    Answering, 2015; leaving one out as in Goyal et al., 2017), then the mean over items, 0 to 1. Both sides are
    processed as by the challenge's server. No answer is unparsed.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        InvalidValueError: when an item has fewer than four answers, with which nothing could be wholly right.

    Example:
        >>> from avfusion.aveb.metrics import VQAAccuracy
        >>> metric = VQAAccuracy()
        >>> metric.update(["The Dakota!"], [["dakota", "dakota", "dakota digital", "clos culombu"]])
        >>> metric.compute().value  # one other agrees with two of the four, two with the rest
        0.5
    """

    def _measure(self, item: Item) -> tuple[float, float]:
        if len(item.references) <= _ENOUGH:
            raise InvalidValueError(f"references: must be at least four answers an item, found {len(item.references)}")
        said, people = vqa_answer(item.prediction), [vqa_answer(answer) for answer in item.references]
        agree = people.count(said)
        others = [agree - (answer == said) for answer in people]
        return sum(min(1.0, count / _ENOUGH) for count in others) / len(people), 1.0
