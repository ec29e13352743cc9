"""Tokens and pictures that have come, but whose frames are not closed yet."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import AlignmentError
from avfusion.functional.alignment import joined_starts, latest_centres, rounding_of_spans
from avfusion.types import Frames, TokenStream
from avfusion.types.clock import earliest, later, latest
from avfusion.types.state import joined


class Progress(NamedTuple):
    """How far a stream has come.

    Attributes:
        passed: ``(batch,)`` seconds up to which nothing more will come; ``inf`` where it has ended.
        heard: ``(batch,)`` seconds of the newest that has come, or was said to be passed; ``-inf`` before.
        received: ``(batch,)`` int64: real tokens or pictures so far.
        late: ``(batch,)`` int64: those of them that came after their frame was closed, and were left out.
    """

    passed: Float[Tensor, " batch"]
    heard: Float[Tensor, " batch"]
    received: Int[Tensor, " batch"]
    late: Int[Tensor, " batch"]


class WaitingTokens(NamedTuple):
    """Tokens of a stream, each clip's first.

    Attributes:
        tokens: ``(batch, time, dim)``.
        mask: ``(batch, time)`` bool.
        timestamps: ``(batch, time)`` seconds, as :func:`~avfusion.types.clock.latest` gives them.
        progress: of the stream.
    """

    tokens: Float[Tensor, "batch time dim"]
    mask: Bool[Tensor, "batch time"]
    timestamps: Float[Tensor, "batch time"]
    progress: Progress


class WaitingPictures(NamedTuple):
    """Pictures, each clip's first; behind the picture that was closed last.

    Attributes:
        tokens: ``(batch, picture, token, dim)``.
        mask: ``(batch, picture, token)`` bool.
        spans: ``(batch, picture, 2)`` seconds.
        shown: ``(batch, 1 or 0, token, dim)``: the picture that was closed last, where it is shown on.
        shown_mask: ``(batch, 1 or 0, token)`` bool.
        rounding: ``(batch,)``: of the spans so far, as :func:`~avfusion.types.clock.latest` takes it for edges.
        progress: of the video.
    """

    tokens: Float[Tensor, "batch picture token dim"]
    mask: Bool[Tensor, "batch picture token"]
    spans: Float[Tensor, "batch picture 2"]
    shown: Float[Tensor, "batch shown token dim"]
    shown_mask: Bool[Tensor, "batch shown token"]
    rounding: Float[Tensor, " batch"]
    progress: Progress


W = TypeVar("W", WaitingTokens, WaitingPictures)


def nothing_yet(awaited: Tensor, like: Tensor) -> Progress:
    """The progress of a stream of which nothing has come, or none will where it is not ``awaited`` ``(batch,)``."""
    none = torch.zeros_like(awaited, dtype=torch.int64)
    never = torch.full_like(like, -torch.inf)
    return Progress(torch.where(awaited, never, torch.inf), never, none, none)


def say_passed(waiting: W, until: Tensor) -> W:
    """With what the caller says of a stream: that it has been given in full up to some seconds."""
    passed, heard, received, late = waiting.progress
    until = earliest(until).to(passed.dtype)
    finite = torch.where(until.isfinite(), until, -torch.inf)
    return waiting._replace(
        progress=Progress(torch.maximum(passed, until), torch.maximum(heard, finite), received, late)
    )


def add_tokens(name: str, waiting: WaitingTokens, chunk: TokenStream, closed: Tensor, edges: Tensor) -> WaitingTokens:
    """With a chunk behind what waits.

    Args:
        name: of the stream, for messages.
        waiting: what waits.
        chunk: what has come.
        closed: ``(batch,)`` seconds at which the last closed frame ends.
        edges: ``(batch,)``: :func:`~avfusion.types.clock.rounding` of the frames' edges.
    """
    mask = chunk.mask
    given = torch.where(mask, chunk.timestamps, torch.nan).to(closed.dtype)
    passed, heard, received, late = waiting.progress
    earlier = torch.cat([passed[:, None], torch.where(mask, given, -torch.inf)], 1).cummax(1).values[:, :-1]
    _refuse(
        name, mask & ~((latest(chunk.timestamps) >= earlier) & given.isfinite()), chunk.timestamps, "token",
        "timestamps must be finite, must not decrease, and must not lie in what has been passed",
    )  # fmt: skip
    newest = torch.where(mask, given, -torch.inf)
    newest = newest.amax(1) if newest.shape[1] else passed
    times = latest_centres(chunk.timestamps, mask)
    if times.shape[1] and waiting.timestamps.shape[1]:  # what is in order but for rounding stays in order
        before = torch.where(waiting.mask, waiting.timestamps, -torch.inf).amax(1, keepdim=True)
        times = torch.where(mask, torch.maximum(times, before), 0.0)
    too_late = mask & (later(times, edges[:, None]) < closed[:, None])
    mask = mask & ~too_late
    progress = Progress(
        torch.maximum(passed, newest),
        torch.maximum(heard, newest),
        received + chunk.mask.sum(1),
        late + too_late.sum(1),
    )
    tokens = torch.where(mask[..., None], chunk.tokens, 0)
    return kept_tokens(
        WaitingTokens(
            joined(waiting.tokens, tokens),
            joined(waiting.mask, mask),
            joined(waiting.timestamps, times),
            progress,
        ),
        None,
    )


def kept_tokens(waiting: WaitingTokens, keep: Tensor | None) -> WaitingTokens:
    """Without tokens that are not real, or not among ``keep`` ``(batch, time)``."""
    mask = waiting.mask if keep is None else waiting.mask & keep
    places = first_places(mask)
    if places is None:
        return waiting
    return waiting._replace(
        tokens=waiting.tokens.gather(1, places[..., None].expand(-1, -1, waiting.tokens.shape[2])),
        mask=mask.gather(1, places),
        timestamps=waiting.timestamps.gather(1, places),
    )


def add_pictures(name: str, waiting: WaitingPictures, chunk: Frames, closed: Tensor) -> WaitingPictures:
    """With a chunk behind what waits; arguments as for :func:`add_tokens`.

    A picture that is shown until ``inf`` ends where the next one begins.
    """
    there = chunk.frame_mask
    share = rounding_of_spans(chunk.spans)
    edges = torch.where(there.any(1), waiting.rounding.clamp(min=share), waiting.rounding)
    starts, ends = (torch.where(there, value, torch.nan).to(closed.dtype) for value in chunk.spans.unbind(-1))
    passed, heard, received, late = waiting.progress
    # Where a picture begins at the end of what came before, but for rounding, it begins exactly there.
    spans = torch.cat([waiting.spans, torch.stack([starts, ends], -1)], 1)
    real = torch.cat([waiting.mask.any(-1), there], 1)
    stops = torch.where(spans[..., 1] == torch.inf, spans[..., 0], spans[..., 1])
    gone = torch.cat([closed[:, None], torch.where(real, stops, -torch.inf)], 1).cummax(1).values[:, :-1]
    gone = gone[:, waiting.spans.shape[1] :]
    starts = joined_starts(torch.stack([starts, ends], -1), gone, edges[:, None])
    for_ever = (starts == -torch.inf) & (ends == torch.inf)
    begun = closed[:, None] > -torch.inf
    reached = torch.where(ends == torch.inf, torch.nextafter(starts, ends), ends)
    reached = torch.where(there, torch.where(for_ever, torch.inf, reached), -torch.inf)
    earlier = torch.cat([passed[:, None], reached], 1).cummax(1).values[:, :-1]
    before = torch.cat([received[:, None].to(there.dtype), there], 1).cummax(1).values[:, :-1]
    bounded = starts.isfinite() | ((starts == -torch.inf) & ~before)
    _refuse(
        name, there & ~((latest(starts, edges[:, None]) >= earlier) & (ends > starts) & bounded), starts, "picture",
        "a picture must end after it starts, and must not start before the one before it ends",
    )  # fmt: skip
    newest = reached.amax(1) if reached.shape[1] else passed
    # A picture that is shown since ever, but comes after frames were closed without it, is shown from there on.
    starts = torch.where((starts == -torch.inf) & begun, closed[:, None], starts)
    too_late = there & ((starts < closed[:, None]) | (ends <= closed[:, None]))
    there = there & ~too_late
    progress = Progress(
        torch.maximum(passed, newest),
        torch.maximum(heard, torch.where(newest.isfinite(), newest, -torch.inf)),
        received + chunk.frame_mask.sum(1),
        late + too_late.sum(1),
    )
    mask = chunk.mask & there[..., None]
    spans = torch.where(there[..., None], torch.stack([starts, ends], -1), 0.0)
    waiting = waiting._replace(
        tokens=joined(waiting.tokens, torch.where(mask[..., None], chunk.tokens, 0)),
        mask=joined(waiting.mask, mask),
        spans=joined(waiting.spans, spans),
        rounding=edges,
        progress=progress,
    )
    waiting = kept_pictures(waiting, None)
    follows = waiting.mask.any(-1)[:, 1:]
    if not follows.shape[1]:
        return waiting
    starts, ends = waiting.spans.unbind(-1)
    ends = torch.cat([torch.where(follows, torch.minimum(ends[:, :-1], starts[:, 1:]), ends[:, :-1]), ends[:, -1:]], 1)
    return waiting._replace(spans=torch.stack([starts, ends], -1))


def kept_pictures(waiting: WaitingPictures, keep: Tensor | None) -> WaitingPictures:
    """Without pictures in which nothing is real, or that are not among ``keep`` ``(batch, picture)``."""
    there = waiting.mask.any(-1) if keep is None else waiting.mask.any(-1) & keep
    places = first_places(there)
    if places is None:
        return waiting
    index = places[..., None]
    return waiting._replace(
        tokens=waiting.tokens.gather(1, index[..., None].expand(-1, -1, *waiting.tokens.shape[2:])),
        mask=(waiting.mask & there[..., None]).gather(1, index.expand(-1, -1, waiting.mask.shape[2])),
        spans=waiting.spans.gather(1, index.expand(-1, -1, 2)),
    )


def first_places(there: Tensor) -> Tensor | None:
    """``(batch, kept)`` int64: places of what is there, in order, as many as some clip has; ``None``: all, as it is."""
    if bool(there.all()):
        return None
    longest = int(there.sum(1).max())
    return torch.argsort(there.to(torch.uint8), dim=1, descending=True, stable=True)[:, :longest]


def _refuse(name: str, wrong: Tensor, times: Tensor, kind: str, rule: str) -> None:
    if not bool(wrong.any()):
        return
    places = wrong.nonzero().tolist()
    shown = ", ".join(f"clip {row} {kind} {place} at {float(times[row, place]):.3f} s" for row, place in places[:3])
    more = f" and {len(places) - 3} more" * (len(places) > 3)
    raise AlignmentError(f"{name}: {rule}, found {shown}{more} of this chunk")
