"""Figures of answers that are alike for all tasks: the share of what the right answers score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from avfusion.aveb import Record, get_task
from avfusion.aveb.mini import judge
from avfusion.aveb.runner import Answer, score_answers

_WITHOUT_JAVA = {"spider": "cider"}

GROUPS = {
    "single-modal": ("ac", "ic", "ocr", "vqa"),
    "speech": ("asr",),
    "video QA": ("video_qa",),
    "cross-modal": ("avsr", "avsd", "isqa", "avssd", "avm"),
}
"""Tasks whose figures are averaged, by what they need."""


def metric_of(task: str) -> str:
    """The task's own metric; CIDEr-D where that needs Java."""
    own = get_task(task).metric
    return _WITHOUT_JAVA.get(own, own)


def figures(answers: Mapping[str, Sequence[Answer]]) -> dict[str, float]:
    """The metric of each task, 0 to 1; CIDEr-D 0 to 10; a lower word error rate is a better one."""
    return {task: _value(said) for task, said in answers.items()}


def _value(said: Sequence[Answer]) -> float:
    metric = metric_of(said[0].task)
    return score_answers(said, judge=judge, metric=metric, resamples=1).scores[metric].value


def shares(answers: Mapping[str, Sequence[Answer]]) -> dict[str, float]:
    """Of each task how much of what the right answers score was scored: 0 to 1, and more is better.

    For speech that is the share of words that are right, 1 - word error rate, and 0 for more errors than words.
    """
    found = {}
    for task, said in answers.items():
        if metric_of(task) == "wer":
            found[task] = max(0.0, 1 - _value(said))
        else:
            found[task] = _value(said) / _value([replace(one, prediction=one.references[0]) for one in said])
    return found


def grouped(by_task: Mapping[str, float]) -> dict[str, float]:
    """The mean of each group's tasks, and of all."""
    found = {name: fmean(by_task[task] for task in tasks) for name, tasks in GROUPS.items()}
    return {**found, "all": fmean(by_task.values())}


def constants(records: Mapping[str, Sequence[Record]]) -> dict[str, float]:
    """What the best answer that is always the same scores in each task, as :func:`figures` has it.

    The most frequent answers are tried; for multiple choice, positions.
    """
    return {task: _constant(of_task) for task, of_task in records.items()}


def _constant(records: Sequence[Record]) -> float:
    if records[0].candidates is not None:
        return Counter(record.answer_index for record in records).most_common(1)[0][1] / len(records)
    frequent = [text for text, _ in Counter(record.references[0] for record in records).most_common(8)]
    values = [_value([Answer.of(record, record, text) for record in records]) for text in frequent]
    return min(values) if metric_of(records[0].task) == "wer" else max(values)
