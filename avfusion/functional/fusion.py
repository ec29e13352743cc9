"""The streams of a frame, fused into its tokens."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from avfusion._shapes import Bool
from avfusion.functional.frame_layout import FrameGrid
from avfusion.functional.masks import Padding
from avfusion.types import Frames

Fusion = Literal["features", "tokens"]


def fuse_streams(
    placed: Mapping[str, tuple[Tensor, Tensor]],
    grid: FrameGrid,
    *,
    fusion: Fusion = "features",
    padding: Padding = "masked",
    absent_tokens: Mapping[str, Tensor] | None = None,
    absent: Mapping[str, Bool[Tensor, " batch"]] | None = None,
) -> Frames:
    """Concatenates the streams of each frame on the feature axis or on the token axis.

    Args:
        placed: each stream's ``(batch, frame, slot, dim)`` tokens and ``(batch, frame, slot)`` mask, by name, as
            :func:`scatter_tokens` and :func:`gather_frames` give them.
        grid: the frames.
        fusion: ``"features"``: concatenate on the feature axis, slot by slot; ``"tokens"``: on the token axis.
        padding: ``"masked"``: empty slots are masked; ``"released"``: they are tokens of zeros.
        absent_tokens: ``(dim,)`` by name: learned token for a missing stream. With ``"features"`` it is in every slot
            that another stream fills, with ``"tokens"`` in the first slot of each frame.
        absent: ``(batch,)`` bool by name: clips without the stream; by default those without a real token of it.

    Returns:
        The frames, with the spans of the grid.

    Example:
        >>> import torch
        >>> from avfusion.functional import FrameGrid, fuse_streams
        >>> spans = torch.tensor([[[0.0, 0.5]]], dtype=torch.float64)
        >>> grid = FrameGrid(torch.tensor([[0]]), spans, torch.ones(1, 1, dtype=torch.bool))
        >>> visual = torch.ones(1, 1, 2, 3), torch.tensor([[[True, True]]])
        >>> audio = torch.ones(1, 1, 2, 3), torch.tensor([[[True, False]]])
        >>> placed = {"visual": visual, "audio": audio}
        >>> fuse_streams(placed, grid).tokens.shape, fuse_streams(placed, grid, fusion="tokens").mask.int().tolist()
        (torch.Size([1, 1, 2, 6]), [[[1, 1, 1, 0]]])
    """
    lacking = {}
    for name in absent_tokens or {}:
        lacking[name] = ~placed[name][1].any((1, 2)) if absent is None else absent[name]
    masks = {name: mask for name, (_, mask) in placed.items()}
    if fusion == "features":
        masks = dict.fromkeys(masks, torch.stack(list(masks.values())).any(0))
    else:
        masks |= {
            name: masks[name] | _first_slot(grid.mask & rows[:, None], masks[name]) for name, rows in lacking.items()
        }
    tokens = {name: values for name, (values, _) in placed.items()}
    for name, token in (absent_tokens or {}).items():
        replaced = (lacking[name][:, None, None] & masks[name])[..., None]
        tokens[name] = torch.where(replaced, token.to(tokens[name].dtype), tokens[name])
    if fusion == "features":
        fused = Frames(torch.cat(list(tokens.values()), -1), next(iter(masks.values())), grid.spans)
    else:
        fused = Frames(torch.cat(list(tokens.values()), 2), torch.cat(list(masks.values()), 2), grid.spans)
    return fused if padding == "masked" else fused._replace(mask=grid.mask[..., None].expand_as(fused.mask))


def _first_slot(frames: Tensor, like: Tensor) -> Tensor:
    """``(batch, frame, slot)`` bool: the first slot of some frames."""
    return frames[..., None] & (torch.arange(like.shape[-1], device=like.device) == 0)
