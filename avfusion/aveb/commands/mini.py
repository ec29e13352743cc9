"""``mini``: generate the miniature."""

import argparse
import os
import sys
import time

from avfusion.aveb.mini import LEVELS, MAKERS, SPLITS, generate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="a folder that is not there yet")
    add("--seed", type=int, default=0, help="(0)")
    add("--difficulty", choices=[*LEVELS], default="easy", help="(easy)")
    add("--tasks", nargs="+", choices=[*MAKERS], default=[*MAKERS], metavar="TASK", help="(all eleven)")
    for split, count in SPLITS.items():
        add(
            f"--{split}",
            type=int,
            default=count,
            metavar="N",
            help=f"items of each task ({count}); 0: no such split",
        )
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (one a core)")


def run(options: argparse.Namespace) -> int:
    """Generates, and says where and how long it took."""
    start = time.perf_counter()
    items = {split: count for split in SPLITS if (count := getattr(options, split)) != 0}
    folder = generate(
        options.out,
        seed=options.seed,
        items=items,
        tasks=tuple(options.tasks),
        difficulty=options.difficulty,
        workers=options.workers,
    )
    sys.stdout.write(
        f"{folder}: {sum(items.values()) * len(options.tasks)} items in {time.perf_counter() - start:.0f} s\n"
    )
    return 0
