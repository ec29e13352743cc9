"""Seconds that ``import avfusion`` takes beyond ``import torch``.

    python -m benchmarks.import_time

Each figure is measured in a process of its own, in turns, because a second import in one process costs nothing.
"""

import statistics
import subprocess
import sys

PROBE = """
import time
import torch
start = time.perf_counter()
import avfusion
print(time.perf_counter() - start)
"""


def measure(runs: int = 5) -> list[float]:
    """Seconds of each run, the first one (cold file cache) left out."""
    command = [sys.executable, "-c", PROBE]
    times = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(runs + 1)]
    return times[1:]


def main() -> None:
    times = measure()
    print(f"import avfusion beyond torch: median {statistics.median(times):.3f} s of {len(times)} runs, ", end="")
    print(f"{min(times):.3f} to {max(times):.3f} s")


if __name__ == "__main__":
    main()
