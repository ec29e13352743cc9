"""Figures of several runs beside the published ones: Markdown, a page, a chart."""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avfusion.aveb.runner.scoring import TaskScore
from avfusion.aveb.tasks import TASKS, Task
from avfusion.errors import InvalidValueError
from avfusion.files import write_whole

Scores = Mapping[str, TaskScore]

# An underscore inside a word is no mark.
_MARKS = re.compile(r"[\\`*\[\]|#~<>$!]|(?<![^\W_])_|_(?![^\W_])")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "th,td{padding:.3rem .7rem;border-bottom:1px solid #8884;text-align:right}"
    "th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}"
)


def table(runs: Mapping[str, Scores]) -> list[list[str]]:
    """Rows of text, the first of them the head.

    Args:
        runs: by name, the scores of each run by task.
    """
    published = list(dict.fromkeys(name for task in TASKS.values() for name in task.published))
    head = ["task", "metric", "items", *runs, "always the same", *published]
    rows = [head]
    for task in TASKS.values():
        found = {name: scores[task.name] for name, scores in runs.items() if task.name in scores}
        if not found:
            continue
        first = next(iter(found.values()))
        fixed = max(first.baselines.items(), key=lambda pair: pair[1], default=None)
        rows.append(
            [
                task.title,
                _metric(task),
                str(first.items),
                *(_cell(found[name]) if name in found else "" for name in runs),
                "" if fixed is None else f"{100 * fixed[1]:.1f} ({fixed[0].removeprefix('always ')})",
                *(f"{task.published[name]:g}" if name in task.published else "" for name in published),
            ]
        )
    return [[_line(cell) for cell in row] for row in rows]


def _line(text: str) -> str:
    """In one line, without what cannot be printed."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _literal(text: str) -> str:
    """As Markdown that shows the very text, HTML included."""
    return _MARKS.sub(r"\\\g<0>", html.escape(text, quote=False))


def _metric(task: Task) -> str:
    return f"{task.metric.replace('_', ' ')} {'↓' if task.metric == 'wer' else '↑'}"


def _cell(score: TaskScore) -> str:
    own = score.scores.get(score.metric)
    if own is None:
        return f"not scored ({score.missing[score.metric].partition(chr(10))[0]})"
    low, high = own.interval
    notes = [f"{100 * own.unparsed:.0f} % unread"] * (own.unparsed > 0) + [f"{score.failed} failed"] * (
        score.failed > 0
    )
    return f"{100 * own.value:.1f} ({100 * low:.1f} to {100 * high:.1f})" + "".join(f", {note}" for note in notes)


def as_markdown(runs: Mapping[str, Scores]) -> str:
    """A table in Markdown, all figures times 100, and the version of the parsers that read the answers.

    Example:
        >>> from avfusion.aveb.runner import Answer, score_answers
        >>> from avfusion.aveb.runner import as_markdown
        >>> said = [Answer(id="1", task="avm", prediction="Yes.", references=("yes",))]
        >>> print(as_markdown({"mine": {"avm": score_answers(said)}}).splitlines()[2])
        | Audio-visual matching (AVM) | yes no ↑ | 1 | 100.0 (100.0 to 100.0) | 100.0 (yes) |  |  |
    """
    head, *rows = ([_literal(cell) for cell in row] for row in table(runs))
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])
    return f"{lines}\n{_readers(runs)}\n"


def _readers(runs: Mapping[str, Scores]) -> str:
    versions = sorted({score.parser_version for scores in runs.values() for score in scores.values()})
    return f"Answers read by avfusion's parsers, version {', '.join(map(str, versions))}."


def as_html(runs: Mapping[str, Scores], chart: str = "") -> str:
    """The same as one page that needs nothing beside it.

    Args:
        runs: by name, the scores of each run by task.
        chart: SVG to put below the table.

    Example:
        >>> from avfusion.aveb.runner import Answer, as_html, score_answers
        >>> said = [Answer(id="1", task="avm", prediction="Yes.", references=("yes",))]
        >>> as_html({"mine": {"avm": score_answers(said)}}).startswith("<!doctype html>")
        True
    """
    head, *rows = table(runs)
    line = "".join
    body = line(f"<tr>{line(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    top = line(f"<th>{html.escape(cell)}</th>" for cell in head)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>AVEB</title><style>{_STYLE}</style><h1>AVEB</h1>"
        "<p>All figures times 100; in brackets the interval that 95 % of the bootstrap's values lie in. "
        f"{_readers(runs)}</p>"
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{chart}</html>\n"
    )


def chart(runs: Mapping[str, Scores]) -> str:
    """Bars by task with their intervals, as SVG.

    Args:
        runs: by name, the scores of each run by task.

    Raises:
        ImportError: matplotlib is missing.

    Example:
        >>> from avfusion.aveb.runner import Answer, chart, score_answers
        >>> said = [Answer(id="1", task="avm", prediction="Yes.", references=("yes",))]
        >>> chart({"mine": {"avm": score_answers(said)}})[:4]
        '<svg'
    """
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("charts need matplotlib: pip install avfusion[aveb]") from error
    import io

    tasks = [name for name in TASKS if any(name in scores and scores[name].scores for scores in runs.values())]
    figure = Figure(figsize=(max(6.0, 1.1 * len(tasks)), 4.0), layout="constrained")
    axes = figure.add_subplot()
    width, names, bars = 0.8 / max(len(runs), 1), list[str](), list[Any]()
    for place, (name, scores) in enumerate(runs.items()):
        own = [
            (index, scores[task].scores.get(scores[task].metric)) for index, task in enumerate(tasks) if task in scores
        ]
        found = [(index, score) for index, score in own if score is not None]
        values = [100 * score.value for _, score in found]
        spread = [
            [value - 100 * score.interval[0] for value, (_, score) in zip(values, found, strict=True)],
            [100 * score.interval[1] - value for value, (_, score) in zip(values, found, strict=True)],
        ]
        spread = [[max(side, 0.0) for side in sides] for sides in spread]
        bars.append(axes.bar([index + place * width for index, _ in found], values, width, yerr=spread, capsize=2))
        names.append(_line(name).replace("$", r"\$"))  # which would begin a formula
    middle = (len(runs) - 1) * width / 2
    labels = [f"{task}\n{_metric(TASKS[task])}" for task in tasks]
    axes.set_xticks([index + middle for index in range(len(tasks))], labels, fontsize=7)
    axes.set_ylabel("× 100")
    # The handles' labels first: one that begins with an underscore would be left out.
    for label, name in zip(axes.legend(bars, [" "] * len(bars)).get_texts(), names, strict=True):
        label.set_text(name)
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def write_report(runs: Mapping[str, Scores], out: str | Path) -> list[Path]:
    """Writes ``report.md`` and ``report.html`` into a folder.

    Args:
        runs: by name, the scores of each run by task.
        out: the folder; is made if it does not exist.

    Returns:
        The files.

    Raises:
        InvalidValueError: no scores.

    Example:
        >>> import tempfile
        >>> from avfusion.aveb.runner import Answer, score_answers, write_report
        >>> said = [Answer(id="1", task="avm", prediction="Yes.", references=("yes",))]
        >>> [path.name for path in write_report({"mine": {"avm": score_answers(said)}}, tempfile.mkdtemp())]
        ['report.md', 'report.html']
    """
    if not any(runs.values()):
        raise InvalidValueError("runs: must hold the scores of a task, found none")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"report.md": as_markdown(runs), "report.html": as_html(runs, chart(runs))}
    for name, text in pages.items():
        write_whole(folder / name, text)
    return [folder / name for name in pages]


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with its parent's where two are alike."""
    short = [path.resolve().name for path in paths]
    return [
        name if short.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for name, path in zip(short, paths, strict=True)
    ]
