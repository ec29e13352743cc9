"""Labels of sound sources."""

from avfusion.aveb.metrics._base import BenchmarkMetric, Item
from avfusion.aveb.parsers import parse_label
from avfusion.errors import InvalidValueError


class Label(BenchmarkMetric):
    """The share of answers that name the right source of a sound, 0 to 1.

    AVSSD's sentences are stripped from both sides (:func:`avfusion.aveb.parsers.parse_label`). Several references, like
    names between commas, are synonyms. An answer is right if every name in it is one of them: one is enough, and a
    wrong one beside it is not forgiven. An answer without a name is unparsed and wrong. Where ``update`` is given
    candidates, they are the closed list of labels, and an answer is whichever one of them it decides for.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        InvalidValueError: when a reference names nothing.

    Example:
        >>> from avfusion.aveb.metrics import Label
        >>> metric = Label()
        >>> right = ["The source of this sound in this scene is playing violin, fiddle."]
        >>> metric.update(["Fiddle", "fiddle, dog barking"], [right, right])
        >>> metric.compute().value
        0.5
    """

    def _measure(self, item: Item) -> tuple[float, float] | None:
        names: set[str] = set()
        for reference in item.references:
            found = parse_label(reference)
            if found is None:
                raise InvalidValueError(f"references: must name the source of a sound, found {reference!r}")
            names.update(found)
        said = parse_label(item.prediction, labels=item.candidates)
        return None if said is None else (float(names.issuperset(said)), 1.0)
