"""A process that times one checkout's benchmarks when it is told to; :mod:`benchmarks.before_after` runs two.

It is run by its path, with the checkout as working directory. Each line of standard input is a command, each line of
standard output an answer.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import torch


def main() -> None:
    suite, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # what the suite prints is no answer
    measure = importlib.import_module("benchmarks.measure")
    setattr(measure, "time_in_turns", _Server(answers, measure.Timings))  # noqa: B010  the module is one of two
    settings = importlib.import_module("benchmarks.suite").Settings(rounds=1)
    importlib.import_module(f"benchmarks.{suite}").run(settings)
    print(json.dumps(None), file=answers, flush=True)


class _Server:
    """Stands in for :func:`benchmarks.measure.time_in_turns`: times what the other process asks for."""

    def __init__(self, answers: TextIO, timings: Callable[..., Any]) -> None:
        self._answers, self._timings = answers, timings

    def __call__(self, variants: Mapping[str, Callable[[], object]], **_settings: object) -> Any:
        self._say(list(variants))
        for line in sys.stdin:
            variant, calls = json.loads(line)
            if variant is None:
                break
            began = time.process_time()
            for _ in range(calls):
                variants[variant]()
            self._say((time.process_time() - began) / calls)
        ones = {name: [1.0] for name in variants}
        return self._timings("CPU time", {"CPU time": ones, "wall time": ones})

    def _say(self, content: object) -> None:
        print(json.dumps(content), file=self._answers, flush=True)


if __name__ == "__main__":
    main()
