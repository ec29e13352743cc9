"""PyTorch's attention over sequences of different lengths: masked keys are removed."""

from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from avfusion.errors import InvalidValueError
from avfusion.functional.masks import FrameCausalMask


def run(
    query: Tensor, key: Tensor, value: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None, dropout_p: float
) -> Tensor:
    """``varlen_attn`` over the real keys of each window."""
    if causal is not None:
        raise InvalidValueError(
            'attn_implementation: "varlen_attn" cannot express a frame-block-causal mask, found one; use "sdpa"'
        )
    if dropout_p:
        raise InvalidValueError(
            f'attn_implementation: "varlen_attn" has no dropout, found {dropout_p}; use "sdpa", or dropout=0'
        )
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        raise InvalidValueError(
            'attn_implementation: "varlen_attn" runs on CUDA in float16 or bfloat16 only, '
            f'found {query.dtype} on {query.device.type}; use "sdpa"'
        )
    return packed(query, key, value, key_mask)


def packed(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None) -> Tensor:
    """Calls the kernel with the concatenated queries and real keys of all windows."""
    from torch.nn.attention.varlen import varlen_attn  # slow to import

    windows, _, queries, _ = query.shape
    count = key.shape[2]
    lengths = torch.full((windows,), count, device=query.device)
    query, key, value = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    if key_mask is not None:
        lengths = key_mask.sum(1)
        key, value = key[key_mask.flatten()], value[key_mask.flatten()]
    ends = torch.arange(windows + 1, dtype=torch.int32, device=query.device) * queries
    key_ends = pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    mixed = cast("Tensor", varlen_attn(query, key, value, ends, key_ends, queries, count))
    return mixed.unflatten(0, (windows, queries)).transpose(1, 2)
