"""METEOR."""

from typing import Any

import torch
from torch import Tensor

from avfusion.aveb.metrics._captions import CaptionMetric, Tokeniser
from avfusion.aveb.metrics._java import require, run

_NAME = "METEOR"
_JAR = "meteor/meteor-1.5.jar"
_OPTIONS = ["-", "-", "-stdio", "-l", "en", "-norm"]


class METEOR(CaptionMetric):
    """METEOR 1.5, by its authors' program: words aligned exactly, by stem, by synonym and by paraphrase.

    The score of the whole set, 0 to 1, from alignments counted over all items, as the COCO caption evaluation reports
    it (Denkowski & Lavie, Meteor Universal: Language Specific Translation Evaluation for Any Target Language, 2014).
    Other programs of the same name give other numbers on the same captions, so that nothing takes this one's place.
    ``compute`` starts it twice, which takes some 20 s and 2 GB of memory.

    Args:
        tokeniser: ``"penn"``, as in the COCO caption evaluation, or ``"words"``, in Python.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        RuntimeError: no Java (8 or newer), the program is missing or fails.
        ImportError: pycocoevalcap, which carries the program, is missing.

    Example:
        >>> from avfusion.aveb.metrics import METRICS
        >>> METRICS["meteor"].higher_is_better
        True
    """

    def __init__(self, *, tokeniser: Tokeniser = "penn", resamples: int = 1000, seed: int = 0, **options: Any) -> None:
        require(_JAR, of=_NAME)
        super().__init__(tokeniser=tokeniser, resamples=resamples, seed=seed, **options)

    def _scores(self, predictions: list[str], references: list[list[str]]) -> Tensor:
        items = zip(predictions, references, strict=True)
        lines = [" ||| ".join(["SCORE", *map(_plain, right), _plain(said)]) for said, right in items]
        return _addends(_numbers(_ask(lines), len(lines)))

    def _of_sums(self, sums: Tensor) -> Tensor:
        counted = [" ".join(map(str, row)) for row in sums.tolist()]
        # One score for each set of counts, then one for all of them together.
        return _numbers(_ask([" ||| ".join(["EVAL", *counted])]), len(counted) + 1)[:-1, 0]


def _addends(counts: Tensor) -> Tensor:
    """Counts as the program adds them up: an item that matches wholly, in one piece, adds no piece.

    A row holds the words of both sides, those of them that are function words, four numbers for each of the four ways
    to match (content and function words of either side), pieces, and matched words of both sides.
    """
    said, right, pieces = counts[:, 4:20:2].sum(1), counts[:, 5:20:2].sum(1), counts[:, 20]
    whole = (said == counts[:, 0]) & (right == counts[:, 1]) & (pieces == 1)
    addends = counts.clone()
    addends[whole, 20] = 0
    return addends


def _ask(lines: list[str]) -> list[str]:
    jar = require(_JAR, of=_NAME)
    return run(["-Xmx2G", "-jar", str(jar), *_OPTIONS], lines, of=_NAME, folder=jar.parent)


def _plain(text: str) -> str:
    return " ".join(text.replace("|||", "").split())


def _numbers(lines: list[str], count: int) -> Tensor:
    if len(lines) != count:
        raise RuntimeError(f"{_NAME} gave {len(lines)} lines where {count} were due: {lines[-1:]}")
    return torch.tensor([[float(number) for number in line.split()] for line in lines], dtype=torch.float64)
