"""Runs the benchmarks: ``python -m benchmarks --help``."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import machine, report
from benchmarks.suite import Settings, Target

SUITES = ("connector", "growth", "streaming", "assembly", "startup")
RESULTS = Path(__file__).parent / "results"
ROUNDS = {"cpu": 5, "cuda": 20}
BLOCK = {"cpu": 0.2, "cuda": 0.05}  # events on a GPU are exact, a processor's time is not


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Times, operations and memory.")
    parser.add_argument("--only", nargs="+", choices=SUITES, default=SUITES, metavar="NAME", help=", ".join(SUITES))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="float32 on cpu, bfloat16 on cuda")
    parser.add_argument("--rounds", type=int, help="rounds of interleaved runs (5; 20 on cuda)")
    parser.add_argument("--threads", type=int, help="processor threads (PyTorch's own choice)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, whose figures mean nothing")
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results; none for a smoke run)")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rounds = 2 if options.smoke else ROUNDS[options.device]
    settings = Settings(
        device=options.device,
        smoke=options.smoke,
        rounds=rounds if options.rounds is None else options.rounds,
        block=0.0 if options.smoke else BLOCK[options.device],
    )
    folder = options.out if options.out is not None or options.smoke else RESULTS
    ran_on = machine.describe(settings.device)
    targets: list[Target] = []
    for name in SUITES:
        if name not in options.only:
            continue
        result = importlib.import_module(f"benchmarks.{name}").run(settings)
        targets += result.targets
        if result.targets:
            print(report.table(name, result.targets), flush=True)
        if folder is not None:
            content = report.as_json(name, result, settings, ran_on)
            report.write(content, report.path_of(name, settings.device, folder))
    met = sum(target.met for target in targets)
    print(f"{met} of {len(targets)} targets met" + (" (smoke run: the figures mean nothing)" * settings.smoke))


if __name__ == "__main__":
    main()
