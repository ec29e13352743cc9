"""``score``: figures of generated answers."""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avfusion.aveb.runner import TaskScore, as_markdown, load_answers, score_answers
from avfusion.aveb.tasks import TASKS
from avfusion.errors import InvalidValueError
from avfusion.files import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "answers", nargs="+", help="folders or files of runs, or TASK=FILE for a JSON of answer and gen_answer"
    )
    parser.add_argument("--out", metavar="FILE", help="a JSON of all figures")
    add_judge(parser)


def add_judge(parser: argparse.ArgumentParser) -> None:
    """What scoring takes, here and for a report."""
    parser.add_argument(
        "--judge", metavar="MODULE:CALLABLE", help="judge(question, references, prediction) -> 0 to 1, for free text"
    )
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (1000)")


def run(options: argparse.Namespace) -> int:
    """Prints a table, and what it leaves out."""
    scores = score_all(options.answers, options)
    sys.stdout.write(as_markdown({"score": scores}))
    for score in scores.values():
        for metric, reason in score.missing.items():
            sys.stdout.write(f"{score.task}: {metric} is missing: {reason.splitlines()[0]}\n")
        others = {key: value for key, value in score.scores.items() if key != score.metric}
        for metric, value in others.items():
            sys.stdout.write(f"{score.task}: {metric} {100 * value.value:.1f}\n")
        for name, share in score.baselines.items():
            sys.stdout.write(f"{score.task}: {name}: {100 * share:.1f}\n")
    if options.out is not None:
        content = {task: as_json(score) for task, score in scores.items()}
        write_whole(options.out, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


def as_json(score: TaskScore) -> dict[str, Any]:
    """All figures, as a JSON keeps them."""
    return {**asdict(score), "scores": {key: value._asdict() for key, value in score.scores.items()}}


def score_all(sources: Sequence[str], options: argparse.Namespace) -> dict[str, TaskScore]:
    """The scores of all files, by task.

    Raises:
        InvalidValueError: no answers, or a task twice.
    """
    judge = None if options.judge is None else _callable(options.judge)
    found: dict[str, TaskScore] = {}
    for path, task in (pair for source in sources for pair in _files(source)):
        answers = load_answers(path, task)
        if not answers:
            raise InvalidValueError(f"answers: must be at least one, found none in {path}")
        score = score_answers(answers, judge=judge, resamples=options.resamples)
        if score.task in found:
            raise InvalidValueError(f"answers: must be of a task once, found {score.task} twice")
        found[score.task] = score
    return dict(sorted(found.items(), key=lambda pair: [*TASKS].index(pair[0])))


def _files(source: str) -> list[tuple[Path, str | None]]:
    task, equals, path = source.partition("=")
    if equals and not Path(source).exists():
        return [(Path(path), task)]
    if not Path(source).is_dir():
        return [(Path(source), None)]
    files: list[tuple[Path, str | None]] = [
        (Path(source, f"{name}.jsonl"), None) for name in TASKS if Path(source, f"{name}.jsonl").is_file()
    ]
    if not files:
        raise InvalidValueError(f"answers: must hold TASK.jsonl of a finished run, found none in {source}")
    return files


def _callable(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidValueError(f"judge: must be MODULE:CALLABLE, found {name!r} ({error})") from error
