"""Metrics that need every caption of the set at once: the texts themselves are gathered."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from avfusion.aveb._text import caption_words
from avfusion.aveb.metrics._base import BenchmarkMetric, Item
from avfusion.aveb.metrics._java import penn_treebank, require
from avfusion.aveb.parsers import strip_reasoning
from avfusion.errors import InvalidValueError

Tokeniser = Literal["words", "penn"]


class CaptionMetric(BenchmarkMetric):
    """Base of the caption metrics: keeps texts as numbers, one a character, beside the rows.

    Args:
        tokeniser: ``"words"``, in Python, or ``"penn"``: CoreNLP's Penn Treebank tokeniser as in the COCO caption
            evaluation, which needs Java and pycocoevalcap.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        InvalidValueError: an unknown tokeniser.
        RuntimeError: ``"penn"`` without Java.
        ImportError: ``"penn"`` without pycocoevalcap.
    """

    characters: list[Tensor] | Tensor

    def __init__(self, *, tokeniser: Tokeniser, resamples: int = 1000, seed: int = 0, **options: Any) -> None:
        if tokeniser not in ("words", "penn"):
            raise InvalidValueError(f'tokeniser: must be "words" or "penn", found {tokeniser!r}')
        if tokeniser == "penn":
            require("tokenizer/stanford-corenlp-3.4.1.jar", of="The Penn Treebank tokeniser")
        super().__init__(resamples=resamples, seed=seed, **options)
        self.tokeniser = tokeniser
        self.add_state("characters", default=[], dist_reduce_fx="cat")

    def update(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        ids: Sequence[str] | None = None,
        questions: Sequence[str] | None = None,
        candidates: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """As :meth:`BenchmarkMetric.update`."""
        super().update(predictions, references, ids=ids, questions=questions, candidates=candidates)
        packed = (_packed(strip_reasoning(said), right) for said, right in zip(predictions, references, strict=True))
        self._keep("characters", [float(ord(character)) for text in packed for character in text])

    def _measure(self, item: Item) -> tuple[float, float]:
        return float(len(_packed(item.prediction, item.references))), 0.0

    def _statistics(self, measured: Tensor, order: list[int]) -> Tensor:
        text = "".join(map(chr, self._kept("characters").long().tolist()))
        ends = measured[:, 0].cumsum(0).long().tolist()
        starts = [0, *ends[:-1]]
        items = [json.loads(text[starts[index] : ends[index]]) for index in order]
        sizes = [len(item) for item in items]
        flat = iter(self._tokenised([caption for item in items for caption in item]))
        captions = [[next(flat) for _ in range(size)] for size in sizes]
        return self._scores([item[0] for item in captions], [item[1:] for item in captions])

    def _tokenised(self, texts: list[str]) -> list[str]:
        if self.tokeniser == "penn":
            return penn_treebank(texts)
        return [" ".join(caption_words(text)) for text in texts]

    @abstractmethod
    def _scores(self, predictions: list[str], references: list[list[str]]) -> Tensor:
        """``(item, statistic)`` numbers to sum, from captions whose words a space separates."""


def _packed(prediction: str, references: Sequence[str]) -> str:
    return json.dumps([prediction, *references])
