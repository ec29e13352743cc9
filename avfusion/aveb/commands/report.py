"""``report``: runs beside each other."""

import argparse
import sys
from pathlib import Path

from avfusion.aveb.commands.score import add_judge, score_all
from avfusion.aveb.runner.report import names_of, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("runs", nargs="+", metavar="DIR", help="folders of runs, a blind one among them to compare")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the runs (their folders')")
    parser.add_argument("--out", default="report", metavar="DIR", help="(report)")
    add_judge(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the report and says where."""
    names = options.names or names_of([Path(path) for path in options.runs])
    if len(set(names)) != len(options.runs):
        sys.stderr.write(f"names: must differ and be {len(options.runs)}, found {names}\n")
        return 2
    runs = {name: score_all([path], options) for name, path in zip(names, options.runs, strict=True)}
    for path in write_report(runs, options.out):
        sys.stdout.write(f"{path}\n")
    return 0
