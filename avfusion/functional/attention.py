"""Scaled dot-product attention: one function, several backends."""

from typing import Literal, get_args

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.functional.backends import BACKENDS, eager
from avfusion.functional.backends.choice import choose_implementation
from avfusion.functional.masks import FrameCausalMask, seeing_queries

AttentionImplementation = Literal["auto", "eager", "sdpa", "prefix_sdpa", "flex_attention", "varlen_attn"]
"""Name of a backend of :func:`avfusion.functional.attention`."""


def check_implementation(name: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``name`` is a known backend."""
    known = get_args(AttentionImplementation)
    if name in known:
        return
    if name.startswith("flash_attention"):
        raise InvalidValueError(
            f"attn_implementation: {name!r} cannot express a mask that is causal by frame, and would make it causal by "
            f"token; use one of {', '.join(map(repr, known))}"
        )
    raise InvalidValueError(f"attn_implementation: must be one of {', '.join(map(repr, known))}, found {name!r}")


def attention_weights(
    query: Float[Tensor, "window head q head_dim"],
    key: Float[Tensor, "window head k head_dim"],
    *,
    causal: FrameCausalMask | None = None,
    key_mask: Bool[Tensor, "window k"] | None = None,
) -> Float[Tensor, "window head q k"]:
    r"""Attention weights :math:`\mathrm{softmax}(q k^\top / \sqrt d + \log M)`; fully masked rows are zero.

    Args:
        query: ``(window, head, q, head_dim)``.
        key: ``(window, head, k, head_dim)``.
        causal: which tokens see which by their frame; ``q`` and ``k`` are then the same tokens.
        key_mask: ``(window, k)`` bool: keys that are real.

    Example:
        >>> import torch
        >>> q = k = torch.zeros(1, 1, 2, 4)
        >>> attention_weights(q, k, causal=FrameCausalMask(2, 1)).squeeze().tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    weights = eager.weights(query, key, causal, key_mask)
    sees = seeing_queries(causal, key_mask)
    return weights if sees is None else weights.masked_fill(~sees, 0)


def attention(
    query: Float[Tensor, "window head q head_dim"],
    key: Float[Tensor, "window head k head_dim"],
    value: Float[Tensor, "window head k value_dim"],
    *,
    causal: FrameCausalMask | None = None,
    key_mask: Bool[Tensor, "window k"] | None = None,
    dropout_p: float = 0.0,
    average_unseen: bool = False,
    implementation: AttentionImplementation = "auto",
) -> Float[Tensor, "window head q value_dim"]:
    """Scaled dot-product attention under a frame-block-causal structure and a mask of real keys.

    Args:
        query: ``(window, head, q, head_dim)``.
        key: ``(window, head, k, head_dim)``.
        value: ``(window, head, k, value_dim)``. Masked keys and values must be finite.
        causal: which tokens see which by their frame; ``q`` and ``k`` are then the same tokens.
        key_mask: ``(window, k)`` bool: keys that are real.
        dropout_p: probability of dropping an attention weight.
        average_unseen: for a fully masked query, return the average of all values instead of zero, as the released
            weights need it.
        implementation: equal within rounding:

            * ``"auto"``: the fastest of these for the device, dtype, shape and gradients;
            * ``"eager"``: plain matrix products and softmax;
            * ``"sdpa"``: PyTorch's fused kernels under a dense boolean mask;
            * ``"prefix_sdpa"``: the same kernels frame by frame, without a mask and without the scores it would remove;
            * ``"flex_attention"``: FlexAttention under a block mask; no dropout, and no gradients on the CPU;
            * ``"varlen_attn"``: masked keys removed; no causal structure, no dropout, half precision on CUDA only.

    Returns:
        ``(window, head, q, value_dim)``; exactly zero for a fully masked query, unless ``average_unseen``.

    Raises:
        InvalidValueError: an unknown implementation, or one that does not support the arguments.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 4, 6, 8).unbind()
        >>> key_mask = torch.tensor([[True] * 6, [False] * 6])
        >>> out = attention(q, k, v, causal=FrameCausalMask(num_frames=3, tokens_per_frame=2), key_mask=key_mask)
        >>> out.shape, out[1].abs().max().item()
        (torch.Size([2, 4, 6, 8]), 0.0)
    """
    check_implementation(implementation)
    chosen = choose_implementation(query, key, value, causal, dropout_p) if implementation == "auto" else implementation
    out = BACKENDS[chosen](query, key, value, causal, key_mask, dropout_p)
    sees = seeing_queries(causal, key_mask)
    if sees is None:
        return out
    return torch.where(sees, out, value.mean(-2, keepdim=True)) if average_unseen else out.masked_fill(~sees, 0)
