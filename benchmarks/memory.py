"""Peak memory above weights and inputs, each figure in a process of its own; on CPUs as Linux counts it.

python -m benchmarks.memory --model avfusion --task forward --windows 24
"""

import argparse
import ctypes
import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import ours, sizes
from benchmarks.peers.released import ReleasedConnector
from benchmarks.suite import Settings

ROOT = Path(__file__).parents[1]
# Every large tensor in a mapping of its own, given back when freed: what is resident is what is held.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}


def peak_bytes(settings: Settings, *, model: str, task: str, windows: int, checkpoint_every: int | None = None) -> int:
    """Bytes that ``task`` takes at most beside weights and inputs, gradients included.

    Args:
        settings: device and sizes.
        model: ``"avfusion"`` or ``"released"``.
        task: ``"forward"`` or ``"training"``.
        windows: of one clip.
        checkpoint_every: windows of a chunk that is computed again in the backward pass; avfusion only.
    """
    command = [sys.executable, "-m", "benchmarks.memory", "--model", model, "--task", task, "--windows", str(windows)]
    command += ["--device", settings.device, "--threads", str(torch.get_num_threads())]
    command += ["--smoke"] if settings.smoke else []
    command += [] if checkpoint_every is None else ["--checkpoint-every", str(checkpoint_every)]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, **MALLOC}, check=True, stdout=subprocess.PIPE, text=True)
    return int(run.stdout)


def _task(arguments: argparse.Namespace) -> tuple[Callable[[Tensor], object], Tensor]:
    """What to run, and its input."""
    size, training = sizes.of(arguments.smoke), arguments.task == "training"
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    model: nn.Module
    if arguments.model == "released":
        model = ReleasedConnector(**size.of_connector())
    else:
        model = ours.projector(size, checkpoint_every=arguments.checkpoint_every)
    model = model.to(arguments.device, dtype).train(training)
    tokens = ours.tokens(size, 1, arguments.windows * size.window_frames, device=arguments.device, dtype=dtype)

    def embed(frames: Tensor) -> Tensor:
        if arguments.model == "released":
            return model(frames, torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device))
        return model(ours.frames(frames)).embeddings

    def run(frames: Tensor) -> None:
        if training:
            embed(frames).square().mean().backward()
        else:
            with torch.inference_mode():
                embed(frames)

    run(tokens[:, : size.window_frames])  # libraries load, thread pools start
    model.zero_grad()
    return run, tokens


def _peak(run: Callable[[Tensor], object], tokens: Tensor) -> int:
    gc.collect()
    if tokens.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(tokens)
        return torch.cuda.max_memory_allocated() - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    reset.write_text("5")  # the highest so far becomes what is resident now
    before = _kibibytes(status, "VmRSS")
    run(tokens)
    return 1024 * (_kibibytes(status, "VmHWM") - before)


def _kibibytes(status: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Peak memory in bytes.")
    parser.add_argument("--model", choices=["avfusion", "released"], required=True)
    parser.add_argument("--task", choices=["forward", "training"], required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoint-every", type=int)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(_peak(*_task(arguments)))


if __name__ == "__main__":
    main()
