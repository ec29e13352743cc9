"""Two processes whose batches hold different modalities: no hang, and the gradients of one process on all of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.examples.favor.distributed import adapted, inputs_of, shares, step

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_with_unlike_batches_give_the_gradients_of_one(kind: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = tmp_path / "gradients.safetensors"
    command = [sys.executable, "-m", "tests.examples.favor.distributed", kind]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, str(rank), port, str(out)], cwd=ROOT, env=environment) for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]

    model, processor = adapted()
    inputs, labels, windows = inputs_of(processor, [row for rows in shares() for row in rows])
    for _ in range(2):  # the two processes' second step is the first with roles changed
        step(model, inputs, labels, windows, scale=1.0)
    expected = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    found = load_file(out)
    assert found.keys() == expected.keys()
    assert sum(bool(gradient.any()) for gradient in found.values()) > 0.9 * len(found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-10, rtol=1e-7)
