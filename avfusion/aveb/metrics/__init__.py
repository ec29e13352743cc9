"""Metrics of the benchmark: ordinary metrics of torchmetrics, over texts.

Example:
    >>> from avfusion.aveb.metrics import make_metric
    >>> metric = make_metric("exact_match", resamples=200)
    >>> metric.update(["cat", "dog"], [["cat"], ["cow"]], ids=["1", "2"])  # a batch, in every process
    >>> metric.compute().value
    0.5

Results are exact: the same for every way of cutting a set into batches, for every order, and for any number of
processes, of which some may have seen nothing and some the same items again.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

try:
    import rapidfuzz as _rapidfuzz  # noqa: F401
    import torchmetrics as _torchmetrics  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.aveb.metrics needs torchmetrics and rapidfuzz: pip install avfusion[aveb]") from error

from avfusion.aveb.metrics._base import BenchmarkMetric, Score
from avfusion.aveb.metrics.cider import CIDErD
from avfusion.aveb.metrics.exact_match import ExactMatch
from avfusion.aveb.metrics.judge import Judge
from avfusion.aveb.metrics.label import Label
from avfusion.aveb.metrics.meteor import METEOR
from avfusion.aveb.metrics.multiple_choice import MultipleChoice
from avfusion.aveb.metrics.spice import SPICE
from avfusion.aveb.metrics.spider import SPIDEr
from avfusion.aveb.metrics.vqa_accuracy import VQAAccuracy
from avfusion.aveb.metrics.wer import WordErrorRate
from avfusion.aveb.metrics.yes_no import YesNo
from avfusion.errors import InvalidValueError

METRICS: Mapping[str, type[BenchmarkMetric]] = MappingProxyType(
    {
        "cider": CIDErD,
        "exact_match": ExactMatch,
        "judge": Judge,
        "label": Label,
        "meteor": METEOR,
        "multiple_choice": MultipleChoice,
        "spice": SPICE,
        "spider": SPIDEr,
        "vqa_accuracy": VQAAccuracy,
        "wer": WordErrorRate,
        "yes_no": YesNo,
    }
)
"""Every metric by its key."""


def make_metric(key: str, **options: Any) -> BenchmarkMetric:
    """Builds a metric by its key, with its arguments by name.

    Raises:
        InvalidValueError: an unknown key.
        ImportError: a package that the metric needs is missing.
        RuntimeError: Java that the metric needs is missing or not fit.

    Example:
        >>> from avfusion.aveb.metrics import make_metric
        >>> metric = make_metric("yes_no", resamples=200)
        >>> metric.update(["Yes."], [["yes"]])
        >>> metric.compute()
        Score(value=1.0, interval=(1.0, 1.0), items=1, unparsed=0.0)
    """
    if key not in METRICS:
        raise InvalidValueError(f"key: must be one of {', '.join(METRICS)}, found {key!r}")
    return METRICS[key](**options)


__all__ = [
    "METEOR",
    "METRICS",
    "SPICE",
    "BenchmarkMetric",
    "CIDErD",
    "ExactMatch",
    "Judge",
    "Label",
    "MultipleChoice",
    "SPIDEr",
    "Score",
    "VQAAccuracy",
    "WordErrorRate",
    "YesNo",
    "make_metric",
]
