"""Word error rate."""

from typing import Any

from rapidfuzz.distance import Levenshtein
from torch import Tensor

from avfusion.aveb._text import whisper_english
from avfusion.aveb.metrics._base import BenchmarkMetric, Item
from avfusion.errors import InvalidValueError


class WordErrorRate(BenchmarkMetric):
    r"""Errors a word of the reference, over the whole set, after Whisper's English normalisation of both sides.

    .. math:: \mathrm{WER} = \frac{\sum_i \text{substitutions}_i + \text{deletions}_i + \text{insertions}_i}
                                  {\max(1, \sum_i \text{words}_i)}

    0 is best and values above 1 are possible. An empty prediction deletes every word. An item whose reference is empty
    once normalised ("Um!") adds its prediction's words to the errors and nothing to the words. The normaliser is that
    of Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision (2022), appendix C.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        ImportError: transformers or whisper-normalizer, which has the spelling table, is missing.
        InvalidValueError: when an item has more than one reference.

    Example:
        >>> from avfusion.aveb.metrics import WordErrorRate
        >>> metric = WordErrorRate()
        >>> metric.update(["The colour is grey"], [["the color's grey, Mr. Smith!"]], ids=["clip 7"])
        >>> metric.compute().value  # two of six words were left out
        0.3333333333333333
    """

    higher_is_better = False

    def __init__(self, *, resamples: int = 1000, seed: int = 0, **options: Any) -> None:
        super().__init__(resamples=resamples, seed=seed, **options)
        whisper_english()  # now, not after an hour of transcribing

    def _measure(self, item: Item) -> tuple[float, float]:
        if len(item.references) != 1:
            raise InvalidValueError(f"references: must be one transcript an item, found {len(item.references)}")
        normalise = whisper_english()
        words, said = normalise(item.references[0]).split(), normalise(item.prediction).split()
        return float(Levenshtein.distance(words, said)), float(len(words))

    def _of_sums(self, sums: Tensor) -> Tensor:
        return sums[:, 0] / sums[:, 1].clamp(min=1)
