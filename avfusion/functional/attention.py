"""Scaled dot-product attention: one function, several backends."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.functional.masks import FrameCausalMask

AttentionImplementation = Literal["eager", "sdpa"]


def check_implementation(name: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``name`` is a known backend."""
    if name not in get_args(AttentionImplementation):
        known = ", ".join(map(repr, get_args(AttentionImplementation)))
        raise InvalidValueError(f"attn_implementation: must be one of {known}, found {name!r}")


def _allowed(
    query: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The mask to give a backend, and the queries that see anything.

    Those that do not are let see everything, so that no backend divides by zero, and are mended afterwards.
    """
    structure = None if causal is None else causal.dense(query.device)
    if key_mask is None:
        return structure, None
    allowed = key_mask[:, None, None, :]
    if structure is not None:
        allowed = allowed & structure
    sees = allowed.any(-1, keepdim=True)
    return allowed | ~sees, sees


def attention_weights(
    query: Float[Tensor, "window head q head_dim"],
    key: Float[Tensor, "window head k head_dim"],
    *,
    causal: FrameCausalMask | None = None,
    key_mask: Bool[Tensor, "window k"] | None = None,
) -> Float[Tensor, "window head q k"]:
    r"""Attention weights :math:`\mathrm{softmax}(q k^\top / \sqrt d + \log M)`; rows that may see nothing are zero.

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
    allowed, sees = _allowed(query, causal, key_mask)
    weights = _softmax(query, key, allowed)
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
    implementation: AttentionImplementation = "sdpa",
) -> Float[Tensor, "window head q value_dim"]:
    """Scaled dot-product attention under a frame-block-causal structure and a mask of real keys.

    Args:
        query: ``(window, head, q, head_dim)``.
        key: ``(window, head, k, head_dim)``.
        value: ``(window, head, k, value_dim)``. Masked keys and values must be finite.
        causal: which tokens see which by their frame; ``q`` and ``k`` are then the same tokens.
        key_mask: ``(window, k)`` bool: keys that are real.
        dropout_p: probability of dropping an attention weight.
        average_unseen: give a query that may see no key the average of all values instead of zero, as the released
            weights want it.
        implementation: ``"eager"``, written out, or ``"sdpa"``, PyTorch's fused kernels. Equal within rounding.

    Returns:
        ``(window, head, q, value_dim)``; exactly zero for a query that may see no key, unless ``average_unseen``.

    Raises:
        InvalidValueError: an unknown implementation.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 4, 6, 8).unbind()
        >>> key_mask = torch.tensor([[True] * 6, [False] * 6])
        >>> out = attention(q, k, v, causal=FrameCausalMask(num_frames=3, tokens_per_frame=2), key_mask=key_mask)
        >>> out.shape, out[1].abs().max().item()
        (torch.Size([2, 4, 6, 8]), 0.0)
    """
    check_implementation(implementation)
    allowed, sees = _allowed(query, causal, key_mask)
    out = _BACKENDS[implementation](query, key, value, allowed, dropout_p)
    if sees is None:
        return out
    return torch.where(sees, out, value.mean(-2, keepdim=True)) if average_unseen else out.masked_fill(~sees, 0)


_Backend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]


def _eager(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout_p: float) -> Tensor:
    return functional.dropout(_softmax(query, key, allowed), dropout_p) @ value


def _sdpa(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout_p: float) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout_p)


def _softmax(query: Tensor, key: Tensor, allowed: Tensor | None) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    # Softmax in float32 at least, as the fused kernels do.
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)


_BACKENDS: dict[str, _Backend] = {"eager": _eager, "sdpa": _sdpa}
