"""Floating-point operations that are executed, and the rate that the device reaches in a matrix product."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

# Two operations a multiply-add; ``(m, k, n)``: (m, k) times (k, n).
SHAPES = {
    "cpu": ((2048, 2048, 2048), (7680, 1536, 1536), (1536, 7680, 1536)),
    "cuda": ((8192, 8192, 8192), (4096, 4096, 4096), (7680, 1536, 1536)),
}
SMOKE_SHAPES = ((64, 64, 64), (96, 64, 64))


class _Counter(TorchDispatchMode):
    """Adds up the operations of matrix products. Unlike PyTorch's own it hangs no hooks on modules."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        out = operator(*arguments, **(named or {}))
        count = _FORMULAS.get(operator._overloadpacket)
        if count is not None:
            self.total += count(*arguments, **(named or {}), out_val=out)
        return out


def executed_flops(call: Callable[[], object], *, training: bool = False) -> int:
    """Operations of the matrix products that ``call`` executes; for inference, unless it computes gradients."""
    # Not in inference mode: there attention reaches the counter before a kernel is chosen.
    with torch.set_grad_enabled(training), _Counter() as counter:
        call()
    return counter.total


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
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


# PyTorch's, and the fused attention of CPUs, which it does not know.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
