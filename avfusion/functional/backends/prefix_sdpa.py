"""Frame-block-causal attention without a mask: one call per frame, over the tokens that the frame may attend to.

These tokens are contiguous: all tokens up to the frame's end (or, reversed, from its start). No masked scores are
computed, which saves 45 % of them with ten frames, at the cost of one call per frame.
"""

import torch
from torch import Tensor

from avfusion.functional.backends import sdpa
from avfusion.functional.masks import FrameCausalMask, let_see_something


def run(
    query: Tensor, key: Tensor, value: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None, dropout_p: float
) -> Tensor:
    """One ``scaled_dot_product_attention`` per frame."""
    if causal is None:
        return sdpa.run(query, key, value, causal, key_mask, dropout_p)
    size, cached = causal.tokens_per_frame, causal.cached_tokens
    mixed = []
    for start in range(0, causal.num_frames * size, size):
        seen = slice(0, cached + start + size) if causal.direction == "causal" else slice(start, None)
        allowed = None if key_mask is None else let_see_something(key_mask[:, None, None, seen])
        rows = query[:, :, start : start + size]
        mixed.append(sdpa.fused(rows, key[:, :, seen], value[:, :, seen], allowed, dropout_p).transpose(1, 2))
    # The heads of a token are contiguous in memory, as the next linear layer needs them.
    return torch.cat(mixed, 1).transpose(1, 2)
