"""What each of two processes does: its share of the items, in batches, then the score of all of them.

Run by ``test_distributed.py``: ``python -m tests.aveb.metrics.distributed RANK PORT OUT``.
"""

import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from tests.aveb.metrics.samples import WITHOUT_JAVA, build, items, update

KINDS = ("padded", "empty")


def share(kind: str, rank: int, count: int) -> list[int]:
    """Which items a process sees: its part of a padded sampler's, all, or none."""
    if kind == "padded":
        return list(DistributedSampler(range(count), num_replicas=2, rank=rank, shuffle=True))
    return list(range(count)) if rank == 0 else []


def main(rank: int, port: str, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    scores: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind, key in product(KINDS, WITHOUT_JAVA):
        rows, metric = items(key), build(key)
        seen = share(kind, rank, len(rows))
        for start in range(0, len(seen), 4):
            update(metric, [rows[index] for index in seen[start : start + 4]])
        scores[kind][key] = metric.compute()
        update(metric, rows[:2])  # what was gathered is given back: a process goes on with its own
        assert metric.compute() == scores[kind][key]
    Path(out).write_text(json.dumps(scores))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
