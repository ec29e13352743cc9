"""``docs/ablation.md`` and its plots, from the results of the study."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from examples.mini_aveb.plots import draw
from examples.mini_aveb.scoring import GROUPS, metric_of
from examples.mini_aveb.settings import Settings
from examples.mini_aveb.statistics import Estimate, Row, Runs
from examples.mini_aveb.variants import FINDINGS, FULL, Finding

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "mini_aveb_ablation.json"
PAGE = ROOT / "docs" / "ablation.md"
HEAD, REMARKS = (Path(__file__).with_name(name) for name in ("head.md", "remarks.md"))
COLUMNS = (*GROUPS, "all")


def results_of(rows: Sequence[Row], settings: Settings, same: Mapping[str, float]) -> dict[str, Any]:
    """What the results file holds: every run, what they come to, and what the same answer to everything scores."""
    runs = Runs(rows)
    return {
        "command": "python -m examples.mini_aveb ablation",
        "note": (
            "shares: of what the right answers score, 0 to 1 (speech: 1 - word error rate). "
            "figures: each task's metric, 0 to 1, CIDEr-D 0 to 10. "
            "margin: half of the 95 % interval over seeds (Student's t). seconds: of the processor."
        ),
        "settings": asdict(settings),
        "groups": {name: list(tasks) for name, tasks in GROUPS.items()},
        "means": {name: {group: runs.group(name, group)._asdict() for group in COLUMNS} for name in runs.variants},
        "findings": [
            {**finding._asdict(), **found._asdict(), "verdict": runs.verdict(finding)}
            for finding in FINDINGS
            if (found := runs.difference(finding.better, finding.worse, finding.group)) is not None
        ],
        "always_the_same": dict(same),
        "runs": list(rows),
        **describe("cpu"),
    }


def publish(results: dict[str, Any], results_file: Path = RESULTS, page: Path = PAGE) -> None:
    """Writes the results file, the page, and the page's plots beside it."""
    results_file.parent.mkdir(parents=True, exist_ok=True)
    results_file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    plots = draw(Runs(results["runs"]), page.parent / "_static")
    page.write_text(render(results, plots), encoding="utf-8")


def render(results: dict[str, Any], plots: Sequence[Path] = ()) -> str:
    """The page of a results file."""
    runs = Runs(results["runs"])
    seeds = len(runs.of(FULL.name))
    pictures = [f"![{path.stem.replace('_', ' ')}](_static/{path.name})\n" for path in plots]
    return "\n".join(
        [
            HEAD.read_text(encoding="utf-8").format(seeds=seeds, **results["settings"]),
            "## Findings of the papers and of this study\n",
            _findings(runs),
            REMARKS.read_text(encoding="utf-8"),
            "## Every variant\n",
            "Scores relative to the right answers' score, times 100: "
            f"mean ± half of the 95 % interval over {seeds} seeds.\n",
            _table(("variant", *COLUMNS, "tokens per clip"), (_variant(runs, name) for name in runs.variants)),
            "Differences to the full model with the same seed; bold if the interval does not contain 0.\n",
            _table(("variant", *COLUMNS), (_difference(runs, name) for name in runs.variants if name != FULL.name)),
            *pictures,
            "## Every task\n",
            "The tasks' own metrics, times 100; lower is better for WER. "
            "CIDEr-D ranges from 0 to 10 and is times 10 here.\n",
            _tasks(runs, results["always_the_same"]),
            _machine(results),
        ]
    )


def _findings(runs: Runs) -> str:
    rows = []
    for finding in FINDINGS:
        found = runs.difference(finding.better, finding.worse, finding.group)
        if found is not None:
            verdict = runs.verdict(finding)
            rows.append((finding.text, _compared(finding), _signed(found), f"**{verdict}**", finding.here))
    return _table(("finding of the papers", "compared", "difference", "verdict", "what it depends on here"), rows)


def _compared(finding: Finding) -> str:
    return f"{finding.better} − {finding.worse}, {finding.group}"


def _variant(runs: Runs, name: str) -> tuple[str, ...]:
    tokens = sum(row["tokens"] for row in runs.of(name)) / len(runs.of(name))
    return (name, *(_plain(runs.group(name, group)) for group in COLUMNS), f"{tokens:.1f}")


def _difference(runs: Runs, name: str) -> tuple[str, ...]:
    found = [runs.difference(name, FULL.name, group) for group in COLUMNS]
    return (name, *("" if one is None else f"**{_signed(one)}**" if one.sign else _signed(one) for one in found))


def _tasks(runs: Runs, same: Mapping[str, float]) -> str:
    tasks = [task for of_group in GROUPS.values() for task in of_group]
    head = ("variant", *(f"{task} ({metric_of(task).replace('_', ' ')})" for task in tasks))

    def row(name: str, figures: Mapping[str, float]) -> list[str]:
        scaled = ((10 if metric_of(task) == "cider" else 100) * figures[task] for task in tasks)
        return [name, *(f"{value:.1f}" for value in scaled)]

    rows = [row(name, {task: runs.task(name, task).mean for task in tasks}) for name in runs.variants]
    return _table(head, [*rows, row("always the same answer", same)])


def _plain(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} ± {100 * estimate.margin:.1f}"


def _signed(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:+.1f} ± {100 * estimate.margin:.1f}".replace("-", "−")


def _machine(results: dict[str, Any]) -> str:
    hardware, versions = results["hardware"], results["versions"]
    hours = sum(row["seconds"] for row in results["runs"]) / 3600
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{len(results['runs'])} runs, {hours:.1f} processor hours on {hardware['processor']}, "
        f"{hardware['cores']} cores; "
        f"{named}; commit `{(results['commit'] or 'none')[:12]}`; {results['date']}.\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
