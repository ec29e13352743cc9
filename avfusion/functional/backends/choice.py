"""The backend that ``"auto"`` selects."""

import torch
from torch import Tensor

from avfusion.functional.masks import FrameCausalMask

# FlexAttention is slower than the dense mask on short sequences (pytorch#141129); published windows have 320 tokens.
_LONG = 1024
# In smaller frames, one call per frame costs more than the skipped scores save.
_SMALL_FRAME = 16


def choose_implementation(
    query: Tensor, key: Tensor, value: Tensor, causal: FrameCausalMask | None, dropout_p: float
) -> str:
    """The fastest backend that supports the arguments, by device, dtype, shape and gradients.

    Args:
        query: ``(window, head, q, head_dim)``.
        key: ``(window, head, k, head_dim)``.
        value: ``(window, head, k, value_dim)``.
        causal: the structure of the mask, if any.
        dropout_p: probability of dropping an attention weight.

    Returns:
        A name that :func:`avfusion.functional.attention` takes.
    """
    if torch.compiler.is_compiling() or causal is None or causal.num_frames == 1:  # one graph for all numbers of frames
        return "sdpa"
    wants_gradients = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if query.device.type == "cpu":
        # The backward pass of many small calls costs more than the forward pass saves.
        return "prefix_sdpa" if causal.tokens_per_frame >= _SMALL_FRAME and not wants_gradients else "sdpa"
    half = query.dtype in (torch.float16, torch.bfloat16)
    if query.is_cuda and half and not dropout_p and causal.num_frames * causal.tokens_per_frame >= _LONG:
        return "flex_attention"
    return "sdpa"
