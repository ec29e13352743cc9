"""The frames and slots that a synchroniser assigns to its input, computed by its own functions."""

from collections.abc import Mapping
from typing import NamedTuple, cast

from torch import Tensor

from avfusion._shapes import Bool
from avfusion.errors import InvalidValueError
from avfusion.functional import FrameGrid, Placement, gather_frames, place_tokens, scatter_tokens
from avfusion.modules import FrameSynchroniser
from avfusion.types import Frames, TokenStream

Streams = Mapping[str, Frames | TokenStream | Tensor]


class Layout(NamedTuple):
    """Frames and their content.

    Attributes:
        grid: the frames.
        streams: the streams except the video, by name.
        placements: the frame and slot of each of their tokens, by name.
        held: ``(batch, frame, slot)`` bool: slots in which each stream has a token, the video first.
    """

    grid: FrameGrid
    streams: dict[str, TokenStream]
    placements: dict[str, Placement]
    held: dict[str, Bool[Tensor, "batch frame slot"]]


def lay_out(synchroniser: FrameSynchroniser, streams: Streams) -> Layout:
    """The layout of ``synchroniser(**streams)``; tokens that fit no frame have frame -1 instead of raising an error."""
    unknown = sorted(set(streams) - set(synchroniser.dims))
    if unknown or not streams:
        raise InvalidValueError(f"streams: must be among {sorted(synchroniser.dims)}, found {unknown or 'none'}")
    given: dict[str, TokenStream] = {}
    frames: Frames | None = None
    for name, value in streams.items():
        if name == "visual":
            frames = synchroniser.as_frames(cast("Frames | Tensor", value))
        else:
            given[name] = synchroniser.as_stream(name, cast("TokenStream | Tensor", value))
    sizes = {name: len(stream.mask) for name, stream in given.items()}
    if frames is not None:
        sizes["visual"] = len(frames.mask)
    if len(set(sizes.values())) > 1:
        raise InvalidValueError(f"streams: must have the same batch size, found {sizes}")
    if frames is None:
        like = next(iter(given.values())).mask
        frames = Frames.empty(len(like), 1, 0, device=like.device)
    grid = synchroniser.grid(frames, given)
    held: dict[str, Tensor] = {}
    placements: dict[str, Placement] = {}
    if "visual" in streams:
        slots = synchroniser.slots["visual"]
        _, held["visual"] = gather_frames(frames.tokens[..., :0], frames.mask, grid.source, slots)
    for name, stream in given.items():
        placement = place_tokens(stream.timestamps, stream.mask, grid)
        placements[name], slots = placement, synchroniser.slots[name]
        _, held[name] = scatter_tokens(stream.tokens[..., :0], placement, grid.mask.shape[1], slots)
    return Layout(grid, given, placements, held)
