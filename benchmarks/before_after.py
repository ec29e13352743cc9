"""Two checkouts, row by row and in turns: ``python -m benchmarks.before_after BEFORE AFTER --out FILE``.

Both run the same benchmark at the same time, each in a process of its own, and take turns call by call. What slows the
machine slows both, so a difference of a few percent can be seen where two separate runs differ by more. Peers, which
are the same in both, are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.ours import NAME

SUITES = ("connector", "streaming", "growth")
SHORT, LONG = 0.1, 60.0  # seconds that one turn lasts at least, and that all turns of a row may take for one checkout


class Side:
    """One checkout's process."""

    def __init__(self, folder: Path, suite: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("turns.py")), suite, str(threads)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> Any:
        """The next line; ``None`` at the end."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"the benchmark ended with status {self._process.wait()}")
        return json.loads(line)

    def tell(self, variant: str | None, calls: int = 1) -> None:
        """Asks for seconds a call of a variant; ``None`` goes on to the next table."""
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps([variant, calls]) + "\n")
            self._process.stdin.flush()

    def time(self, variant: str, calls: int = 1) -> float:
        self.tell(variant, calls)
        return float(self.answer())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before_after", description="Two checkouts in turns.")
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="another")
    parser.add_argument("--only", nargs="+", choices=SUITES, default=SUITES, metavar="NAME", help=", ".join(SUITES))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each row (7)")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (1)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; rows are added to what it has")
    options = parser.parse_args(arguments)
    content = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    content |= {
        **machine.describe("cpu"),
        "before": _commit(options.before),
        "after": _commit(options.after),
        "rounds": options.rounds,
        "threads": options.threads,
    }
    for suite in options.only:
        sides = [Side(folder.resolve(), suite, options.threads) for folder in (options.before, options.after)]
        content[suite] = []
        try:
            for row in _rows(sides, options.rounds):
                print(f"{suite}: {row['cost']:.3f}  table {row['table']}, {row['variant']}", flush=True)
                content[suite].append(row)
                options.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        finally:
            for side in sides:
                side.stop()


def _rows(sides: Sequence[Side], rounds: int) -> Iterator[dict[str, Any]]:
    """The rows of every table that both have: seconds before and after, and the median of their ratios."""
    table = 0
    while True:
        variants = [side.answer() for side in sides]
        if None in variants:
            return
        table += 1
        ours = [name for name in variants[0] if name == NAME] or [name for name in variants[0] if name in variants[1]]
        for variant in ours:
            longest = max(side.time(variant) for side in sides)  # and warm up
            longest = max(side.time(variant) for side in sides) if longest < SHORT * 10 else longest
            calls = max(1, round(SHORT / max(longest, 1e-6)))
            turns = max(1, min(rounds, int(LONG / (longest * calls))))
            seconds: list[list[float]] = [[], []]
            for turn in range(turns):
                for place in (0, 1) if turn % 2 else (1, 0):
                    seconds[place].append(sides[place].time(variant, calls))
            before, after = map(statistics.median, seconds)
            cost = statistics.median(new / old for old, new in zip(*seconds, strict=True))
            yield {
                "table": table, "variant": variant, "before_s": float(f"{before:.4g}"),
                "after_s": float(f"{after:.4g}"), "cost": round(cost, 4), "turns": turns,
            }  # fmt: skip
        for side in sides:
            side.tell(None)


def _commit(folder: Path) -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    return found.stdout.strip()


if __name__ == "__main__":
    main()
