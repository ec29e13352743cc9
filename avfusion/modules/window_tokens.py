"""The tokens of windows as the layers get them: normalised, with the embedding of their place, without padding."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avfusion.functional.masks import CausalDirection, FrameCausalMask
from avfusion.modules.normalised_tokens import NormalisedTokens, factoring_pays


class WindowTokens(NamedTuple):
    """What the layers attend to.

    Attributes:
        tokens: ``(window, token, input_dim)``: embedded, the same for every layer.
        mask: ``(window, token)`` bool, or ``None``: all real.
        causal: which tokens see which by their frame; ``None`` without causal attention.
        factors: of the tokens, where it pays to compute their linear maps from them.
    """

    tokens: Tensor
    mask: Tensor | None
    causal: FrameCausalMask | None
    factors: NormalisedTokens | None


def embed_tokens(
    tokens: Tensor,
    mask: Tensor | None,
    frame_index: Tensor | None,
    *,
    norm: nn.LayerNorm,
    position_embedding: Tensor,
    dropout: nn.Dropout,
    direction: CausalDirection | None,
    leave_out: bool,
    may_factor: bool,
) -> WindowTokens:
    """Embeds windows ``(window, frame, token, input_dim)``, or with ``frame_index`` the frames that they share.

    Args:
        tokens: as for :class:`~avfusion.CausalQFormer`, and so are ``mask`` and ``frame_index``.
        mask: ``(window, frame, token)`` bool.
        frame_index: ``(window, frame)`` int64.
        norm: of the tokens.
        position_embedding: ``(place, input_dim)``.
        dropout: of what is embedded.
        direction: of the causal attention.
        leave_out: whether slots in which no window has anything real may be left out.
        may_factor: whether :class:`NormalisedTokens` may be used.
    """
    frames, slots = (tokens.shape[1] if frame_index is None else frame_index.shape[1]), tokens.shape[-2]
    places = position_embedding[: frames * slots].view(frames, slots, -1)
    used = None if mask is None or not leave_out else used_slots(mask)
    if used is not None and mask is not None:
        tokens, mask, places = tokens.index_select(-2, used), mask[:, :, used], places[:, used]
        slots, mask = len(used), None if bool(mask.all()) else mask
    causal = None if direction is None else FrameCausalMask(frames, slots, direction)

    if mask is not None and frame_index is None:
        tokens = torch.where(mask[..., None], tokens, 0)
    mask = None if mask is None else mask.flatten(1)
    places = places.flatten(0, 1)
    windows = (tokens if frame_index is None else frame_index).shape[0]
    dropped = dropout.training and dropout.p > 0
    trained = torch.is_grad_enabled() and norm.weight.requires_grad
    if may_factor and not dropped and factoring_pays(tokens, windows, frame_index, wants_gradients=trained):
        unit = functional.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)
        unit = unit if frame_index is not None else unit.flatten(1, 2)
        factors = NormalisedTokens(unit, norm.weight, norm.bias + places, frame_index)
        return WindowTokens(factors.embedded(), mask, causal, factors)
    normalised = norm(tokens)
    if frame_index is None:
        normalised = normalised.flatten(1, 2)
    else:
        normalised = normalised.index_select(0, frame_index.flatten()).view(windows, frames * slots, -1)
    # In place, because LayerNorm's backward pass does not look at its result.
    return WindowTokens(dropout(normalised.add_(places)), mask, causal, None)


def used_slots(mask: Tensor) -> Tensor | None:
    """``(slot,)`` int64: slots that hold something real in some window; ``None`` if hardly any is left out, or unknown.

    Args:
        mask: ``(window, frame, token)`` bool.
    """
    if torch.compiler.is_compiling() or mask.is_meta or (mask.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None  # the number of slots must not depend on what they hold
    used = mask.any(1).any(0).nonzero().flatten()
    return used if 0 < len(used) <= 0.9 * mask.shape[2] else None
