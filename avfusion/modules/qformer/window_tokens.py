"""The tokens of windows as the layers get them: normalised, with their position embedding, without padding."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avfusion.errors import InvalidValueError
from avfusion.functional.factored_tokens import FactoredTokens, factoring_pays
from avfusion.functional.masks import CausalDirection, FrameCausalMask
from avfusion.types.state import joined


class WindowTokens(NamedTuple):
    """What the layers attend to.

    Attributes:
        tokens: ``(window, token, input_dim)``: embedded, the same for every layer.
        mask: ``(window, key)`` bool of the cached tokens and of these, or ``None``: all real.
        causal: which tokens see which by their frame; ``None`` without causal attention.
        factors: of the tokens, where it pays to compute their linear maps from them.
    """

    tokens: Tensor
    mask: Tensor | None
    causal: FrameCausalMask | None
    factors: FactoredTokens | None

    def after(self, cached_mask: Tensor) -> tuple["WindowTokens", Tensor]:
        """The tokens after cached ones, and the mask of both.

        Args:
            cached_mask: ``(window, cached)`` bool.
        """
        new = self.mask
        if new is None:
            new = torch.ones(self.tokens.shape[:2], dtype=torch.bool, device=cached_mask.device)
        mask = joined(cached_mask, new)
        causal = None if self.causal is None else self.causal._replace(cached_tokens=cached_mask.shape[1])
        return self._replace(mask=None if bool(mask.all()) else mask, causal=causal), mask


def embed_tokens(
    tokens: Tensor,
    mask: Tensor | None,
    frame_index: Tensor | None,
    *,
    norm: nn.LayerNorm,
    places: Tensor,
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
        places: ``(frame, token, input_dim)`` position embeddings, or ``(window, frame, token, input_dim)``.
        dropout: of what is embedded.
        direction: of the causal attention.
        leave_out: whether slots without real tokens in any window may be left out.
        may_factor: whether :class:`FactoredTokens` may be used.
    """
    frames, slots = (tokens.shape[1] if frame_index is None else frame_index.shape[1]), tokens.shape[-2]
    used = None if mask is None or not leave_out else used_slots(mask)
    if used is not None and mask is not None:
        tokens, mask, places = tokens.index_select(-2, used), mask[:, :, used], places.index_select(-2, used)
        slots, mask = len(used), None if bool(mask.all()) else mask
    causal = None if direction is None else FrameCausalMask(frames, slots, direction)

    if mask is not None and frame_index is None:
        tokens = torch.where(mask[..., None], tokens, 0)
    mask = None if mask is None else mask.flatten(1)
    alike = places.ndim == 3
    places = places.flatten(-3, -2)
    windows = (tokens if frame_index is None else frame_index).shape[0]
    dropped = dropout.training and dropout.p > 0
    trained = torch.is_grad_enabled() and norm.weight.requires_grad
    may_factor = may_factor and alike and not dropped
    if may_factor and factoring_pays(tokens, windows, frame_index, wants_gradients=trained):
        unit = functional.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)
        unit = unit if frame_index is not None else unit.flatten(1, 2)
        factors = FactoredTokens(unit, norm.weight, norm.bias + places, frame_index)
        return WindowTokens(factors.embedded(), mask, causal, factors)
    normalised = norm(tokens)
    if frame_index is None:
        normalised = normalised.flatten(1, 2)
    else:
        normalised = normalised.index_select(0, frame_index.flatten()).view(windows, frames * slots, -1)
    # In place, because LayerNorm's backward pass does not look at its result.
    return WindowTokens(dropout(normalised.add_(places)), mask, causal, None)


def next_places(embedding: Tensor, before: Tensor, after: Tensor, shape: torch.Size, window_frames: int) -> Tensor:
    """Position embeddings of windows' next frames, as :func:`embed_tokens` takes them.

    Args:
        embedding: ``(place, input_dim)``.
        before: ``(window,)`` int64: frames so far.
        after: ``(window,)`` int64: frames with the new ones.
        shape: frames, and tokens of each, that are embedded; beyond ``after`` they are padding.
        window_frames: most frames of a window.

    Raises:
        InvalidValueError: more frames than a window may have.
    """
    frames, slots = shape
    table = embedding.view(window_frames, slots, -1)
    counts = torch.stack([before, after]).tolist()  # one transfer from the device
    longest = max(counts[1], default=0)
    if longest > window_frames:
        raise InvalidValueError(f"tokens: a window has at most {window_frames} frames, found {longest}")
    first = counts[0][0] if counts[0] else 0
    if first + frames <= window_frames and all(count == first for count in counts[0]):
        return table[first : first + frames]
    number = before[:, None] + torch.arange(frames, device=before.device)
    return table[number.clamp(max=window_frames - 1)]


def used_slots(mask: Tensor) -> Tensor | None:
    """``(slot,)`` int64: slots with a real token in some window; ``None`` if hardly any is left out, or unknown.

    Args:
        mask: ``(window, frame, token)`` bool.
    """
    if torch.compiler.is_compiling() or mask.is_meta or (mask.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None  # the number of slots must not depend on what they hold
    used = mask.any(1).any(0).nonzero().flatten()
    return used if 0 < len(used) <= 0.9 * mask.shape[2] else None
