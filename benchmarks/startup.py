"""What it costs to begin: importing the library, making the connector."""

import subprocess
import sys
from collections.abc import Callable

import torch
from torch import nn

from avfusion import AudioVisualConnector
from benchmarks import ours, sizes
from benchmarks.measure import WALL, Spread, time_in_turns
from benchmarks.suite import Measurement, Result, Settings, times

PROBE = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import avfusion
print(middle - start, time.perf_counter() - middle)
"""


def run(settings: Settings) -> Result:
    return Result({}, _import(settings) + _construction(settings), [])


def _import(settings: Settings) -> list[Measurement]:
    """Each run in a process of its own, as a second import costs nothing; the first one, on cold files, is left out."""
    runs = [_probe() for _ in range(1 if settings.smoke else settings.rounds + 1)]
    torch_alone, beyond = zip(*(runs if settings.smoke else runs[1:]), strict=True)
    return [
        Measurement("import", "torch", WALL, "s", Spread.of(torch_alone)),
        Measurement("import", "avfusion, beyond torch", WALL, "s", Spread.of(beyond)),
    ]


def _probe() -> tuple[float, float]:
    run = subprocess.run([sys.executable, "-c", PROBE], check=True, stdout=subprocess.PIPE, text=True)
    alone, beyond = map(float, run.stdout.split())
    return alone, beyond


def _construction(settings: Settings) -> list[Measurement]:
    def on(device: str) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            with torch.device(device):
                if settings.smoke:
                    return ours.connector(sizes.SMOKE, ours.projector(sizes.SMOKE))
                return AudioVisualConnector()

        return make

    makers = {f"on {device}": on(device) for device in (settings.device, "meta")}
    timings = time_in_turns(makers, device=settings.device, rounds=settings.rounds, block=settings.block)
    return times("AudioVisualConnector()", timings)
