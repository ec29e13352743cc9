"""PyTorch's fused kernels, with one boolean mask that is computed once per shape."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from avfusion.functional.masks import FrameCausalMask, allowed_pairs

_WITHOUT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def run(
    query: Tensor, key: Tensor, value: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None, dropout_p: float
) -> Tensor:
    """``scaled_dot_product_attention`` under the dense mask."""
    return fused(query, key, value, allowed_pairs(causal, key_mask, query.device), dropout_p)


def fused(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout_p: float) -> Tensor:
    """PyTorch's attention, with a kernel that is correct for these shapes.

    ``allowed`` is boolean: a float32 mask with half-precision queries gives wrong results on some versions
    (pytorch#191612).
    """
    if query.is_cuda and not cudnn_is_right(
        query.shape[2],
        key.shape[2],
        masked=allowed is not None,
        trained=torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)),
    ):
        with sdpa_kernel(_WITHOUT_CUDNN):
            return functional.scaled_dot_product_attention(query, key, value, allowed, dropout_p)
    return functional.scaled_dot_product_attention(query, key, value, allowed, dropout_p)


def cudnn_is_right(queries: int, keys: int, *, masked: bool, trained: bool) -> bool:
    """Whether cuDNN's kernels are correct for a shape.

    With a mask their backward pass gives NaN where a length leaves 64 over multiples of 128, as the published windows
    of 320 tokens do (pytorch#196678); with a single query so does the forward pass of cuDNN 9.26
    (cudnn-frontend#1072).
    """
    return queries != 1 and not (trained and masked and 64 in (queries % 128, keys % 128))
