"""Windows of two resolutions that grow frame by frame."""

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.types import StreamingWindowEncoder
from avfusion.types.state import joined

if TYPE_CHECKING:
    from avfusion.modules.multi_resolution_projector import MultiResolutionProjector


class ResolutionsState(NamedTuple):
    """Windows that are not complete yet, one a row.

    Attributes:
        coarse: the window encoder's state of the whole windows.
        fine: ``(row, fine query, hidden)``: states of the parts that are complete.
        tokens: ``(row, frame, token, dim)``: frames of the part that is not.
        mask: ``(row, frame, token)`` bool.
    """

    coarse: Any
    fine: Float[Tensor, "row fine_query hidden"]
    tokens: Float[Tensor, "row frame token dim"]
    mask: Bool[Tensor, "row frame token"]


def empty_resolutions(projector: "MultiResolutionProjector", rows: int) -> ResolutionsState:
    """Rows that have seen nothing."""
    coarse = cast("StreamingWindowEncoder", projector.window_encoder).initial_state(rows)
    like = projector.fine_query_tokens
    mask = torch.zeros(rows, 0, 0, dtype=torch.bool, device=like.device)
    return ResolutionsState(coarse, like.new_zeros(rows, 0, like.shape[1]), like.new_zeros(rows, 0, 0, 0), mask)


def append_to_both(
    projector: "MultiResolutionProjector",
    state: ResolutionsState,
    tokens: Tensor,
    mask: Tensor | None,
    absorbed: int,
    guide: dict[str, Tensor],
) -> ResolutionsState:
    """With frames behind the ``absorbed`` ones that every row has; parts that they complete are computed."""
    size = projector.fine_window_frames
    _, coarse = cast("StreamingWindowEncoder", projector.window_encoder).step(tokens, state.coarse, mask=mask)
    mask = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device) if mask is None else mask
    parts, over = divmod(absorbed, size)
    tokens, mask = joined(state.tokens[:, :over], tokens), joined(state.mask[:, :over], mask)
    fine = state.fine[:, : parts * len(projector.fine_query_tokens)]
    whole = tokens.shape[1] // size * size
    if whole:
        fine = joined(fine, _encode_parts(projector, tokens[:, :whole], mask[:, :whole], guide))
    return ResolutionsState(coarse, fine, tokens[:, whole:], mask[:, whole:])


def read_both(
    projector: "MultiResolutionProjector", state: ResolutionsState, absorbed: int, guide: dict[str, Tensor]
) -> Tensor:
    """``(row, query, 2 hidden)``: the joined states of windows with ``absorbed`` frames."""
    coarse = cast("StreamingWindowEncoder", projector.window_encoder).flush(state.coarse, **guide)
    parts, over = divmod(absorbed, projector.fine_window_frames)
    fine = state.fine[:, : parts * len(projector.fine_query_tokens)]
    if over:
        fine = joined(fine, _encode_parts(projector, state.tokens[:, :over], state.mask[:, :over], guide))
    if fine.shape[1] < coarse.shape[1]:
        fine = torch.nn.functional.pad(fine, (0, 0, 0, coarse.shape[1] - fine.shape[1]))
    return torch.cat([fine, coarse], -1)


def _encode_parts(
    projector: "MultiResolutionProjector", tokens: Tensor, mask: Tensor, guide: dict[str, Tensor]
) -> Tensor:
    """The fine states of rows of frames: of whole parts, or of the beginning of one."""
    rows, frames = tokens.shape[:2]
    size = min(projector.fine_window_frames, frames)
    parts = frames // size
    cut = [value.unflatten(1, (parts, size)).flatten(0, 1) for value in (tokens, mask)]
    real = None if bool(mask.all()) else cut[1]
    repeated = {name: value.repeat_interleave(parts, 0) for name, value in guide.items()}
    fine = projector.window_encoder(cut[0], real, queries=projector.fine_query_tokens, **repeated)
    return fine.reshape(rows, -1, fine.shape[2])
