"""What the figures were measured on, without a name of a host or a path."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import avfusion

ROOT = Path(__file__).parents[1]
WRITTEN_BY_BENCHMARKS = ("benchmarks/results", "docs/performance.md")


def describe(device: str) -> dict[str, Any]:
    return {
        "hardware": _gpu() if device == "cuda" else _cpu(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "avfusion": avfusion.__version__,
        },
        **_state(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties()
    return {
        "processor": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "host": _cpu(),
    }


def _state() -> dict[str, Any]:
    """The commit that is measured; ``COMMIT`` says it of a copy whose history lacks it."""
    if "COMMIT" in os.environ:
        return {"commit": os.environ["COMMIT"], "changed_since_commit": False}
    changes = _git("status", "--porcelain", "--", ".", *_without(WRITTEN_BY_BENCHMARKS))
    return {"commit": _git("rev-parse", "HEAD"), "changed_since_commit": bool(changes)}


def _git(*arguments: str) -> str | None:
    """What git says; ``None`` outside a checkout."""
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _without(paths: tuple[str, ...]) -> list[str]:
    return [f":(exclude){path}" for path in paths]
