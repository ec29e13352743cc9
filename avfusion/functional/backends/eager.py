"""Attention as plain tensor operations: the reference that all other backends equal up to rounding."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from avfusion.functional.masks import FrameCausalMask, allowed_pairs


def weights(query: Tensor, key: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None) -> Tensor:
    """Softmax of the scaled products over the keys that each query may attend to."""
    return masked_softmax(
        query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]), allowed_pairs(causal, key_mask, query.device)
    )


def masked_softmax(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax over the allowed scores, in float32 at least, as the fused kernels do."""
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def run(
    query: Tensor, key: Tensor, value: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None, dropout_p: float
) -> Tensor:
    """Products, softmax, dropout, products."""
    return functional.dropout(weights(query, key, causal, key_mask), dropout_p) @ value
