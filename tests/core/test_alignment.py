"""The pure functions of alignment, against loops."""

from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avfusion import AlignmentError, Frames, FrameSynchroniser, InvalidValueError, TokenStream
from avfusion.functional import FrameGrid, frame_grid, gather_frames, place_tokens, scatter_tokens
from avfusion.functional.open_grid import GridAnchor, open_grid
from avfusion.functional.placement import check_placement
from avfusion.types.clock import latest
from tests.core.reference import NANOSECOND, lay_frames, tokens_of_frame
from tests.core.strategies import Clip, clips, frame_rates, pad_frames, pad_stream

FLOAT64 = torch.float64


def grid_of(batch: list[Clip], frames: Frames, frame_rate: float) -> FrameGrid:
    times = [[t for stream in clip.streams.values() for t in stream] for clip in batch]
    first = torch.tensor([min(row, default=torch.inf) for row in times], dtype=FLOAT64)
    last = torch.tensor([max(row, default=-torch.inf) for row in times], dtype=FLOAT64)
    return frame_grid(frames.spans, frames.frame_mask, first, last, frame_rate)


@settings(deadline=None, max_examples=60)
@given(batch=st.lists(clips(["audio"]), min_size=1, max_size=3), frame_rate=frame_rates, data=st.data())
def test_grid_and_placement_are_the_reference(batch: list[Clip], frame_rate: float, data: st.DataObject) -> None:
    frames = pad_frames(batch, 1, 1, data.draw)
    stream = pad_stream(batch, "audio", 1, data.draw)
    grid = grid_of(batch, frames, frame_rate)
    placement = place_tokens(stream.timestamps, stream.mask, grid)
    wanted = [lay_frames(clip, frame_rate) for clip in batch]
    assert grid.mask.shape[1] == max(map(len, wanted))
    for row, (clip, laid) in enumerate(zip(batch, wanted, strict=True)):
        assert grid.mask[row].tolist() == [place < len(laid) for place in range(grid.mask.shape[1])]
        assert [tuple(s) for s in grid.spans[row, : len(laid)].tolist()] == [(start, end) for _, start, end in laid]
        assert not grid.spans[row, len(laid) :].any()
        places = frames.frame_mask[row].nonzero()[:, 0].tolist()
        shown = [places[index] if index >= 0 else -1 for index, _, _ in laid]
        assert grid.source[row].tolist() == shown + [-1] * (grid.mask.shape[1] - len(laid))
        found = [(f, s) for f, s in zip(placement.frame[row].tolist(), placement.slot[row].tolist(), strict=True)]
        expected = {}
        for frame, (_, start, end) in enumerate(laid):
            for slot, index in enumerate(tokens_of_frame(clip.streams["audio"], start, end)):
                assert index not in expected
                expected[index] = (frame, slot)
        assert len(expected) == len(clip.streams["audio"])
        real = stream.mask[row].tolist()
        assert [place for place, is_real in zip(found, real, strict=True) if is_real] == [
            expected[index] for index in range(len(expected))
        ]
        assert all(place == (-1, -1) for place, is_real in zip(found, real, strict=True) if not is_real)


@pytest.mark.parametrize("rate", [50, 100, Fraction(1, 2), 75, 16])
@pytest.mark.parametrize("frame_rate", [2, 3, Fraction(1, 2), 25, 50, 100, 200])
def test_ties_are_exact(rate: Fraction, frame_rate: Fraction) -> None:
    """Centres on an edge belong to the frame that begins there: compared with exact rational arithmetic."""
    stream = TokenStream.from_rate(torch.zeros(1, 60, 1), float(rate))
    none = torch.zeros(1, 0, 2, dtype=FLOAT64)
    grid = frame_grid(none, none[..., 0].bool(), stream.timestamps[:, 0], stream.timestamps[:, -1], float(frame_rate))
    placement = place_tokens(stream.timestamps, stream.mask, grid)
    exact = [int(Fraction(2 * i + 1, 2) / rate * frame_rate) for i in range(60)]
    assert placement.frame[0].tolist() == exact
    assert grid.mask.shape[1] == exact[-1] + 1
    # The same tokens on a given video whose frames are on the same grid.
    video = Frames.from_rate(torch.zeros(1, exact[-1] + 1, 1, 1), float(frame_rate))
    given_grid = frame_grid(
        video.spans, video.frame_mask, stream.timestamps[:, 0], stream.timestamps[:, -1], float(frame_rate)
    )
    assert torch.equal(given_grid.spans, grid.spans)
    assert place_tokens(stream.timestamps, stream.mask, given_grid).frame[0].tolist() == exact


@example(end=2.0, frame_rate=2.0, steps=-3, nudge=-torch.inf)  # begin - time rounds to 1.5, three frames of four
@settings(deadline=None, max_examples=60)
@given(
    end=st.floats(-5, 5),
    frame_rate=frame_rates,
    steps=st.integers(-40, 40),
    nudge=st.sampled_from([-1e-6, -torch.inf, 0.0, torch.inf]),
)
def test_tokens_on_and_beside_the_edges_of_added_frames(
    end: float, frame_rate: float, steps: int, nudge: float
) -> None:
    """Where a product of time and rate would round into the neighbouring frame."""
    begin = torch.tensor(end - 1.0, dtype=FLOAT64)
    anchor = begin if steps < 0 else torch.tensor(end, dtype=FLOAT64)
    time = anchor + torch.tensor(float(steps), dtype=FLOAT64) / frame_rate
    if nudge in (-torch.inf, torch.inf):
        time = torch.nextafter(time, torch.tensor(nudge, dtype=FLOAT64))
    else:
        time = time + nudge
    spans = torch.stack([begin, torch.tensor(end, dtype=FLOAT64)]).view(1, 1, 2)
    grid = frame_grid(spans, torch.ones(1, 1, dtype=torch.bool), time[None], time[None], frame_rate)
    frame = int(place_tokens(time.view(1, 1), torch.ones(1, 1, dtype=torch.bool), grid).frame)
    start, stop = grid.spans[0, frame].tolist()
    assert frame >= 0
    assert start <= float(time) + NANOSECOND < stop  # a step before the edge is on it
    assert frame in (0, grid.mask.shape[1] - 1) or grid.mask.shape[1] == 1  # no frame beyond the token's
    assert bool((grid.spans[0, 1:, 0] == grid.spans[0, :-1, 1]).all())


def test_an_hour_in() -> None:
    """float32 would be off by several tokens here."""
    start = 3600.0
    stream = TokenStream.from_rate(torch.zeros(1, 200, 1), 50.0, start=start)
    spans = Frames.from_rate(torch.zeros(1, 400, 1, 1), 100.0, start=start)
    placement = place_tokens(
        stream.timestamps,
        stream.mask,
        frame_grid(spans.spans, spans.frame_mask, stream.timestamps[:, 0], stream.timestamps[:, -1], 100.0),
    )
    times, edges = stream.timestamps[0].tolist(), spans.spans[0].tolist()
    assert placement.frame[0].tolist() == [next(k for k, (a, b) in enumerate(edges) if a <= t < b) for t in times]
    assert placement.slot.max() == 0


def test_float32_times_are_read_as_float64() -> None:
    """A float32 edge beside float64 centres: neither is rounded to the other's dtype."""
    edge = torch.tensor([[[0.0, 0.1], [0.1, 0.2]]])  # 0.1 as float32 is 0.100000001490...
    time = torch.tensor([[0.1 - 1e-6, 0.1]], dtype=FLOAT64)
    grid = frame_grid(edge, torch.ones(1, 2, dtype=torch.bool), time[:, 0], time[:, 1], 2.0)
    assert grid.spans.dtype == FLOAT64
    synchroniser = FrameSynchroniser(visual_dim=1, stream_dims={"audio": 1}, slots=2)
    out = synchroniser(
        visual=Frames(torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, dtype=torch.bool), edge),
        audio=TokenStream(torch.tensor([[[1.0], [2.0]]]), torch.ones(1, 2, dtype=torch.bool), time),
    )
    assert out.tokens[0, :, 0, 1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 1), (1, 1)], r"spans: a frame must end after it starts, found \[1.0, 1.0\] for frame 1 of clip 1"),
        ([(0, 1), (2, 1.5)], r"must end after it starts, found \[2.0, 1.5\] for frame 1 of clip 1"),
        ([(0, 1), (1, torch.nan)], r"must end after it starts, found \[1.0, nan\] for frame 1 of clip 1"),
        ([(0, torch.inf), (1, 2)], r"must end after it starts, found \[0.0, inf\] for frame 0 of clip 1"),
        ([(0, 1), (0.5, 2)], r"frames must not overlap, found .* for frames 0, 1 of clip 1"),
        ([(1, 2), (0, 1)], r"frames must not overlap, found .* for frames 0, 1 of clip 1"),
    ],
)
def test_spans_that_make_no_sense(spans: list[tuple[float, float]], message: str) -> None:
    good = [(0.0, 1.0), (1.0, 2.0)]
    value = torch.tensor([good, spans], dtype=FLOAT64)
    real = torch.ones(2, 2, dtype=torch.bool)
    none = torch.full((2,), torch.inf, dtype=FLOAT64)
    with pytest.raises(InvalidValueError, match=message):
        frame_grid(value, real, none, -none, 2.0)
    real[1] = False  # masked spans are nobody's business
    assert frame_grid(value, real, none, -none, 2.0).mask.tolist() == [[True, True], [False, False]]


def test_gaps_between_frames_are_kept_and_hold_nothing() -> None:
    spans = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]], dtype=FLOAT64)
    times, real = torch.tensor([[0.5, 1.0, 2.0]], dtype=FLOAT64), torch.ones(1, 3, dtype=torch.bool)
    grid = frame_grid(spans, real[:, :2], times[:, 0], times[:, -1], 1.0)
    placement = place_tokens(times, real, grid)
    assert torch.equal(grid.spans, spans)
    assert placement.frame.tolist() == [[0, -1, 1]]
    with pytest.raises(AlignmentError, match=r"audio: .*gaps between frames: clip 0 token 1 at 1.000 s$"):
        check_placement("audio", real, times, placement, 8)


def test_placement_errors_name_the_tokens() -> None:
    real = torch.ones(1, 6, dtype=torch.bool)
    times = torch.arange(6, dtype=FLOAT64)[None] / 6
    spans = torch.tensor([[[0.0, 1.0]]], dtype=FLOAT64)
    grid = frame_grid(spans, real[:, :1], times[:, 0], times[:, -1], 1.0)
    check_placement("audio", real, times, place_tokens(times, real, grid), 6)
    with pytest.raises(AlignmentError, match=r"audio: a frame has 2 slots.*token 2 at 0.333 s.* and 1 more$"):
        check_placement("audio", real, times, place_tokens(times, real, grid), 2)
    with pytest.raises(AlignmentError, match=r"audio: a frame has 5 slots.*clip 0 token 5 at 0.833 s$"):
        check_placement("audio", real, times, place_tokens(times, real, grid), 5)
    for wrong in (0.1, torch.nan, torch.inf):
        bad = times.clone()
        bad[0, 3] = wrong
        with pytest.raises(AlignmentError, match=r"speech: timestamps .* must not decrease: clip 0 token 3 at"):
            check_placement("speech", real, bad, place_tokens(bad, real, grid), 6)
        real[0, 3] = False  # masked, it is nobody's business
        check_placement("speech", real, bad, place_tokens(bad, real, grid), 6)
        real[0, 3] = True


@settings(deadline=None, max_examples=20)
@given(batch=st.lists(clips(["audio"]), min_size=1, max_size=3), data=st.data())
def test_scatter_moves_each_token_once_and_so_do_its_gradients(batch: list[Clip], data: st.DataObject) -> None:
    stream = pad_stream(batch, "audio", 2, data.draw)
    grid = grid_of(batch, pad_frames(batch, 1, 1, data.draw), 2.0)
    tokens = stream.tokens.clone().requires_grad_()
    placed, mask = scatter_tokens(tokens, place_tokens(stream.timestamps, stream.mask, grid), grid.mask.shape[1], 12)
    assert int(mask.sum()) == int(stream.mask.sum())
    assert torch.equal(placed[mask], stream.tokens[stream.mask])  # clip by clip, in time order
    assert not placed[~mask].any()
    weights = torch.rand_like(placed)
    (placed * weights).sum().backward()
    assert torch.equal(tokens.grad[stream.mask], weights[mask])
    assert not tokens.grad[~stream.mask].any()


def test_gather_shows_frames_again_and_keeps_masks() -> None:
    tokens = torch.randn(1, 2, 2, 3, dtype=FLOAT64)
    mask = torch.tensor([[[True, False], [True, True]]])
    shown, real = gather_frames(tokens, mask, torch.tensor([[1, 0, -1, 1]]), slots=3)
    assert real.tolist() == [[[True, True, False], [True, False, False], [False] * 3, [True, True, False]]]
    assert torch.equal(shown[0, 0, :2], tokens[0, 1])
    assert torch.equal(shown[0, 3], shown[0, 0])
    assert torch.equal(shown[0, 1, 0], tokens[0, 0, 0])
    assert not shown[~real].any()


@settings(deadline=None, max_examples=200)
@given(batch=st.lists(clips(), min_size=1, max_size=3), frame_rate=frame_rates, data=st.data())
def test_a_stream_of_which_nothing_is_finalised_has_the_clip_s_frames(
    batch: list[Clip], frame_rate: float, data: st.DataObject
) -> None:
    frames = pad_frames(batch, 1, 1, data.draw)
    order = torch.argsort(frames.frame_mask.to(torch.uint8), dim=1, descending=True, stable=True)
    wanted = grid_of(batch, frames, frame_rate)
    times = [[t for stream in clip.streams.values() for t in stream] for clip in batch]
    padded = torch.full((len(batch), max(map(len, times))), torch.nan, dtype=FLOAT64)
    for row, clip in zip(padded, times, strict=True):
        row[: len(clip)] = torch.tensor(clip, dtype=FLOAT64)
    zeros, yes = torch.zeros(len(batch), dtype=FLOAT64), torch.ones(len(batch), dtype=torch.bool)
    spans = frames.spans.gather(1, order[..., None].expand(-1, -1, 2))
    laid = open_grid(
        GridAnchor(zeros, zeros.long(), zeros - torch.inf, ~yes), spans, frames.frame_mask.sum(1), latest(padded),
        yes if data.draw(st.booleans()) else ~yes, frame_rate,
    )  # fmt: skip
    shown = order.gather(1, (laid.grid.source - 1).clamp(min=0)) if order.shape[1] else laid.grid.source
    assert torch.equal(torch.where(laid.grid.source > 0, shown, -1), wanted.source)
    assert torch.equal(laid.grid.mask, wanted.mask)
    assert torch.equal(laid.grid.spans, wanted.spans)
