"""Capabilities of a window encoder, and one call for all of them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import (
    ConditionedWindowEncoder,
    SharedFrameWindowEncoder,
    ShortWindowEncoder,
    StreamingWindowEncoder,
    WindowEncoder,
)
from avfusion.types.structure import missing


class Offers(NamedTuple):
    """Which Protocols a window encoder satisfies beyond :class:`~avfusion.WindowEncoder`.

    Attributes:
        conditioning: :class:`~avfusion.ConditionedWindowEncoder`.
        shared_frames: :class:`~avfusion.SharedFrameWindowEncoder`.
        short_windows: :class:`~avfusion.ShortWindowEncoder`.
        streaming: :class:`~avfusion.StreamingWindowEncoder`.
    """

    conditioning: bool
    shared_frames: bool
    short_windows: bool
    streaming: bool

    @classmethod
    def of(cls, encoder: object, wanted: type = WindowEncoder) -> "Offers":
        """What ``encoder`` offers.

        Args:
            encoder: any module.
            wanted: the Protocol that it has to satisfy.

        Raises:
            InvalidTypeError: it does not; the message names what is missing.
        """
        lacking = missing(encoder, wanted)
        if lacking:
            rule = "be callable and have num_queries and output_dim"
            rule = rule if wanted is WindowEncoder else f"be a {wanted.__name__}"
            raise InvalidTypeError(
                f"window_encoder: must {rule}, found {type(encoder).__name__} without {', '.join(lacking)}"
            )
        return cls(
            isinstance(encoder, ConditionedWindowEncoder),
            isinstance(encoder, SharedFrameWindowEncoder),
            isinstance(encoder, ShortWindowEncoder),
            isinstance(encoder, StreamingWindowEncoder),
        )


def instruction_arguments(encoder: object, offers: Offers, **given: Tensor | None) -> dict[str, Tensor]:
    """``instruction`` and ``instruction_mask`` as far as they are given.

    Raises:
        InvalidValueError: one is given, but the encoder takes none; the message names what is missing.
    """
    named = {name: value for name, value in given.items() if value is not None}
    if named and not offers.conditioning:
        raise InvalidValueError(
            f"{next(iter(named))}: the window encoder must be a ConditionedWindowEncoder to take one, found "
            f"{type(encoder).__name__} without {', '.join(missing(encoder, ConditionedWindowEncoder))}"
        )
    return named


def encode_windows(
    encoder: Any,
    offers: Offers,
    tokens: Tensor,
    mask: Tensor | None,
    frame_index: Tensor | None = None,
    **named: Tensor,
) -> Tensor:
    """A window encoder's states of windows, given as :class:`~avfusion.SharedFrameWindowEncoder` takes them.

    Args:
        encoder: any window encoder.
        offers: what it offers.
        tokens: ``(window, frame, token, dim)``, or with ``frame_index`` ``(row, token, dim)``.
        mask: ``(window, frame, token)`` bool, or ``None``: all real.
        frame_index: ``(window, frame)`` int64.
        **named: what else the call takes.
    """
    if offers.shared_frames:
        if frame_index is not None:
            named["frame_index"] = frame_index
    else:  # which is promised windows, a mask, and zeros where masked
        tokens = tokens if frame_index is None else tokens[frame_index]
        mask = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device) if mask is None else mask
        tokens = torch.where(mask[..., None], tokens, 0)
    states: Tensor = encoder(tokens, mask, **named)
    return states
