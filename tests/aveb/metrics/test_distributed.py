"""Two processes, one without items or both with a padded sampler's repeats: the score of one, to the last bit."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.aveb.metrics.distributed import KINDS, share
from tests.aveb.metrics.samples import WITHOUT_JAVA, items, score

ROOT = Path(__file__).parents[3]


def test_two_processes_score_like_one(tmp_path: Path) -> None:
    count = len(items("cider"))
    padded, empty = ([share(kind, rank, count) for rank in range(2)] for kind in KINDS)
    assert len(padded[0] + padded[1]) > count == len(set(padded[0] + padded[1]))
    assert (len(empty[0]), len(empty[1])) == (count, 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    outs = [tmp_path / f"{rank}.json" for rank in range(2)]
    command = [sys.executable, "-m", "tests.aveb.metrics.distributed"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, str(rank), port, str(out)], cwd=ROOT, env=environment)
        for rank, out in enumerate(outs)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    expected = json.loads(json.dumps({key: score(key, items(key)) for key in WITHOUT_JAVA}))
    for out in outs:
        assert json.loads(out.read_text()) == dict.fromkeys(KINDS, expected)
