"""Checks of the inputs of a causal Q-Former."""

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.masks import CausalDirection, Padding


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


def check_new_frames(tokens: Tensor, mask: Tensor | None, *, rows: int, slots: int, width: int) -> None:
    """Raises unless tokens and masks are of new frames of ``rows`` windows, as ``step`` takes them."""
    if tokens.ndim != 4 or tokens.shape[0] != rows or tokens.shape[2:] != (slots, width):
        raise InvalidValueError(
            f"tokens: must be ({rows} rows, frame, {slots} tokens, {width}), found shape {tuple(tokens.shape)}"
        )
    _check_mask(mask, tuple(tokens.shape[:3]), "row")


def check_queries(queries: Tensor, hidden_size: int) -> None:
    """Raises unless queries are ``(query, hidden_size)``."""
    if queries.ndim != 2 or queries.shape[1] != hidden_size:
        raise InvalidValueError(
            f"queries: must be (query, hidden) with hidden = {hidden_size}, found shape {tuple(queries.shape)}"
        )


def check_instruction(instruction: Tensor | None, mask: Tensor | None, *, windows: int, taken: bool) -> None:
    """Raises unless an instruction is taken, or none is given, and it is of ``windows`` windows."""
    if instruction is None:
        if mask is not None:
            raise InvalidValueError("instruction_mask: must come with an instruction, found none")
        return
    if not taken:
        raise InvalidValueError("instruction: this CausalQFormer was built without instruction_dim")
    if instruction.shape[0] != windows:
        raise InvalidValueError(f"instruction: must be of {windows} windows, found shape {tuple(instruction.shape)}")


def check_streams(direction: CausalDirection | None, padding: Padding) -> None:
    """Raises :class:`~avfusion.InvalidValueError` if what a frame contributes depends on later frames."""
    if direction == "reversed":
        raise InvalidValueError(
            'causal_direction: a stream needs "causal" or None, found "reversed", under which every frame of a '
            "window depends on all later ones"
        )
    if padding == "released":
        raise InvalidValueError(
            'padding: a stream needs "masked", found "released", under which frames see the padding behind them'
        )


def _check_mask(mask: Tensor | None, shape: tuple[int, ...], first: str) -> None:
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise InvalidTypeError(f"mask: must be boolean (True = real), found {mask.dtype}")
    if mask.shape != shape:
        raise InvalidValueError(f"mask: must be ({first}, frame, token) = {shape}, found shape {tuple(mask.shape)}")
