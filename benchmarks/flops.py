"""Floating-point operations that are executed, and the rate that the device reaches in a matrix product."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# Two operations a multiply-add; ``(m, k, n)``: (m, k) times (k, n).
SHAPES = {
    "cpu": ((2048, 2048, 2048), (7680, 1536, 1536), (1536, 7680, 1536)),
    "cuda": ((8192, 8192, 8192), (4096, 4096, 4096), (7680, 1536, 1536)),
}
SMOKE_SHAPES = ((64, 64, 64), (96, 64, 64))


def executed_flops(call: Callable[[], object], model: nn.Module) -> int:
    """Operations of the matrix products that ``call`` executes with ``model`` for inference."""
    # The fused attention of CPUs, which the counter does not know.
    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    # Frozen, rather than in inference mode: there attention reaches the counter before a kernel is chosen, and the
    # counter's hooks fail on views of parameters.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            call()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return counter.get_total_flops()


def products(device: str, dtype: torch.dtype, smoke: bool) -> dict[str, tuple[int, Callable[[], object]]]:
    """Large matrix products by name, each with its operations."""
    return {
        f"matrix product {m}×{k}×{n}": (2 * m * k * n, _product(m, k, n, device, dtype))
        for m, k, n in (SMOKE_SHAPES if smoke else SHAPES[device])
    }


def _product(m: int, k: int, n: int, device: str, dtype: torch.dtype) -> Callable[[], object]:
    left = torch.randn(m, k, device=device, dtype=dtype)
    right = torch.randn(k, n, device=device, dtype=dtype)
    out = torch.empty(m, n, device=device, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def _attention_flops(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)
