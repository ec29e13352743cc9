"""Pending tokens and video frames: appending chunks, and dropping what is finalised."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from avfusion.errors import AlignmentError, InvalidValueError
from avfusion.functional.frame_layout import joined_starts, rounding_of_spans
from avfusion.functional.placement import latest_centres
from avfusion.functional.ragged import places_to_keep
from avfusion.functional.stream_table import VISUAL, StreamTable
from avfusion.modules.synchroniser.state import (
    FrameSynchroniserState,
    PendingFrames,
    PendingTokens,
    Progress,
)
from avfusion.types import Frames, TokenStream
from avfusion.types.clock import earliest, later, latest
from avfusion.types.state import joined

P = TypeVar("P", PendingTokens, PendingFrames)


def add_chunk(
    table: StreamTable,
    chunk: Mapping[str, Frames | TokenStream | Tensor | None],
    state: FrameSynchroniserState,
    watermark: Mapping[str, float | Tensor] | None,
) -> FrameSynchroniserState:
    """Appends a chunk of each stream, and advances the watermarks."""
    visual, streams = state.visual, dict(zip(table.rates, state.streams, strict=True))
    for name, value in chunk.items():
        if value is None:
            continue
        if name not in table.dims:
            raise InvalidValueError(f"chunk: must hold streams among {sorted(table.dims)}, found {name!r}")
        pending = visual if name == VISUAL else streams[name]
        part = table.as_chunk(name, value, pending.progress.received)
        if isinstance(part, Frames):
            visual = add_frames(name, visual, part, table.slots[name], state.anchor.end)
            continue
        streams[name] = add_tokens(name, streams[name], part, state.anchor.end, visual.rounding)
        if isinstance(value, Tensor):  # a token of a known rate says more than its centre does
            ends = streams[name].progress.received.to(state.anchor.end.dtype) / table.rates[name]
            streams[name] = advance(streams[name], ends)
    for name, seconds in (watermark or {}).items():
        if name not in table.dims:
            raise InvalidValueError(f"watermark: must name streams among {sorted(table.dims)}, found {name!r}")
        if name == VISUAL:
            visual = advance(visual, _as_watermark(name, seconds, state.anchor.end))
        else:
            streams[name] = advance(streams[name], _as_watermark(name, seconds, state.anchor.end))
    return state._replace(visual=visual, streams=tuple(streams.values()))


def advance(pending: P, watermark: Tensor) -> P:
    """Advances the watermark to ``(batch,)`` seconds, where it is not there yet."""
    progress = pending.progress
    reached = earliest(watermark).to(progress.watermark.dtype)
    return pending._replace(progress=_advanced(progress, reached))


def add_tokens(name: str, pending: PendingTokens, chunk: TokenStream, end: Tensor, edges: Tensor) -> PendingTokens:
    """Appends a chunk of tokens.

    Args:
        name: of the stream, for messages.
        pending: earlier input.
        chunk: new input.
        end: ``(batch,)`` seconds at which the last finalised frame ends.
        edges: ``(batch,)``: :func:`~avfusion.types.clock.rounding` of the frames' edges.
    """
    mask, progress = chunk.mask, pending.progress
    given = torch.where(mask, chunk.timestamps, torch.nan).to(end.dtype)
    earlier = _maxima_before(progress.watermark, torch.where(mask, given, -torch.inf))
    _refuse(
        name, mask & ~((latest(chunk.timestamps) >= earlier) & given.isfinite()), chunk.timestamps, "token",
        "timestamps must be finite, must not decrease, and must not lie before the watermark",
    )  # fmt: skip
    newest = torch.where(mask, given, -torch.inf)
    newest = newest.amax(1) if newest.shape[1] else progress.watermark
    times = latest_centres(chunk.timestamps, mask)
    if times.shape[1] and pending.timestamps.shape[1]:  # what is in order but for rounding stays in order
        before = torch.where(pending.mask, pending.timestamps, -torch.inf).amax(1, keepdim=True)
        times = torch.where(mask, torch.maximum(times, before), 0.0)
    late = mask & (later(times, edges[:, None]) < end[:, None])
    mask = mask & ~late
    pending = PendingTokens(
        tokens=joined(pending.tokens, torch.where(mask[..., None], chunk.tokens, 0)),
        mask=joined(pending.mask, mask),
        timestamps=joined(pending.timestamps, times),
        progress=_advanced(progress, newest, chunk.mask.sum(1), late.sum(1)),
    )
    return keep_tokens(pending, None)


def add_frames(name: str, pending: PendingFrames, chunk: Frames, slots: int, end: Tensor) -> PendingFrames:
    """Appends a chunk of video frames; arguments as for :func:`add_tokens`.

    A frame that lasts until ``inf`` ends where the next one begins.
    """
    real, progress = chunk.frame_mask, pending.progress
    edges = torch.where(real.any(1), pending.rounding.clamp(min=rounding_of_spans(chunk.spans)), pending.rounding)
    starts, ends = _joined_spans(
        pending, torch.where(real[..., None], chunk.spans, torch.nan).to(end.dtype), end, edges
    )
    always = (starts == -torch.inf) & (ends == torch.inf)
    reached = torch.where(ends == torch.inf, torch.nextafter(starts, ends), ends)
    reached = torch.where(real, torch.where(always, torch.inf, reached), -torch.inf)
    earlier = _maxima_before(progress.watermark, reached)
    follows = _maxima_before(progress.received, real.to(progress.received.dtype)) > 0
    bounded = starts.isfinite() | ((starts == -torch.inf) & ~follows)
    _refuse(
        name, real & ~((latest(starts, edges[:, None]) >= earlier) & (ends > starts) & bounded), starts, "frame",
        "a frame must end after it starts, and must not start before the one before it ends",
    )  # fmt: skip
    newest = reached.amax(1) if reached.shape[1] else progress.watermark
    # A frame that is held since ever, but comes after frames were finalised without it, is shown from there on.
    starts = torch.where((starts == -torch.inf) & (end > -torch.inf)[:, None], end[:, None], starts)
    late = real & ((starts < end[:, None]) | (ends <= end[:, None]))
    real = real & ~late
    room = slots - chunk.mask.shape[2]
    mask = chunk.mask & real[..., None]
    spans = torch.where(real[..., None], torch.stack([starts, ends], -1), 0.0)
    pending = pending._replace(
        tokens=joined(pending.tokens, pad(torch.where(mask[..., None], chunk.tokens, 0), (0, 0, 0, room))),
        mask=joined(pending.mask, pad(mask, (0, room))),
        spans=joined(pending.spans, spans),
        rounding=edges,
        progress=_advanced(progress, newest, chunk.frame_mask.sum(1), late.sum(1)),
    )
    return _bounded_by_the_next(keep_frames(pending, None))


def _joined_spans(pending: PendingFrames, spans: Tensor, end: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """New frames' starts and ends: one starts exactly where what came before ends, if that is so but for rounding."""
    before = torch.cat([pending.spans, spans], 1)
    real = torch.cat([pending.mask.any(-1), ~spans[..., 0].isnan()], 1)
    stops = torch.where(before[..., 1] == torch.inf, before[..., 0], before[..., 1])
    stops = _maxima_before(end, torch.where(real, stops, -torch.inf))[:, pending.spans.shape[1] :]
    return joined_starts(spans, stops, edges[:, None]), spans[..., 1]


def _bounded_by_the_next(pending: PendingFrames) -> PendingFrames:
    """Ends each frame where the next one begins, at the latest."""
    follows = pending.mask.any(-1)[:, 1:]
    if not follows.shape[1]:
        return pending
    starts, ends = pending.spans.unbind(-1)
    bounded = torch.where(follows, torch.minimum(ends[:, :-1], starts[:, 1:]), ends[:, :-1])
    return pending._replace(spans=torch.stack([starts, torch.cat([bounded, ends[:, -1:]], 1)], -1))


def keep_tokens(pending: PendingTokens, keep: Tensor | None) -> PendingTokens:
    """Drops tokens that are not real, or not among ``keep`` ``(batch, time)``."""
    mask = pending.mask if keep is None else pending.mask & keep
    places = places_to_keep(mask)
    if places is None:
        return pending
    return pending._replace(
        tokens=pending.tokens.gather(1, places[..., None].expand(-1, -1, pending.tokens.shape[2])),
        mask=mask.gather(1, places),
        timestamps=pending.timestamps.gather(1, places),
    )


def keep_frames(pending: PendingFrames, keep: Tensor | None) -> PendingFrames:
    """Drops video frames without real tokens, or not among ``keep`` ``(batch, frame)``."""
    real = pending.mask.any(-1) if keep is None else pending.mask.any(-1) & keep
    places = places_to_keep(real)
    if places is None:
        return pending
    index = places[..., None]
    return pending._replace(
        tokens=pending.tokens.gather(1, index[..., None].expand(-1, -1, *pending.tokens.shape[2:])),
        mask=(pending.mask & real[..., None]).gather(1, index.expand(-1, -1, pending.mask.shape[2])),
        spans=pending.spans.gather(1, index.expand(-1, -1, 2)),
    )


def _advanced(progress: Progress, reached: Tensor, received: Tensor | int = 0, late: Tensor | int = 0) -> Progress:
    """Progress after ``received`` ``(batch,)`` more that reach up to ``(batch,)`` seconds, ``late`` of them late."""
    return Progress(
        watermark=torch.maximum(progress.watermark, reached),
        newest=torch.maximum(progress.newest, torch.where(reached < torch.inf, reached, -torch.inf)),
        received=progress.received + received,
        late=progress.late + late,
    )


def _maxima_before(first: Tensor, values: Tensor) -> Tensor:
    """``(batch, time)`` the largest of ``first`` ``(batch,)`` and of all values before each."""
    return torch.cat([first[:, None], values], 1).cummax(1).values[:, :-1]


def _as_watermark(name: str, seconds: float | Tensor, like: Tensor) -> Tensor:
    times = seconds if isinstance(seconds, Tensor) else like.new_full((), seconds)
    times = times.to(like.device) if times.is_floating_point() else times.to(like)
    if times.isnan().any() or times.shape not in ((), like.shape):
        raise InvalidValueError(
            f"watermark: must be one number of seconds or (batch,) = ({len(like)},), "
            f"found {times.tolist()} for {name!r}"
        )
    return times.expand(len(like))


def _refuse(name: str, wrong: Tensor, times: Tensor, kind: str, rule: str) -> None:
    if not bool(wrong.any()):
        return
    places = wrong.nonzero().tolist()
    shown = ", ".join(f"clip {row} {kind} {place} at {float(times[row, place]):.3f} s" for row, place in places[:3])
    more = f" and {len(places) - 3} more" * (len(places) > 3)
    raise AlignmentError(f"{name}: {rule}, found {shown}{more} of this chunk")
