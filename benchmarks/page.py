"""Writes ``docs/performance.md`` from the result files: ``python -m benchmarks.page``."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.__main__ import RESULTS, SUITES

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

HEAD = """\
# Performance

Everything on this page is measured by `python -m benchmarks` (`--device cuda` for the GPU) and written by
`python -m benchmarks.page` from the [result files](https://github.com/avfusion/avfusion/tree/main/benchmarks/results).

Things that are compared have the same weights, are checked to give the same outputs, and are run in turns in one
process; a ratio is the median of the ratios of each round, and what stands in brackets are quartiles. CPU time is that
of the process, in float32; GPU time is that between CUDA events, in bfloat16. Memory is what is held at most beside
weights and inputs, in a process of its own.

On a GPU, few windows take as long as the processor needs to launch their kernels: one window as long as sixty.

"Released connector" is a plain port of FAVOR's: eager attention with additive masks, every window computed whether it
is real or not.
"""
TITLES = {
    "connector": "The connector against its peers",
    "growth": "Growth with the clip",
    "streaming": "Streams",
    "assembly": "The whole model",
    "startup": "Startup",
}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
UNITS = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")),
    "FLOP": ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")),
    "": ((1.0, ""),),
}


def main() -> None:
    PAGE.write_text(render(RESULTS))


def render(folder: Path) -> str:
    """The page that the result files of ``folder`` make."""
    paths = [(suite, device, report.path_of(suite, device, folder)) for suite in SUITES for device in DEVICES]
    parts = [HEAD]
    parts += [
        _suite(f"{TITLES[suite]}, {DEVICES[device]}", json.loads(path.read_text()))
        for suite, device, path in paths
        if path.exists()
    ]
    return "\n".join(parts)


def _suite(title: str, content: dict[str, Any]) -> str:
    if content["settings"]["smoke"]:
        raise ValueError(f"{title}: must be a full run, found a smoke run")
    parts = [f"## {title}\n", _machine(content)]
    if content["targets"]:
        parts.append(_table(("target", "bound", "measured", "met"), map(_target, content["targets"])))
    works: dict[str, list[dict[str, Any]]] = {}
    for measurement in content["measurements"]:
        works.setdefault(measurement["work"], []).append(measurement)
    for work, measurements in works.items():
        parts += [f"### {work[0].upper()}{work[1:]}\n", _work(measurements)]
    return "\n".join(parts)


def _machine(content: dict[str, Any]) -> str:
    hardware = content["hardware"]
    host = hardware.get("host", hardware)
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    gpu = (
        f"{hardware['processor']} ({hardware['memory_gib']:g} GiB), CUDA {hardware['cuda']}, in "
        if "host" in hardware
        else ""
    )
    threads = f"{host['threads']} thread{'s' * (host['threads'] > 1)}"
    commit = "no commit" if content["commit"] is None else f"commit `{content['commit'][:12]}`"
    changes = " with changes" if content["changed_since_commit"] else ""
    return (
        f"{gpu}{host['processor']}, {host['cores']} cores, {threads}, {host['memory_gib']:g} GiB. "
        f"{versions[0].upper()}{versions[1:]}; {commit}{changes}; {content['date']}.\n"
    )


def _target(target: dict[str, Any]) -> tuple[str, ...]:
    sign = "≥" if target["bound"] == "at least" else "≤"
    return (
        target["name"],
        f"{sign} {target['target']:g}",
        f"{target['value']:.4g}",
        "yes" if target["met"] else "**no**",
    )


def _work(measurements: Sequence[dict[str, Any]]) -> str:
    """A row a variant, a column a quantity, and the ratio by the first quantity that has one."""
    quantities = list(dict.fromkeys(measurement["quantity"] for measurement in measurements))
    variants = list(dict.fromkeys(measurement["variant"] for measurement in measurements))
    cells = {(m["variant"], m["quantity"]): m for m in measurements}
    compared = next((m["quantity"] for m in measurements if "ratio" in m), None)
    rows = []
    for variant in variants:
        own = [cells.get((variant, quantity)) for quantity in quantities]
        row = [variant, *("" if cell is None else _value(cell, cell["unit"]) for cell in own)]
        if compared is not None:
            cell = cells.get((variant, compared), {})
            row.append(f"× {_value(cell['ratio'], '')}" if "ratio" in cell else "")
        rows.append(row)
    return _table(("", *quantities, *([] if compared is None else [f"ratio of {compared}"])), rows)


def _value(spread: dict[str, Any], unit: str) -> str:
    scale, name = next(((s, n) for s, n in UNITS[unit] if abs(spread["median"]) >= s), UNITS[unit][-1])
    text = f"{_number(spread['median'] / scale)} {name}".rstrip()
    if spread["rounds"] == 1:
        return text
    lower, upper = (_number(value / scale) for value in spread["quartiles"])
    return f"{text} ({lower} to {upper})"


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
