"""The study's plots."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.mini_aveb.scoring import GROUPS
from examples.mini_aveb.statistics import Runs
from examples.mini_aveb.variants import FULL, SWEEPS


def draw(runs: Runs, folder: Path) -> list[Path]:
    """Two small PNG: differences to the full model, and the sweeps."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"ablation_differences": _differences(runs), "ablation_sweeps": _sweeps(runs)}
    for name, figure in figures.items():
        FigureCanvasAgg(figure).print_png(folder / f"{name}.png", metadata={"Software": None})
    return [folder / f"{name}.png" for name in figures]


def _differences(runs: Runs) -> Figure:
    names = [name for name in runs.variants if name != FULL.name]
    figure = Figure(figsize=(8, 0.6 + 0.45 * max(len(names), 2)), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    for number, group in enumerate(GROUPS):
        found = [(place, runs.difference(name, FULL.name, group)) for place, name in enumerate(names)]
        known = [(place + 0.18 * number - 0.27, one) for place, one in found if one is not None]
        axes.errorbar(
            [100 * one.mean for _, one in known],
            [place for place, _ in known],
            xerr=[100 * min(one.margin, 1.0) for _, one in known],
            fmt="o",
            markersize=4,
            capsize=2,
            label=group,
        )
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("difference to the full model, points of 100")
    axes.legend(fontsize=8)
    return figure


def _sweeps(runs: Runs) -> Figure:
    figure = Figure(figsize=(10, 3.2), dpi=80, layout="constrained")
    for place, (title, (label, variants)) in enumerate(SWEEPS.items()):
        axes = figure.add_subplot(1, len(SWEEPS), place + 1)
        names = [name for name in variants if name in runs.variants]
        for group in GROUPS:
            found = [runs.group(name, group) for name in names]
            axes.errorbar(
                range(len(names)),
                [100 * one.mean for one in found],
                yerr=[100 * min(one.margin, 1.0) for one in found],
                marker="o",
                markersize=4,
                capsize=2,
                label=group,
            )
        axes.set_xticks(range(len(names)), [f"{variants[name]:g}" for name in names])
        axes.set_xlabel(label)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(0, 105)
    figure.axes[0].set_ylabel("share of the right answers' score, %")
    figure.axes[0].legend(fontsize=7)
    return figure
