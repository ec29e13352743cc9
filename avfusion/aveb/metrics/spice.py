"""SPICE."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avfusion.aveb.metrics._captions import CaptionMetric, Tokeniser
from avfusion.aveb.metrics._java import java_release, require, run

_NAME = "SPICE"
_JAR = "spice/spice-1.0.jar"
_PARSER = ("spice/lib/stanford-corenlp-3.6.0.jar", "spice/lib/stanford-corenlp-3.6.0-models.jar")
_NEWEST_JAVA = 15  # later ones close the classes that its serialisation opens


class SPICE(CaptionMetric):
    """SPICE 1.0, by its authors' program: objects, attributes and relations in common, as an F1 score.

    The mean over items, 0 to 1 (Anderson et al., SPICE: Semantic Propositional Image Caption Evaluation, 2016). An
    item that has none, on either side, counts 0. Nothing takes the program's place, and nothing is downloaded: it also
    needs two files of CoreNLP 3.6.0, which ``python -m pycocoevalcap.spice.get_stanford_models`` fetches, and 8 GB of
    memory.

    Args:
        tokeniser: ``"penn"``, as in the COCO caption evaluation, or ``"words"``, in Python.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        RuntimeError: Java is missing or not between 8 and 15 (``JAVA_HOME`` can name one), CoreNLP's files or the
            program are missing, or it fails.
        ImportError: pycocoevalcap, which carries the program, is missing.

    Example:
        >>> from avfusion.aveb.metrics import METRICS
        >>> METRICS["spice"].higher_is_better
        True
    """

    def __init__(self, *, tokeniser: Tokeniser = "penn", resamples: int = 1000, seed: int = 0, **options: Any) -> None:
        require_spice()
        super().__init__(tokeniser=tokeniser, resamples=resamples, seed=seed, **options)

    def _scores(self, predictions: list[str], references: list[list[str]]) -> Tensor:
        scores = torch.tensor(spice(predictions, references), dtype=torch.float64)
        return torch.stack([scores, torch.ones_like(scores)], dim=1)


def require_spice() -> Path:
    """The program, once all that it needs is known to be there."""
    jar = require(_JAR, of=_NAME)
    release = java_release(of=_NAME)
    if not 8 <= release <= _NEWEST_JAVA:
        raise RuntimeError(f"{_NAME} needs Java 8 to {_NEWEST_JAVA}, found {release}; JAVA_HOME can name another")
    try:
        for file in _PARSER:
            require(file, of=_NAME)
    except RuntimeError as error:
        raise RuntimeError(f"{error}; python -m pycocoevalcap.spice.get_stanford_models fetches it") from error
    return jar


def spice(predictions: list[str], references: list[list[str]]) -> list[float]:
    """Each item's SPICE, 0 to 1, from captions whose words a space separates."""
    jar = require_spice()
    pairs = enumerate(zip(predictions, references, strict=True))
    items = [{"image_id": number, "test": said, "refs": right} for number, (said, right) in pairs]
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "captions.json", Path(folder) / "scores.json"
        asked.write_text(json.dumps(items), encoding="utf-8")
        run(["-Xmx8G", "-jar", str(jar), str(asked), "-out", str(told), "-silent"], [], of=_NAME, folder=jar.parent)
        if not told.is_file():
            raise RuntimeError(f"{_NAME} ended without scores")
        found = {item["image_id"]: item["scores"]["All"]["f"] for item in json.loads(told.read_text(encoding="utf-8"))}
    if found.keys() != set(range(len(items))):
        raise RuntimeError(f"{_NAME} scored {len(found)} of {len(items)} items")
    scores = [float("nan") if found[number] is None else float(found[number]) for number in range(len(items))]
    return [score if math.isfinite(score) else 0.0 for score in scores]
