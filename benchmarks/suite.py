"""What a suite takes and gives. A suite is a module of this package with ``run(settings: Settings) -> Result``."""

from typing import Any, NamedTuple

from benchmarks.measure import Spread, Timings


class Settings(NamedTuple):
    """How to measure.

    Attributes:
        device: ``"cpu"`` (float32) or ``"cuda"`` (bfloat16).
        smoke: tiny sizes, to see that everything runs; the figures mean nothing.
        rounds: rounds of interleaved runs.
        block: seconds that one timed block of calls lasts at least.
    """

    device: str = "cpu"
    smoke: bool = False
    rounds: int = 5
    block: float = 0.2


class Measurement(NamedTuple):
    """One cell of a table.

    Attributes:
        work: what was run, the table: ``"forward, 24 windows"``.
        variant: who ran it, the row: ``"avfusion"``.
        quantity: what was measured, the column: ``"CPU time"``.
        unit: ``"s"``, ``"B"``, ``"FLOP"``, ``"FLOP/s"`` or ``""``.
        value: median and quartiles.
        ratio: how many times avfusion's value this one is, round by round.
    """

    work: str
    variant: str
    quantity: str
    unit: str
    value: Spread
    ratio: Spread | None = None


class Target(NamedTuple):
    """A number to reach.

    Attributes:
        name: what it is about.
        target: the bound.
        value: what was measured.
        at_least: whether the bound is the smallest or the largest value that will do.
    """

    name: str
    target: float
    value: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


class Result(NamedTuple):
    """What a suite found.

    Attributes:
        settings: sizes and whatever else is needed to read the figures.
        measurements: everything measured.
        targets: every target with its value.
    """

    settings: dict[str, Any]
    measurements: list[Measurement]
    targets: list[Target]


def times(work: str, timings: Timings, to: str | None = None) -> list[Measurement]:
    """Timings as measurements, each other variant with its ratio to the variant ``to``."""
    return [
        Measurement(
            work,
            variant,
            clock,
            "s",
            Spread.of(seconds),
            None if to is None or variant == to else timings.ratio(variant, to, clock),
        )
        for clock, variants in timings.seconds.items()
        for variant, seconds in variants.items()
    ]
