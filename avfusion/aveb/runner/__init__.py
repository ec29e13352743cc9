"""Runs models through the benchmark's tasks, scores what they said, and reports it.

``run_task`` asks and writes answers down, ``score_answers`` scores them, ``write_report`` puts runs beside each other.
"""

from avfusion.aveb.runner.answers import Answer, read_answers
from avfusion.aveb.runner.data import find_data
from avfusion.aveb.runner.loading import load_model
from avfusion.aveb.runner.published import load_answers
from avfusion.aveb.runner.report import as_html, as_markdown, chart, write_report
from avfusion.aveb.runner.running import run_task
from avfusion.aveb.runner.scoring import TaskScore, baselines, score_answers

__all__ = [
    "Answer",
    "TaskScore",
    "as_html",
    "as_markdown",
    "baselines",
    "chart",
    "find_data",
    "load_answers",
    "load_model",
    "read_answers",
    "run_task",
    "score_answers",
    "write_report",
]
