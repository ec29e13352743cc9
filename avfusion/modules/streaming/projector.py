"""The projector's side of a stream: frames in, embeddings of the windows that they finish out."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.functional.windows import lay_windows, num_frames_of, spread_over_positions
from avfusion.modules.real_windows import WindowRows
from avfusion.modules.streaming.plan import Clip, Growth, Plan, make_plan
from avfusion.types import Frames, LLMEmbeddings, StreamedEmbeddings
from avfusion.types.clock import time_dtype
from avfusion.types.state import map_state, put_rows, take_rows

if TYPE_CHECKING:
    from avfusion.modules.sliding_window_projector import SlidingWindowProjector

Guide = dict[str, Tensor]
Given = tuple[Tensor | None, Tensor | None]  # instruction and its mask


class OpenWindows(NamedTuple):
    """Windows that the window encoder has seen a part of.

    Attributes:
        memory: the window encoder's states.
        num_frames: ``(batch, slot)`` int64: frames that it has seen.
        spans: ``(batch, slot, 2)`` seconds from the first to the last real one of them.
    """

    memory: Any
    num_frames: Int[Tensor, "batch slot"]
    spans: Float[Tensor, "batch slot 2"]


class ProjectorState(NamedTuple):
    """Frames that wait, and windows that are open.

    Attributes:
        tokens: ``(batch, frame, token, dim)``: frames that wait, each clip's first.
        mask: ``(batch, frame, token)`` bool.
        spans: ``(batch, frame, 2)`` seconds.
        first: ``(batch,)`` int64: number in the clip of the first frame that waits.
        num_frames: ``(batch,)`` int64: frames so far.
        num_real: ``(batch,)`` int64: frames so far up to the last one in which something is real.
        next_window: ``(batch,)`` int64: the first window that is not finished.
        windows: those that are open.
    """

    tokens: Float[Tensor, "batch frame token dim"]
    mask: Bool[Tensor, "batch frame token"]
    spans: Float[Tensor, "batch frame 2"]
    first: Int[Tensor, " batch"]
    num_frames: Int[Tensor, " batch"]
    num_real: Int[Tensor, " batch"]
    next_window: Int[Tensor, " batch"]
    windows: OpenWindows


class _Frames(NamedTuple):
    """Every frame at hand, one after the other, behind one in which nothing is real."""

    tokens: Tensor
    mask: Tensor
    spans: Tensor
    waiting: int
    new: int

    def row(self, clip: int, clips: int, number: int, state: Clip, first: int) -> int:
        """Where a clip's frame is."""
        if number < state.num_real:
            return 1 + clip * self.waiting + number - first
        if number < state.num_frames:
            return 0
        return 1 + clips * self.waiting + clip * self.new + number - state.num_frames


def nothing_seen(projector: "SlidingWindowProjector", batch: int) -> ProjectorState:
    """Clips of which no frame has come."""
    like, slots = projector.proj.weight, -(-projector.window_frames // projector.stride_frames)
    count = torch.zeros(batch, dtype=torch.int64, device=like.device)
    real = count.new_zeros(batch, 0, 0, dtype=torch.bool)
    seconds = torch.zeros(batch, 0, 2, dtype=time_dtype(like.device), device=like.device)
    windows = map_state(lambda value: value.unflatten(0, (batch, slots)), _empty(projector, batch * slots))
    return ProjectorState(like.new_zeros(batch, 0, 0, 0), real, seconds, count, count, count, count, windows)


def take_step(
    projector: "SlidingWindowProjector",
    frames: Frames,
    state: ProjectorState,
    *,
    lengths: Tensor | None,
    end: Tensor,
    unfinished: bool,
    given: Given,
) -> tuple[StreamedEmbeddings, ProjectorState]:
    """A step; arguments as for :meth:`avfusion.SlidingWindowProjector.step`."""
    clips, firsts = _stand(frames, state, lengths, end)
    plan = make_plan(
        clips, projector.window_frames, projector.stride_frames, grows=projector._grows, unfinished=unfinished
    )
    at_hand = _at_hand(frames, state)
    batch, most = len(clips), max(plan.finished, default=0)
    out = _Outputs(projector, batch, most, at_hand)
    shown = _Outputs(projector, batch, 1, at_hand) if unfinished else None
    windows = _grow(projector, plan, clips, firsts, at_hand, state.windows, given, out, shown)
    _compute_fresh(projector, plan, clips, firsts, at_hand, given, out, shown)

    rows = [range(first, real) for first, real in zip(plan.first_kept, plan.num_real, strict=True)]
    kept = _gathered(at_hand, clips, firsts, rows)
    device = state.first.device
    counts = (plan.first_kept, plan.num_frames, plan.num_real, plan.next_window)
    first, num_frames, num_real, next_window = torch.tensor(counts, dtype=torch.int64, device=device).view(4, batch)
    late = state.first.new_zeros(batch, 0)
    result = StreamedEmbeddings(out.collect(), None if shown is None else shown.collect(), late)
    return result, ProjectorState(*kept, first, num_frames, num_real, next_window, windows)


def _stand(frames: Frames, state: ProjectorState, lengths: Tensor | None, end: Tensor) -> tuple[list[Clip], list[int]]:
    """Where the clips stand, and the first frame that waits of each; brought to the host at once."""
    batch, new = frames.mask.shape[:2]
    if lengths is None:
        lengths, mask = torch.full_like(state.first, new), frames.mask
    else:
        mask = frames.mask & (torch.arange(new, device=lengths.device) < lengths[:, None])[..., None]
        if lengths.shape != (batch,) or bool(((lengths < 0) | (lengths > new)).any()):
            raise InvalidValueError(
                f"lengths: must be (batch,) = ({batch},) numbers from 0 to {new}, found {lengths.tolist()}"
            )
    parts = (state.num_frames, state.num_real, state.next_window, state.first, lengths, num_frames_of(mask), end.long())
    table = torch.cat([torch.stack(parts, 1), state.windows.num_frames], 1).tolist()
    return [Clip(*row[:3], row[7:], row[4], row[5], bool(row[6])) for row in table], [row[3] for row in table]


def _at_hand(frames: Frames, state: ProjectorState) -> _Frames:
    parts = []
    for waiting, new in zip((state.tokens, state.mask, state.spans), frames, strict=True):
        rows = new.flatten(0, 1)
        blank = new.new_zeros(1, *new.shape[2:])
        parts.append(torch.cat([blank, waiting.flatten(0, 1), rows] if waiting.shape[1] else [blank, rows]))
    return _Frames(parts[0], parts[1], parts[2], state.tokens.shape[1], frames.tokens.shape[1])


def _gathered(
    at_hand: _Frames, clips: list[Clip], firsts: list[int], wanted: list[range], rows: list[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Some frames of each clip (or of those whose numbers are ``rows``), each clip's first, blank ones behind them."""
    longest = max(map(len, wanted), default=0)
    index = []
    for place, numbers in enumerate(wanted):
        clip = place if rows is None else rows[place]
        found = [at_hand.row(clip, len(clips), number, clips[clip], firsts[clip]) for number in numbers]
        index += found + [0] * (longest - len(found))
    at = torch.tensor(index, dtype=torch.int64, device=at_hand.tokens.device)
    tokens, mask, spans = (value.index_select(0, at).unflatten(0, (len(wanted), longest)) for value in at_hand[:3])
    return tokens, mask, spans


class _Outputs:
    """Windows of each clip, put where they belong."""

    def __init__(self, projector: "SlidingWindowProjector", batch: int, count: int, at_hand: _Frames) -> None:
        self._shape, self._projector, self._at_hand = (batch, count), projector, at_hand
        self._states, self._embeddings, self._spans = (WindowRows(batch * count) for _ in range(3))
        self._some = False

    def put(self, clips: list[int], places: list[int], states: Tensor, embeddings: Tensor, spans: Tensor) -> None:
        rows = [clip * self._shape[1] + place for clip, place in zip(clips, places, strict=True)]
        index = torch.tensor(rows, dtype=torch.int64, device=states.device)
        self._some = True
        self._states.put(index, states)
        self._embeddings.put(index, embeddings)
        self._spans.put(index, spans)

    def collect(self) -> LLMEmbeddings:
        (batch, count), projector = self._shape, self._projector
        queries, like = projector.num_queries, self._at_hand
        if self._some:
            states, embeddings, spans = (part.collect() for part in (self._states, self._embeddings, self._spans))
        else:
            tokens = projector.proj.weight if not like.tokens.shape[0] else like.tokens
            states = tokens.new_zeros(batch * count, queries, projector.states_dim)
            embeddings = tokens.new_zeros(batch * count, queries, projector.llm_dim)
            spans = like.spans.new_zeros(batch * count, 2)
        spans = spans.unflatten(0, (batch, count))
        return LLMEmbeddings(
            embeddings=embeddings.reshape(batch, count * queries, projector.llm_dim),
            mask=spread_over_positions(spans[..., 1] > spans[..., 0], queries),
            spans=spread_over_positions(spans, queries),
            query_states=states,
        )


def _compute_fresh(
    projector: "SlidingWindowProjector",
    plan: Plan,
    clips: list[Clip],
    firsts: list[int],
    at_hand: _Frames,
    given: Given,
    out: _Outputs,
    shown: _Outputs | None,
) -> None:
    """Windows of which the encoder has nothing yet: computed as :meth:`forward` does."""
    rows = [clip for clip, (_, count) in enumerate(plan.fresh) if count]
    if not rows:
        return
    stride, length = projector.stride_frames, projector.window_frames
    most = max(plan.fresh[clip][1] for clip in rows)
    wanted = []
    for clip in rows:
        start, count = plan.fresh[clip]
        stop = min(plan.num_real[clip], (start + count - 1) * stride + length)
        wanted.append(range(start * stride, stop))
    frames = Frames(*_gathered(at_hand, clips, firsts, wanted, rows))
    missing = (most - 1) * stride + 1 - frames.tokens.shape[1]
    if missing > 0:
        frames = Frames(*(torch.nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, missing)) for value in frames))
    counts = torch.tensor([plan.fresh[clip][1] for clip in rows], device=frames.mask.device)
    layout = lay_windows(frames, length, stride, wanted=counts)
    at = torch.tensor(rows, device=frames.mask.device)
    instruction, mask = (None if value is None else value.index_select(0, at.to(value.device)) for value in given)
    states, embeddings = projector._encode_real(frames, layout, instruction, mask)
    total = layout.mask.shape[1]
    for to, places in ((out, _finished_places(plan, rows)), (shown, _shown_places(plan, rows))):
        if to is None or not places:
            continue
        chosen = torch.tensor([place * total + window for place, window, _ in places], device=states.device)
        to.put(
            [rows[place] for place, _, _ in places],
            [target for _, _, target in places],
            states.index_select(0, chosen),
            embeddings.index_select(0, chosen),
            layout.spans.flatten(0, 1).index_select(0, chosen),
        )


def _finished_places(plan: Plan, rows: list[int]) -> list[tuple[int, int, int]]:
    """Among the fresh windows of ``rows``, the finished ones: the row's place, the window's, and where it goes."""
    places = []
    for place, clip in enumerate(rows):
        start, count = plan.fresh[clip]
        finish, begun = plan.next_window[clip], plan.next_window[clip] - plan.finished[clip]
        places += [(place, window - start, window - begun) for window in range(start, min(start + count, finish))]
    return places


def _shown_places(plan: Plan, rows: list[int]) -> list[tuple[int, int, int]]:
    places = []
    for place, clip in enumerate(rows):
        (start, count), window = plan.fresh[clip], plan.unfinished[clip]
        if window is not None and start <= window < start + count:
            places.append((place, window - start, 0))
    return places


def _grow(
    projector: "SlidingWindowProjector",
    plan: Plan,
    clips: list[Clip],
    firsts: list[int],
    at_hand: _Frames,
    windows: OpenWindows,
    given: Given,
    out: _Outputs,
    shown: _Outputs | None,
) -> OpenWindows:
    """Appends frames to windows, reads those that are asked for, and forgets the finished ones."""
    if not plan.growths:
        return windows
    slots = windows.num_frames.shape[1]
    before: OpenWindows = map_state(lambda value: value.flatten(0, 1), windows)
    after = before
    groups: dict[tuple[int, int], list[Growth]] = {}
    for growth in plan.growths:
        groups.setdefault((growth.count, projector._growth_kind(growth.absorbed)), []).append(growth)
    gone = sorted({growth.clip * slots + growth.slot for growth in plan.growths if growth.finished})
    if gone:
        after = _replaced(after, gone, _empty(projector, len(gone)))
    for (count, _), group in groups.items():
        rows = [growth.clip * slots + growth.slot for growth in group]
        grown = _chosen(before, rows)
        begun = [place for place, growth in enumerate(group) if not growth.absorbed]
        if begun:  # what is there is of a window that this step finishes
            grown = _replaced(grown, begun, _empty(projector, len(begun)))
        clip_of = torch.tensor([growth.clip for growth in group], device=at_hand.mask.device)
        guide = projector._guide(clip_of, *given)
        if count:
            numbers = [range(growth.first, growth.first + count) for growth in group]
            grown = _appended(
                projector, grown, _gathered(at_hand, clips, firsts, numbers, [g.clip for g in group]), guide
            )
        asked = [place for place, growth in enumerate(group) if growth.read]
        if asked:
            _read(projector, plan, group, asked, grown, guide, out, shown)
        stay = [place for place, growth in enumerate(group) if not growth.finished]
        if stay:
            after = _replaced(after, [rows[place] for place in stay], _chosen(grown, stay))
    return map_state(lambda value: value.unflatten(0, tuple(windows.num_frames.shape)), after)


def _appended(
    projector: "SlidingWindowProjector", windows: OpenWindows, new: tuple[Tensor, Tensor, Tensor], guide: Guide
) -> OpenWindows:
    tokens, mask, spans = new
    real = mask.any(-1)
    begin = torch.where(real, spans[..., 0], torch.inf).amin(1).to(windows.spans.dtype)
    stop = torch.where(real, spans[..., 1], -torch.inf).amax(1).to(windows.spans.dtype)
    begin, stop = torch.minimum(begin, windows.spans[:, 0]), torch.maximum(stop, windows.spans[:, 1])
    whole = None if bool(mask.all()) else mask
    memory = projector._append(windows.memory, tokens, whole, int(windows.num_frames[0]), guide)
    return OpenWindows(memory, windows.num_frames + tokens.shape[1], torch.stack([begin, stop], -1))


def _read(
    projector: "SlidingWindowProjector",
    plan: Plan,
    group: list[Growth],
    asked: list[int],
    grown: OpenWindows,
    guide: Guide,
    out: _Outputs,
    shown: _Outputs | None,
) -> None:
    wanted = _chosen(grown, asked)
    at = torch.tensor(asked, device=wanted.num_frames.device)
    guide = {name: value.index_select(0, at.to(value.device)) for name, value in guide.items()}
    states = projector._read(wanted.memory, int(wanted.num_frames[0]), guide)
    embeddings = projector.proj(states)
    for to, finished in ((out, True), (shown, False)):
        places = [place for place, one in enumerate(asked) if group[one].finished == finished]
        if to is None or not places:
            continue
        growths = [group[asked[place]] for place in places]
        target = [g.window - plan.next_window[g.clip] + plan.finished[g.clip] if finished else 0 for g in growths]
        index = torch.tensor(places, device=states.device)
        chosen = [value.index_select(0, index) for value in (states, embeddings, wanted.spans)]
        to.put([growth.clip for growth in growths], target, chosen[0], chosen[1], chosen[2])


def _empty(projector: "SlidingWindowProjector", rows: int) -> OpenWindows:
    device = projector.proj.weight.device
    edges = torch.tensor([torch.inf, -torch.inf], dtype=time_dtype(device), device=device)
    count = torch.zeros(rows, dtype=torch.int64, device=device)
    return OpenWindows(projector._empty_memory(rows), count, edges.repeat(rows, 1))


def _chosen(windows: OpenWindows, rows: list[int]) -> OpenWindows:
    if rows == list(range(len(windows.num_frames))):
        return windows
    return take_rows(windows, torch.tensor(rows, device=windows.num_frames.device))


def _replaced(windows: OpenWindows, rows: list[int], values: OpenWindows) -> OpenWindows:
    if rows == list(range(len(windows.num_frames))):
        return values
    return put_rows(windows, torch.tensor(rows, device=windows.num_frames.device), values)
