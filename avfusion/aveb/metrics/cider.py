"""CIDEr-D."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion.aveb.metrics._captions import CaptionMetric, Tokeniser

_ORDERS = 4
_SIGMA = 6.0  # of the penalty on length, in words

Ngram = tuple[str, ...]


class CIDErD(CaptionMetric):
    r"""CIDEr-D: n-grams in common with the references, weighted by how few items have them in theirs.

    .. math:: \frac{10}{4m} \sum_{n=1}^{4} \sum_{j=1}^{m} e^{-(l - l_j)^2 / 72}
              \frac{\min(g^n, g^n_j) \cdot g^n_j}{\lVert g^n \rVert \lVert g^n_j \rVert}

    with g the counts of n-grams times log(items / items whose references have it), l the length and j a reference
    (Vedantam et al., CIDEr: Consensus-based Image Description Evaluation, 2015, section 4). The mean over items, from
    0 to 10; tables print it times 100. Rarity is counted over all items that are scored together, of all processes,
    and stays as it is when the bootstrap draws items. A single item scores 0: nothing in it is rare.

    Computes what pycocoevalcap's ``Cider`` does; only words may differ, by the tokeniser.

    Args:
        tokeniser: ``"words"``, in Python, which agrees with ``"penn"`` on ordinary captions; or ``"penn"``, CoreNLP's
            as in the COCO caption evaluation, which needs Java and pycocoevalcap.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        InvalidValueError: an unknown tokeniser.
        RuntimeError: ``"penn"`` without Java.
        ImportError: ``"penn"`` without pycocoevalcap.

    Example:
        >>> from avfusion.aveb.metrics import CIDErD
        >>> metric = CIDErD()
        >>> references = [["a dog barks loudly"], ["rain on a roof", "it rains"]]
        >>> metric.update(["a dog barks loudly", "rain falls"], references)
        >>> round(metric.compute().value, 4)
        5.2414
    """

    def __init__(self, *, tokeniser: Tokeniser = "words", resamples: int = 1000, seed: int = 0, **options: Any) -> None:
        super().__init__(tokeniser=tokeniser, resamples=resamples, seed=seed, **options)

    def _scores(self, predictions: list[str], references: list[list[str]]) -> Tensor:
        scores = torch.tensor(cider_d(predictions, references), dtype=torch.float64)
        return torch.stack([scores, torch.ones_like(scores)], dim=1)


class _Weighted(NamedTuple):
    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


def cider_d(predictions: list[str], references: list[list[str]]) -> list[float]:
    """Each item's CIDEr-D, 0 to 10, from captions whose words a space separates."""
    said = [_ngrams(text) for text in predictions]
    right = [[_ngrams(text) for text in texts] for texts in references]
    items_with = Counter(ngram for texts in right for ngram in set().union(*texts))
    log_items = math.log(len(right))
    scores = []
    for counts, texts in zip(said, right, strict=True):
        caption = _weighted(counts, items_with, log_items)
        likeness = sum(_likeness(caption, _weighted(text, items_with, log_items)) for text in texts)
        scores.append(10.0 * likeness / _ORDERS / len(texts))
    return scores


def _ngrams(text: str) -> Counter[Ngram]:
    words = text.split()
    return Counter(_windows(words))


def _windows(words: list[str]) -> Iterable[Ngram]:
    for order in range(1, _ORDERS + 1):
        yield from (tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _weighted(counts: Counter[Ngram], items_with: Counter[Ngram], log_items: float) -> _Weighted:
    weights: list[dict[Ngram, float]] = [{} for _ in range(_ORDERS)]
    for ngram, count in counts.items():
        weights[len(ngram) - 1][ngram] = count * (log_items - math.log(max(1, items_with[ngram])))
    norms = [math.sqrt(sum(value**2 for value in order.values())) for order in weights]
    return _Weighted(weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2))


def _likeness(caption: _Weighted, reference: _Weighted) -> float:
    """Summed over orders. Lengths are in pairs of words: an empty caption is as long as one of one word."""
    total = 0.0
    for said, right, norm, norm_right in zip(
        caption.weights, reference.weights, caption.norms, reference.norms, strict=True
    ):
        common = sum(min(value, right[ngram]) * right[ngram] for ngram, value in said.items() if ngram in right)
        if norm and norm_right:
            total += common / (norm * norm_right)
    return total * math.exp(-((caption.length - reference.length) ** 2) / (2 * _SIGMA**2))
