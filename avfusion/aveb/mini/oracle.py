"""A model that knows the truth, and a judge: what can be had at most."""

from collections.abc import Sequence
from pathlib import Path

from avfusion.aveb.readers import read_records
from avfusion.aveb.requests import Request


class Oracle:
    """Answers from the records themselves, for the ceiling of each task: a model for ``run``.

    Args:
        data: folder of a split, as :func:`~avfusion.aveb.mini.generate` writes it.

    Example:
        >>> import tempfile
        >>> from avfusion.aveb import read_records
        >>> from avfusion.aveb.mini import Oracle, generate
        >>> from avfusion.aveb.runner import run_task, score_answers
        >>> test = generate(tempfile.mkdtemp(), items={"test": 3}, tasks=("ocr",)) / "test"
        >>> answers = run_task(Oracle(test), read_records("ocr", test / "ocr.jsonl"), test / "run")
        >>> score_answers(answers).scores["vqa_accuracy"].value
        1.0
    """

    def __init__(self, data: str | Path) -> None:
        files = sorted(Path(data).glob("*.jsonl"))
        records = (record for file in files if file.stem != "truth" for record in read_records(file.stem, file))
        self._said = {record.id: record.references[0] for record in records}

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """The right answer to each request."""
        return [self._said[request.id] for request in requests]


def judge(question: str, references: Sequence[str], prediction: str) -> float:
    """Of free text: 1 where it is a right answer but for capitals, marks and articles, else 0.

    Example:
        >>> from avfusion.aveb.mini import judge
        >>> judge("What is shown?", ["red circle"], "A red circle."), judge("What is shown?", ["red circle"], "red")
        (1.0, 0.0)
    """
    return float(_plain(prediction) in map(_plain, references))


def _plain(text: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))
