"""What only a GPU can show, in nine minutes: ``python -m benchmarks.gpu --out FOLDER``.

Tests of every path there, the whole suite beside them on the processors, and the benchmarks. Each part is a process of
its own with a limit of time, so that one that hangs or fails loses nothing of the others. The folder gets the results
as ``python -m benchmarks.page`` reads them, and everything that was printed.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CUDA_TESTS = (
    "tests/device",
    "tests/core/test_attention.py",
    "tests/core/test_backends.py",
    "tests/core/test_savings.py",
)
CPU_TESTS = (
    "tests/core",
    "tests/models",
    "tests/encoders",
    "tests/testing",
    "tests/interop",
    "tests/media",
    "tests/viz",
)
LIMIT_OF_TESTS = 120.0
GRACE = 15.0  # seconds to say what was found, for a part that has had its time


class Part(NamedTuple):
    """One process.

    Attributes:
        name: of its log.
        arguments: of Python.
        seconds: that it may take.
        environment: beside what there is.
        beside: whether it runs at the same time as the next one.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float
    environment: dict[str, str] = {}  # noqa: RUF012  never changed
    beside: bool = False


def parts(device: str, *, smoke: bool, out: Path) -> list[Part]:
    """What is run, the first things first."""
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--durations=8")
    small = ("--smoke",) if smoke else ()
    few = ("--rounds", "5")  # a round of these takes seconds
    suites = (("connector", 190.0, ()), ("assembly", 110.0, few), ("growth", 60.0, few), ("streaming", 60.0, few))
    run = ("-m", "benchmarks", "--device", device, "--out", str(out), *small)
    return [
        Part("tests_cpu", (*pytest, "-n", "9", *CPU_TESTS), LIMIT_OF_TESTS, {"CUDA_VISIBLE_DEVICES": ""}, beside=True),
        # Warnings are listed, and fail nothing: what else is installed there is not ours.
        Part("tests_cuda", (*pytest, "-n", "6", "-W", "default", *CUDA_TESTS), LIMIT_OF_TESTS),
        *(Part(name, (*run, "--only", name, *more), seconds) for name, seconds, more in suites),
    ]


class Running:
    """A part that has begun; its output goes to a file, so that nothing waits for a reader."""

    def __init__(self, part: Part, out: Path) -> None:
        self.part, self.log, self.begin = part, out / f"{part.name}.log", time.monotonic()
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", *part.arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **part.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self) -> str:
        """Waits; one line about how it went."""
        left = self.begin + self.part.seconds - time.monotonic()
        late = False
        try:
            self.process.wait(max(left, 0.0))
        except subprocess.TimeoutExpired:
            late = True
            self.process.send_signal(signal.SIGINT)  # pytest then says what has failed so far
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with whatever it has left behind
        code = self.process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines()
        how = f"stopped after {self.part.seconds:g} s" if late else f"exit {code}"
        return f"{self.part.name}: {how}, {time.monotonic() - self.begin:.0f} s: {lines[-1] if lines else 'no output'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Tests and benchmarks of a GPU.")
    parser.add_argument("--out", type=Path, required=True, help="folder of logs and results")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts to run; all without it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, whose figures mean nothing")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = parts(options.device, smoke=options.smoke, out=options.out.resolve())
    names = [part.name for part in chosen]
    if options.only is not None:
        unknown = sorted(set(options.only) - set(names))
        if unknown:
            parser.error(f"only: must be among {', '.join(names)}, found {', '.join(unknown)}")
        chosen = [part for part in chosen if part.name in options.only]
    said: list[str] = []
    waiting: list[Running] = []
    for part in chosen:
        waiting.append(Running(part, options.out))
        if part.beside:
            continue
        for running in reversed(waiting):
            said.append(running.end())
            print(said[-1], flush=True)
        waiting.clear()
    for running in waiting:
        said.append(running.end())
        print(said[-1], flush=True)
    return 0 if all(": exit 0," in line for line in said) else 1


if __name__ == "__main__":
    sys.exit(main())
