"""Results as JSON and as a table on the terminal."""

import json
from pathlib import Path
from typing import Any

from benchmarks.measure import Spread
from benchmarks.suite import Measurement, Result, Settings, Target

DIGITS = 5  # significant ones in the files: no clock gives more


def path_of(suite: str, device: str, folder: Path) -> Path:
    return folder / f"{suite}{'_cuda' if device == 'cuda' else ''}.json"


def as_json(suite: str, result: Result, settings: Settings, machine: dict[str, Any]) -> dict[str, Any]:
    return {
        "suite": suite,
        **machine,
        "settings": {**settings._asdict(), **result.settings},
        "targets": [_target(target) for target in result.targets],
        "measurements": [_measurement(measurement) for measurement in result.measurements],
    }


def write(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def table(suite: str, targets: list[Target]) -> str:
    """One line a target; says where one falls short, and by how much."""
    lines = []
    width = max((len(target.name) for target in targets), default=0)
    for target in targets:
        bound = f"{'≥' if target.at_least else '≤'} {target.target:g}"
        verdict = "met" if target.met else f"falls short by {abs(target.value / target.target - 1):.1%}"
        lines.append(f"{suite:<10} {target.name:<{width}} {bound:>8} {target.value:>9.4g}  {verdict}")
    return "\n".join(lines)


def _target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "bound": "at least" if target.at_least else "at most",
        "target": target.target,
        "value": _round(target.value),
        "met": target.met,
    }


def _measurement(measurement: Measurement) -> dict[str, Any]:
    content = {
        "work": measurement.work,
        "variant": measurement.variant,
        "quantity": measurement.quantity,
        "unit": measurement.unit,
        **_spread(measurement.value),
    }
    if measurement.ratio is not None:
        content["ratio"] = _spread(measurement.ratio)
    return content


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "median": _round(spread.median),
        "quartiles": [_round(spread.lower), _round(spread.upper)],
        "rounds": spread.rounds,
    }


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
