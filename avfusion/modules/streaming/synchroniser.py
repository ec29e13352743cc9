"""The synchroniser's side of a stream: frames are closed when every stream has passed their end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.alignment import FrameGrid, check_placement, gather_frames, place_latest, scatter_tokens
from avfusion.functional.open_grid import GridAnchor, OpenGrid, close_frames, open_grid
from avfusion.modules.streaming.waiting import (
    WaitingPictures,
    WaitingTokens,
    add_pictures,
    add_tokens,
    kept_pictures,
    kept_tokens,
    nothing_yet,
    say_passed,
)
from avfusion.types import Frames, TokenStream
from avfusion.types.clock import TICK, later

if TYPE_CHECKING:
    from avfusion.modules.frame_synchroniser import FrameSynchroniser

VISUAL = "visual"
Chunk = Mapping[str, Frames | TokenStream | Tensor | None]
Times = Mapping[str, float | Tensor]


class FrameSynchroniserState(NamedTuple):
    """What waits, and where the frames go on.

    Attributes:
        visual: pictures.
        streams: tokens of each further stream, in the order of the synchroniser's ``dims``.
        anchor: where each clip's frames go on.
        max_wait: ``(batch,)`` seconds that a frame waits for a stream that is behind; ``inf``: for as long as it takes.
        awaited: ``(batch, stream)`` bool: which streams a clip has, in the order of the synchroniser's ``dims``.
    """

    visual: WaitingPictures
    streams: tuple[WaitingTokens, ...]
    anchor: GridAnchor
    max_wait: Float[Tensor, " batch"]
    awaited: Bool[Tensor, "batch stream"]

    @property
    def late(self) -> Tensor:
        """``(batch, stream)`` int64: what has come late since each clip's beginning."""
        counts = [stream.progress.late for stream in self.streams]
        if len(counts) < self.awaited.shape[1]:
            counts = [self.visual.progress.late, *counts]
        return torch.stack(counts, 1)


def nothing_waits(synchroniser: "FrameSynchroniser", awaited: Tensor, max_wait: Tensor) -> FrameSynchroniserState:
    """Clips of which nothing has come; arguments as in the state."""
    batch, seconds = len(max_wait), torch.zeros_like(max_wait)
    slots = synchroniser.slots.get(VISUAL, 1)
    none, real = seconds.new_zeros(batch, 0, 0, dtype=torch.get_default_dtype()), awaited.new_zeros(batch, 0)
    no_pictures, no_mask = none[:, :, None].expand(-1, -1, slots, -1), real[..., None].expand(-1, -1, slots)
    progress = dict(
        zip(synchroniser.dims, map(nothing_yet, awaited.unbind(1), [seconds] * awaited.shape[1]), strict=True)
    )
    visual = WaitingPictures(
        tokens=no_pictures,
        mask=no_mask,
        spans=seconds.new_zeros(batch, 0, 2),
        shown=no_pictures,
        shown_mask=no_mask,
        rounding=seconds,
        progress=progress.get(VISUAL, nothing_yet(awaited[:, 0] & False, seconds)),
    )
    streams = tuple(
        WaitingTokens(none, real, seconds.new_zeros(batch, 0), progress[name]) for name in synchroniser.stream_rates
    )
    anchor = GridAnchor(
        seconds, torch.zeros_like(seconds, dtype=torch.int64), seconds - torch.inf, awaited[:, 0] & False
    )
    return FrameSynchroniserState(visual, streams, anchor, max_wait, awaited)


def timed(
    synchroniser: "FrameSynchroniser", name: str, value: object, state: FrameSynchroniserState
) -> Frames | TokenStream:
    """A chunk as given, or a plain tensor as what goes on where that stream stopped, at its rate."""
    rates, wanted = synchroniser.stream_rates, Frames if name == VISUAL else TokenStream
    if isinstance(value, wanted):
        return value
    if not isinstance(value, Tensor):
        raise InvalidTypeError(
            f"{name}: must be {'' if name == VISUAL else 'a '}{wanted.__name__}, a tensor or None, "
            f"found {type(value).__name__}"
        )
    if name == VISUAL:
        frames = Frames.from_rate(value, synchroniser.frame_rate)
        edges = state.visual.progress.received[:, None] + torch.arange(value.shape[1] + 1, device=value.device)
        times = edges.to(frames.spans.dtype) / synchroniser.frame_rate
        return frames._replace(spans=torch.stack([times[:, :-1], times[:, 1:]], -1))
    stream = TokenStream.from_rate(value, rates[name])
    received = state.streams[list(rates).index(name)].progress.received
    places = received[:, None] + torch.arange(value.shape[1], device=value.device)
    return stream._replace(timestamps=(places.to(stream.timestamps.dtype) + 0.5) / rates[name])


def add_chunk(
    synchroniser: "FrameSynchroniser", chunk: Chunk, state: FrameSynchroniserState, until: Times | None
) -> FrameSynchroniserState:
    """The state with what has come behind what waits."""
    rates, batch, closed = synchroniser.stream_rates, state.max_wait.shape[0], state.anchor.closed
    visual, streams = state.visual, dict(zip(rates, state.streams, strict=True))
    for name, value in chunk.items():
        if value is None:
            continue
        if name not in synchroniser.dims:
            raise InvalidValueError(f"chunk: must hold streams among {sorted(synchroniser.dims)}, found {name!r}")
        if isinstance(value, Tensor):  # before it is given the times of its clips
            synchroniser._check_chunk(name, value, batch)
        part = timed(synchroniser, name, value, state)
        synchroniser._check_chunk(name, part.tokens, batch)
        if isinstance(part, Frames):
            visual = add_pictures(name, visual, _widened(part, synchroniser.slots[VISUAL]), closed)
            continue
        streams[name] = add_tokens(name, streams[name], part, closed, visual.rounding)
        if isinstance(value, Tensor):  # a token of a known rate says more than its centre does
            ends = streams[name].progress.received.to(closed.dtype) / rates[name]
            streams[name] = say_passed(streams[name], ends)
    for name, seconds in (until or {}).items():
        if name not in synchroniser.dims:
            raise InvalidValueError(f"until: must name streams among {sorted(synchroniser.dims)}, found {name!r}")
        times = seconds if isinstance(seconds, Tensor) else torch.tensor(seconds, dtype=closed.dtype)
        times = times.to(closed.device) if times.is_floating_point() else times.to(closed)
        if times.isnan().any() or times.shape not in ((), (batch,)):
            raise InvalidValueError(
                f"until: must be one number of seconds or (batch,) = ({batch},), found {times.tolist()} for {name!r}"
            )
        if name == VISUAL:
            visual = say_passed(visual, times.expand(batch))
        else:
            streams[name] = say_passed(streams[name], times.expand(batch))
    return state._replace(visual=visual, streams=tuple(streams.values()))


def close(
    synchroniser: "FrameSynchroniser", state: FrameSynchroniserState, end: Tensor | None
) -> tuple[Frames, Tensor, FrameSynchroniserState]:
    """The frames that nothing more can come for, how many of each clip, and what still waits.

    Args:
        synchroniser: whose frames they are.
        state: with everything that has come.
        end: ``(batch,)`` bool: clips that are over.
    """
    visual, streams = state.visual, state.streams
    passed, waited = _horizons(synchroniser, state)
    if end is not None:
        passed = torch.where(end, torch.inf, passed)
    times = [later(stream.timestamps, visual.rounding[:, None]) for stream in streams]
    masked = [torch.where(stream.mask, each, torch.nan) for stream, each in zip(streams, times, strict=True)]
    laid = open_grid(
        state.anchor,
        visual.spans,
        visual.mask.any(-1).sum(1),
        torch.cat([passed.new_zeros(len(passed), 0), *masked], 1),
        state.max_wait.isfinite(),
        synchroniser.frame_rate,
    )
    # What a later picture can change waits for it, unless there will be none, or it has been waited for long enough.
    over = visual.progress.passed == torch.inf
    over = over if end is None else over | end
    horizon = torch.where(laid.settled | over[:, None], torch.maximum(passed, waited)[:, None], waited[:, None])
    # Half a tick: what has yet to come is centred, within rounding, a whole one later than this at the earliest.
    closed = (laid.grid.mask & (laid.grid.spans[..., 1] <= horizon + TICK / 2)).sum(1)
    count = int(closed.max()) if len(closed) else 0
    open_frames = torch.arange(laid.grid.mask.shape[1], device=closed.device) >= closed[:, None]
    grid = FrameGrid(*(value[:, :count] for value in laid.grid))
    grid = grid._replace(
        source=grid.source.masked_fill(open_frames[:, :count], -1),
        spans=grid.spans.masked_fill(open_frames[:, :count, None], 0.0),
        mask=grid.mask & ~open_frames[:, :count],
    )

    placed: dict[str, tuple[Tensor, Tensor]] = {}
    lacking = {VISUAL: visual.progress.received == 0}
    pictures = _with_shown(visual)
    if VISUAL in synchroniser.dims:
        slots = synchroniser.slots[VISUAL]
        tokens = pictures.tokens if pictures.tokens.shape[3] else _no_pictures(synchroniser, pictures, streams)
        placed[VISUAL] = gather_frames(tokens, pictures.mask, grid.source, slots)
    waiting = []
    for (name, stream), when in zip(zip(synchroniser.stream_rates, streams, strict=True), times, strict=True):
        slots, lacking[name] = synchroniser.slots[name], stream.progress.received == 0
        placement = place_latest(when, stream.mask, laid.grid)
        due = stream.mask & (placement.frame < closed[:, None])  # those that no frame holds too
        check_placement(name, due, stream.timestamps, placement, slots)
        here = placement._replace(
            frame=torch.where(due, placement.frame, -1), slot=torch.where(due, placement.slot, -1)
        )
        tokens = stream.tokens
        if not tokens.shape[2]:
            tokens = _like(pictures, streams).new_zeros(len(closed), 0, synchroniser.dims[name])
        placed[name] = scatter_tokens(tokens, here, count, slots)
        waiting.append(kept_tokens(stream, ~due))
    frames = synchroniser._fuse(placed, grid, lacking)
    anchor = close_frames(laid, closed)
    rest = _after(pictures, laid, closed, anchor)
    return frames, closed, state._replace(visual=rest, streams=tuple(waiting), anchor=anchor)


def _horizons(synchroniser: "FrameSynchroniser", state: FrameSynchroniserState) -> tuple[Tensor, Tensor]:
    """``(batch,)`` seconds that every stream has passed, and seconds before which nothing more is waited for."""
    progress = [stream.progress for stream in state.streams]
    if VISUAL in synchroniser.dims:
        progress.append(state.visual.progress)
    passed = torch.stack([each.passed for each in progress])
    if synchroniser.absent_tokens:  # whether a clip lacks a stream is not known before it begins or ends
        known = torch.stack([each.received > 0 for each in progress]) | (passed == torch.inf)
        passed = torch.where(known, passed, -torch.inf)
    heard = torch.stack([each.heard for each in progress]).amax(0)
    return passed.amin(0), torch.where(state.max_wait.isfinite(), heard - state.max_wait, -torch.inf)


def _with_shown(visual: WaitingPictures) -> WaitingPictures:
    """The pictures with the one that is shown on before them, as the grid counts them."""
    batch, slots = visual.mask.shape[0], visual.mask.shape[2]
    shown, mask = visual.shown, visual.shown_mask
    if not shown.shape[1]:
        width = visual.tokens.shape[3]
        shown, mask = visual.tokens.new_zeros(batch, 1, slots, width), mask.new_zeros(batch, 1, slots)
    tokens = torch.cat([shown, visual.tokens], 1) if visual.tokens.shape[1] else shown
    return visual._replace(
        tokens=tokens,
        mask=torch.cat([mask, visual.mask], 1),
        spans=torch.cat([visual.spans.new_zeros(batch, 1, 2), visual.spans], 1),
    )


def _after(pictures: WaitingPictures, laid: OpenGrid, closed: Tensor, anchor: GridAnchor) -> WaitingPictures:
    """Without the closed pictures, but for the one that is shown on."""
    place = torch.arange(pictures.mask.shape[1], device=closed.device)
    done = torch.zeros_like(closed)
    if laid.pictures.shape[1]:
        done = laid.pictures.gather(1, (closed - 1).clamp(min=0)[:, None])[:, 0].masked_fill(closed == 0, 0)
    rest = kept_pictures(pictures, (place > done[:, None]) & (place > 0))
    if not bool(anchor.held.any()):
        return rest._replace(shown=pictures.tokens[:, :0], shown_mask=pictures.mask[:, :0])
    index = done[:, None, None]
    mask = pictures.mask.gather(1, index.expand(-1, 1, pictures.mask.shape[2])) & anchor.held[:, None, None]
    shown = pictures.tokens.gather(1, index[..., None].expand(-1, 1, *pictures.tokens.shape[2:]))
    return rest._replace(shown=torch.where(mask[..., None], shown, 0), shown_mask=mask)


def _like(pictures: WaitingPictures, streams: tuple[WaitingTokens, ...]) -> Tensor:
    """A tensor of the dtype of what has come."""
    return next((stream.tokens for stream in streams if stream.tokens.shape[2]), pictures.tokens)


def _no_pictures(
    synchroniser: "FrameSynchroniser", pictures: WaitingPictures, streams: tuple[WaitingTokens, ...]
) -> Tensor:
    return _like(pictures, streams).new_zeros(*pictures.mask.shape, synchroniser.dims[VISUAL])


def _widened(frames: Frames, slots: int) -> Frames:
    room = slots - frames.tokens.shape[2]
    return Frames(pad(frames.tokens, (0, 0, 0, room)), pad(frames.mask, (0, room)), frames.spans)
