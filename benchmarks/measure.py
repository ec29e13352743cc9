"""Times of things that are compared, run in turns in one process: what slows the machine slows them all."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

import torch

LONG = 5.0  # seconds after which a call needs no second warm-up
CPU, GPU, WALL = "CPU time", "GPU time", "wall time"


class Spread(NamedTuple):
    """Median and quartiles of what each round gave."""

    median: float
    lower: float
    upper: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper, len(values))


class Timings(NamedTuple):
    """Seconds a call.

    Attributes:
        clock: the clock that counts: processor time of the process on a CPU, time between events on a GPU.
        seconds: by clock (that one and the wall's), by variant, one a round.
    """

    clock: str
    seconds: dict[str, dict[str, list[float]]]

    def of(self, variant: str) -> list[float]:
        """By the clock that counts."""
        return self.seconds[self.clock][variant]

    def ratio(self, variant: str, to: str, clock: str | None = None) -> Spread:
        """How many times as long as ``to`` it takes, round by round."""
        seconds = self.seconds[clock or self.clock]
        return Spread.of([one / other for one, other in zip(seconds[variant], seconds[to], strict=True)])


def time_in_turns(
    variants: Mapping[str, Callable[[], object]], *, device: str, rounds: int, block: float = 0.0
) -> Timings:
    """Times each variant once a round, after a warm-up.

    Args:
        variants: what to call, by name.
        device: ``"cpu"`` or ``"cuda"``.
        rounds: how often.
        block: seconds that one timing lasts at least: short calls are repeated within it.
    """
    clock = GPU if device == "cuda" else CPU
    calls = {name: _calls(call, device, block) for name, call in variants.items()}
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in variants} for kind in (clock, WALL)}
    for _ in range(rounds):
        for name, call in variants.items():
            own, wall = _time(call, calls[name], device)
            seconds[clock][name].append(own / calls[name])
            seconds[WALL][name].append(wall / calls[name])
    return Timings(clock, seconds)


def _calls(call: Callable[[], object], device: str, block: float) -> int:
    """Warms up; how many calls fill a block."""
    _, wall = _time(call, 4 if device == "cuda" else 1, device)  # CUDA graphs are recorded in the first few
    if wall < LONG:
        _, wall = _time(call, 1, device)
    return max(1, math.ceil(block / max(wall, 1e-6)))


def _time(call: Callable[[], object], calls: int, device: str) -> tuple[float, float]:
    """Seconds by the device's clock and by the wall's."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        wall = time.perf_counter()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000, time.perf_counter() - wall
    wall, own = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - own, time.perf_counter() - wall
