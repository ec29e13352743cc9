"""Reads the files whose paths come, in a process with little memory, and tells what came of each."""

import json
import random
import resource
import sys
import time
import traceback
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from avfusion import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media import load_media, open_live

_CHUNKS = 2000  # of a live source: it may be as long as its times say
_WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"frame_rate": None},
    {"start": 0.35},
    {"start": 0.2, "end": 0.6, "size": 16},
    {"video": False},
    {"damaged": "skip"},
    {"damaged": "skip", "frame_rate": None, "start": 0.35},
)


def read(path: str) -> str:
    """``"ok"``, ``"media_error"``, ``"value_error"``, ``"memory"`` or ``"undeclared: ..."``."""
    outcome = "ok"
    try:
        draw = random.Random(Path(path).stat().st_size)
        load_media(path, **draw.choice(_WAYS))
    except MediaError as error:
        outcome = "memory" if "more memory than there is" in str(error) else "media_error"
    except (InvalidValueError, InvalidTypeError):
        outcome = "value_error"
    except Exception as error:  # noqa: BLE001
        return f"undeclared: {_where(error)}"
    try:
        with open_live(path, realtime=False) as live:
            for _ in islice(live, _CHUNKS):
                pass
    except (InvalidValueError, InvalidTypeError):
        pass
    except Exception as error:  # noqa: BLE001
        return f"undeclared: live: {_where(error)}"
    return outcome


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"


def main() -> None:
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(float(sys.argv[1]) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        outcome = read(line.rstrip("\n"))
        most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps([outcome, time.perf_counter() - started, most]), flush=True)


if __name__ == "__main__":
    main()
