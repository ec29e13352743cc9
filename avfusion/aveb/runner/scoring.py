"""Scores answers: the task's metric, additional metrics, and baselines of constant answers."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from avfusion.aveb.metrics import Score, make_metric
from avfusion.aveb.parsers import PARSER_VERSION, parse_yes_no
from avfusion.aveb.runner.answers import Answer
from avfusion.aveb.tasks import Task, get_task
from avfusion.errors import InvalidValueError

Judge = Callable[[str, Sequence[str], str], float]

_CAPTIONS = ("cider", "meteor", "spice", "spider")
_JUDGED_TOO = ("isqa", "avssd")  # in addition to their own metric, if there is a judge


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """The figures of one task.

    Attributes:
        task: its name.
        metric: key of its main metric.
        items: distinct items.
        failed: number of records that could not be read; they count as empty answers.
        scores: by metric, the main metric first.
        missing: metrics that could not be computed, with the reason.
        baselines: scores of constant answers, by answer, 0 to 1.
        parser_version: version of the answer parsers, :data:`avfusion.aveb.parsers.PARSER_VERSION`.

    Example:
        >>> from avfusion.aveb.runner import Answer, score_answers
        >>> score = score_answers([Answer(id="1", task="avm", prediction="Yes.", references=("yes",))])
        >>> score.task, score.metric, score.items, score.failed, score.missing
        ('avm', 'yes_no', 1, 0, {})
    """

    task: str
    metric: str
    items: int
    failed: int
    scores: dict[str, Score] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    parser_version: int = PARSER_VERSION


def score_answers(
    answers: Sequence[Answer], *, judge: Judge | None = None, resamples: int = 1000, metric: str | None = None
) -> TaskScore:
    """Scores the answers to one task.

    Args:
        answers: answers of one task.
        judge: ``judge(question, references, prediction)`` returns 0 to 1, for free text; without it the metric is
            listed as missing.
        resamples: number of bootstrap resamples.
        metric: key of the only metric to compute; by default the task's metric and, for captions, also CIDEr-D,
            METEOR, SPICE and SPIDEr.

    Raises:
        InvalidValueError: no answers, or of several tasks.

    Example:
        >>> from avfusion.aveb.runner import Answer, score_answers
        >>> said = [Answer(id=text, task="avm", prediction=text, references=("yes",)) for text in ("Yes.", "no")]
        >>> score_answers(said).scores["yes_no"].value, score_answers(said).baselines
        (0.5, {'always yes': 1.0})
    """
    tasks = sorted({answer.task for answer in answers})
    if len(tasks) != 1:
        raise InvalidValueError(f"answers: must be of one task, found {tasks}")
    task = get_task(tasks[0])
    more = _CAPTIONS * (task.answer == "caption") + ("judge",) * (task.name in _JUDGED_TOO and judge is not None)
    scores, missing = {}, {}
    for key in dict.fromkeys((task.metric, *more)) if metric is None else (metric,):
        try:
            scores[key] = _score(key, task, answers, judge, resamples)
        except (ImportError, RuntimeError, _NoJudgeError) as error:
            missing[key] = str(error)
    return TaskScore(
        task=task.name,
        metric=task.metric,
        items=len({answer.id for answer in answers}),
        failed=len({answer.id for answer in answers if answer.error is not None}),
        scores=scores,
        missing=missing,
        baselines=baselines(answers),
    )


class _NoJudgeError(Exception):
    """A metric needs a judge and none was given."""


def _score(key: str, task: Task, answers: Sequence[Answer], judge: Judge | None, resamples: int) -> Score:
    options: dict[str, Any] = {"resamples": resamples}
    if key == "judge":
        if judge is None:
            raise _NoJudgeError("needs a judge of your own")
        options["judge"] = judge
    metric = make_metric(key, **options)
    given: dict[str, Any] = {"ids": [answer.id for answer in answers]}
    if key == "judge":
        given["questions"] = [answer.question or task.prompt or "" for answer in answers]
    if key == "multiple_choice":
        given["candidates"] = [answer.candidates or () for answer in answers]
    metric.update([answer.prediction for answer in answers], [answer.references for answer in answers], **given)
    return metric.compute()


def baselines(answers: Sequence[Answer]) -> dict[str, float]:
    """The score of the best constant answer.

    For multiple choice this is a position: among the candidates as shown and, if known, as published.

    Example:
        >>> from avfusion.aveb.runner import Answer, baselines
        >>> shown = dict(task="video_qa", prediction="A", references=("cat",), candidates=("cat", "dog"))
        >>> baselines([Answer(id=str(n), published_place=1, **shown) for n in range(4)])
        {'always option A, as shown': 1.0, 'always option B, as published': 1.0}
    """
    answers = list({answer.id: answer for answer in answers}.values())
    found: dict[str, float] = {}
    chosen = [answer for answer in answers if answer.candidates is not None]
    if chosen:
        right = (answer.candidates.index(answer.references[0]) for answer in chosen if answer.candidates)
        found |= _most(right, len(chosen), "as shown")
        places = [answer.published_place for answer in chosen if answer.published_place is not None]
        found |= _most(places, len(places), "as published")
    elif answers and get_task(answers[0].task).answer == "yes_no":
        said = Counter(parse_yes_no(answer.references[0]) for answer in answers)
        [(yes, count)] = said.most_common(1)
        found[f"always {'yes' if yes else 'no'}"] = count / len(answers)
    return found


def _most(places: Any, total: int, order: str) -> dict[str, float]:
    counts = Counter(places).most_common(1)
    return {f"always option {chr(ord('A') + place)}, {order}": count / total for place, count in counts}
