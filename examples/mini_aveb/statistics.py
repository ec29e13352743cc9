"""Means over seeds, and differences between variants of the same seed, with 95 % intervals of Student's t."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from examples.mini_aveb.scoring import grouped
from examples.mini_aveb.variants import Finding

_T = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # by degrees of freedom


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of all seeds.
        margin: half the interval; infinite for a single seed.
        seeds: how many there are.
    """

    mean: float
    margin: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Of one value a seed."""
        count = len(values)
        spread = stdev(values) / math.sqrt(count) if count > 1 else math.inf
        return cls(fmean(values), _T[min(count - 1, len(_T) - 1)] * spread, count)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval is on one side of 0, else 0."""
        return 0 if abs(self.mean) <= self.margin else 1 if self.mean > 0 else -1


Row = dict[str, Any]


class Runs:
    """The rows of a study.

    Args:
        rows: what :func:`~examples.mini_aveb.ablation.study` returns.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: dict[str, dict[int, Row]] = {}
        for row in rows:
            self._rows.setdefault(row["variant"]["name"], {})[row["seed"]] = row

    @property
    def variants(self) -> list[str]:
        """Names, in the order of the study."""
        return [*self._rows]

    def of(self, variant: str) -> list[Row]:
        """The runs of a variant, seed by seed."""
        return [row for _, row in sorted(self._rows[variant].items())]

    def group(self, variant: str, group: str) -> Estimate:
        """The mean share of a group of tasks."""
        return Estimate.of([grouped(row["shares"])[group] for row in self.of(variant)])

    def task(self, variant: str, task: str) -> Estimate:
        """The figure of a task, by its own metric."""
        return Estimate.of([row["figures"][task] for row in self.of(variant)])

    def difference(self, better: str, worse: str, group: str) -> Estimate | None:
        """By how much one variant is better than another, from the seeds that both have; ``None`` without any."""
        pairs = [self._rows.get(name, {}) for name in (better, worse)]
        shared = sorted(pairs[0].keys() & pairs[1].keys())
        if not shared:
            return None
        first, second = ([grouped(rows[seed]["shares"])[group] for seed in shared] for rows in pairs)
        return Estimate.of([one - other for one, other in zip(first, second, strict=True)])

    def verdict(self, finding: Finding) -> str:
        """``"shown"``, ``"reversed"`` or ``"not shown"``; empty without both variants."""
        found = self.difference(finding.better, finding.worse, finding.group)
        return "" if found is None else {1: "shown", 0: "not shown", -1: "reversed"}[found.sign]
