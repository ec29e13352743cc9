"""Checks of what a causal Q-Former is given."""

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError


def check_windows(
    tokens: Tensor, mask: Tensor | None, frame_index: Tensor | None, *, window_frames: int, slots: int, width: int
) -> None:
    """Raises unless tokens and masks are of windows of 1 to ``window_frames`` frames, as ``forward`` takes them."""
    if frame_index is None:
        fits = tokens.ndim == 4 and tokens.shape[2:] == (slots, width) and 1 <= tokens.shape[1] <= window_frames
        shape, wanted = tuple(tokens.shape[:3]), f"(window, 1 to {window_frames} frames, {slots} tokens, {width})"
    else:
        fits = tokens.ndim == 3 and tokens.shape[1:] == (slots, width)
        shape, wanted = (*frame_index.shape, slots), f"(row, {slots} tokens, {width}) with a frame_index"
        if frame_index.ndim != 2 or not 1 <= frame_index.shape[1] <= window_frames:
            raise InvalidValueError(
                f"frame_index: must be (window, 1 to {window_frames} frames), found shape {tuple(frame_index.shape)}"
            )
    if not fits:
        raise InvalidValueError(f"tokens: must be {wanted}, found shape {tuple(tokens.shape)}")
    _check_mask(mask, shape, "window")


def check_new_frames(
    tokens: Tensor, mask: Tensor | None, lengths: Tensor | None, *, rows: int, slots: int, width: int
) -> None:
    """Raises unless tokens, masks and lengths are of new frames of ``rows`` windows, as ``step`` takes them."""
    if tokens.ndim != 4 or tokens.shape[0] != rows or tokens.shape[2:] != (slots, width):
        raise InvalidValueError(
            f"tokens: must be ({rows} rows, frame, {slots} tokens, {width}), found shape {tuple(tokens.shape)}"
        )
    _check_mask(mask, tuple(tokens.shape[:3]), "row")
    if lengths is None:
        return
    if lengths.is_floating_point() or lengths.shape != (rows,):
        raise InvalidValueError(
            f"lengths: must be (row,) = ({rows},) whole numbers, found shape {tuple(lengths.shape)}, {lengths.dtype}"
        )
    if bool(((lengths < 0) | (lengths > tokens.shape[1])).any()):
        raise InvalidValueError(f"lengths: must be between 0 and {tokens.shape[1]}, found {lengths.tolist()}")


def check_queries(queries: Tensor, hidden_size: int) -> None:
    """Raises unless queries are ``(query, hidden_size)``."""
    if queries.ndim != 2 or queries.shape[1] != hidden_size:
        raise InvalidValueError(
            f"queries: must be (query, hidden) with hidden = {hidden_size}, found shape {tuple(queries.shape)}"
        )


def _check_mask(mask: Tensor | None, shape: tuple[int, ...], first: str) -> None:
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise InvalidTypeError(f"mask: must be boolean (True = real), found {mask.dtype}")
    if mask.shape != shape:
        raise InvalidValueError(f"mask: must be ({first}, frame, token) = {shape}, found shape {tuple(mask.shape)}")
