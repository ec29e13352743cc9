"""Centres on a frame's edge belong to the frame that begins there, in whatever arithmetic the times were computed."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from avfusion import Frames, FrameSynchroniser, SlidingWindowProjector, TokenStream, estimate_budget
from avfusion.types.clock import rounding

SLOTS = 64


def decimals(lowest: float, highest: float, places: int) -> st.SearchStrategy[Fraction]:
    unit = 10**places
    return st.integers(round(lowest * unit), round(highest * unit)).map(lambda value: Fraction(value, unit))


# Rates at which ties are frequent, and any others.
token_rates = st.sampled_from([50, 25, Fraction(125, 2), 75, 100, Fraction(125, 4)]).map(Fraction) | decimals(5, 100, 2)
frame_rates = st.sampled_from([5, Fraction(5, 2), 3, 2, 10, 25, Fraction(2997, 100)]).map(Fraction) | decimals(2, 30, 2)
starts = decimals(-2, 3, 3)


def exact_frames(centres: list[Fraction], frame_rate: Fraction, first: Fraction) -> list[int]:
    """The number of each centre's frame on a regular grid of which an edge is at ``first``."""
    return [(centre - first) * frame_rate // 1 for centre in centres]


def numbered(centres: list[list[Fraction]], dtype: torch.dtype = torch.float64) -> TokenStream:
    """Tokens whose values are their numbers, from 1."""
    width = max(map(len, centres))
    times = torch.full((len(centres), width), torch.nan, dtype=torch.float64)
    for row, clip in zip(times, centres, strict=True):
        row[: len(clip)] = torch.tensor([float(centre) for centre in clip], dtype=torch.float64)
    values = torch.arange(1.0, width + 1).expand(len(centres), -1)[..., None]
    return TokenStream(values, ~times.isnan(), times.to(dtype))


def frames_of(out: Frames, row: int) -> list[int]:
    """The frame of each token of a clip, read off the values."""
    values = out.tokens[row, :, :, -1]
    return [frame for frame, held in enumerate(values.long().tolist()) for number in held if number]


def build(frame_rate: Fraction, slots: int = SLOTS, video: bool = True) -> FrameSynchroniser:
    return FrameSynchroniser(
        visual_dim=1 if video else None, stream_dims={"audio": 1}, frame_rate=float(frame_rate), slots=slots
    )


def test_an_edge_that_floating_point_misses() -> None:
    synchronise = FrameSynchroniser(visual_dim=8, stream_dims={"audio": 4}, frame_rate=5.0, slots=10)
    out = synchronise(audio=TokenStream.from_rate(torch.zeros(1, 480, 4), 50.0, start=0.01))
    assert out.mask.sum(-1).tolist() == [[9, *[10] * 47, 1]]


@pytest.mark.parametrize(("rate", "frame_rate"), [(50, 5), (50, 2.5), (62.5, 2.5), (75, 3), (50, 29.97), (43.066, 7.3)])
def test_every_start_in_whole_milliseconds(rate: float, frame_rate: float) -> None:
    """A thousand and one clips for each pair of rates."""
    begin = torch.arange(1001, dtype=torch.float64) / 1000
    stream = TokenStream.from_rate(torch.arange(1.0, 61).expand(1001, -1)[..., None], rate, start=begin)
    out = build(Fraction(str(frame_rate)), video=False)(audio=stream)
    half = Fraction(1, 2)
    for row in range(1001):
        centres = [Fraction(row, 1000) + (i + half) / Fraction(str(rate)) for i in range(60)]
        assert frames_of(out, row) == exact_frames(centres, Fraction(str(frame_rate)), Fraction(0))


def distinct(centres: list[Fraction], frame_rate: Fraction, first: Fraction, share: float) -> bool:
    """Whether centres that are not on an edge stay on their side of it when their times are rounded."""
    for centre in centres:
        beyond = (centre - first) * frame_rate % 1
        gap = min(beyond, 1 - beyond) / frame_rate
        if beyond and gap <= 2e-9 + 4 * share * (abs(centre) + abs(first) + 1 / frame_rate):
            return False
    return True


@settings(deadline=None, max_examples=200)
@given(rate=token_rates, frame_rate=frame_rates, data=st.data())
def test_drawn_rates_and_starts(rate: Fraction, frame_rate: Fraction, data: st.DataObject) -> None:
    """Six clips an example: with and without pictures, in every dtype of times, at once and as a stream."""
    token_dtype, frame_dtype = (
        data.draw(st.sampled_from([torch.float64, torch.float64, torch.float32, torch.float16, torch.bfloat16]))
        for _ in range(2)
    )
    share = max(rounding(token_dtype), rounding(frame_dtype))
    begins = data.draw(st.lists(starts, min_size=6, max_size=6))
    firsts = data.draw(st.lists(starts, min_size=6, max_size=6))
    count = data.draw(st.integers(1, 40))
    centres = [[begin + (i + Fraction(1, 2)) / rate for i in range(count)] for begin in begins]
    pictures = data.draw(st.integers(0, 5))
    kept = [
        row
        for row in range(6)
        if distinct(centres[row], frame_rate, firsts[row] if pictures else Fraction(0), Fraction(share))
    ]
    assume(kept)
    stream = numbered([centres[row] for row in kept], token_dtype)
    ordered = (stream.timestamps[:, 1:] > stream.timestamps[:, :-1]).all()
    assume(bool(ordered))
    edges = torch.tensor(
        [[float(firsts[row]) + k / float(frame_rate) for k in range(pictures + 1)] for row in kept], dtype=torch.float64
    ).to(frame_dtype)
    video = Frames(
        torch.ones(len(kept), pictures, 1, 1),
        torch.ones(len(kept), pictures, 1, dtype=torch.bool),
        torch.stack([edges[:, :-1], edges[:, 1:]], -1),
    )
    assume(bool((edges[:, 1:] > edges[:, :-1]).all()))
    synchronise = build(frame_rate, slots=2 * SLOTS)
    out = synchronise(visual=video, audio=stream)
    for place, row in enumerate(kept):
        exact = exact_frames(centres[row], frame_rate, firsts[row] if pictures else Fraction(0))
        before = max(0, -min(exact))
        assert frames_of(out, place) == [frame + before for frame in exact]
    check_stream(synchronise, video, stream, out, data)


def check_stream(
    synchronise: FrameSynchroniser, video: Frames, stream: TokenStream, wanted: Frames, data: st.DataObject
) -> None:
    batch = len(stream.mask)
    state = synchronise.initial_state(batch)
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in range(batch)]
    parts = {}
    for name, value in (("visual", video), ("audio", stream)):
        total = value.tokens.shape[1]
        cuts = sorted({0, total, *data.draw(st.lists(st.integers(0, total), max_size=3))})
        parts[name] = [type(value)(*(each[:, a:b] for each in value)) for a, b in pairwise(cuts)]
    while any(parts.values()):
        name = data.draw(st.sampled_from([name for name, left in parts.items() if left]))
        out, state = synchronise.step({name: parts[name].pop(0)}, state)
        assert not out.late.any()
        for row, length in enumerate(out.lengths.tolist()):
            found[row] += zip(*(value[row, :length] for value in out.frames), strict=True)
    out = synchronise.flush(state)
    for row, length in enumerate(out.lengths.tolist()):
        found[row] += zip(*(value[row, :length] for value in out.frames), strict=True)
        for place, frame in enumerate(found[row]):
            assert all(torch.equal(one, value[row, place]) for one, value in zip(frame, wanted, strict=True))
        assert not wanted.mask[row, len(found[row]) :].any()


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_pictures_of_a_variable_rate_touch_but_for_rounding(data: st.DataObject) -> None:
    """Each picture's end is computed another way than the next one's start; centres lie on edges, or between them."""
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32]))
    step = Fraction(1, data.draw(st.sampled_from([30, 7, 25, 1000, 44])))
    lasts = data.draw(st.lists(st.integers(10, 40), min_size=1, max_size=6))
    begin = data.draw(st.integers(-90, 90))
    edges = [begin * step + step * sum(lasts[:k]) for k in range(len(lasts) + 1)]
    spans = [[float(edge), float(edge) + float(step) * last] for edge, last in zip(edges, lasts, strict=False)]
    numbers = sorted(data.draw(st.lists(st.integers(begin, begin + sum(lasts) - 1), min_size=1, max_size=SLOTS)))
    between = data.draw(st.booleans())
    centres = [number * step + (step / 2 if between else 0) for number in numbers]
    stream = numbered([centres], data.draw(st.sampled_from([torch.float64, torch.float32])))
    video = Frames(
        torch.ones(1, len(lasts), 1, 1),
        torch.ones(1, len(lasts), 1, dtype=torch.bool),
        torch.tensor([spans], dtype=torch.float64).to(dtype),
    )
    synchronise = build(Fraction(2))
    out = synchronise(visual=video, audio=stream)
    exact = [sum(edge <= centre for edge in edges) - 1 for centre in centres]
    assert frames_of(out, 0) == exact
    check_stream(synchronise, video, stream, out, data)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_compiled_code_snaps_alike(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    synchronise = build(Fraction(5), slots=11)
    stream = TokenStream.from_rate(torch.ones(2, 60, 1), 50.0, start=torch.tensor([0.01, -0.13]).double())
    stream = stream._replace(timestamps=stream.timestamps.to(dtype))
    compiled = torch.compile(synchronise, fullgraph=True, backend="aot_eager")
    out, wanted = (call(audio=stream, num_frames=9) for call in (compiled, synchronise))
    assert all(torch.equal(one, two) for one, two in zip(out, wanted, strict=True))
    assert wanted.mask.sum(-1)[0].tolist() == [9, 10, 10, 10, 10, 10, 1, 0, 0]


@settings(deadline=None, max_examples=200)
@given(duration=decimals(0.001, 90, 3), frame_rate=decimals(1, 30, 1))
def test_frames_of_a_duration(duration: Fraction, frame_rate: Fraction) -> None:
    exact = -(-duration * frame_rate // 1)
    projector = SlidingWindowProjector(window_encoder=COUNTING, window_frames=1, llm_dim=1)
    assert estimate_budget(float(duration), frame_rate=float(frame_rate)).num_frames == exact
    assert int(projector.num_output_tokens(float(duration), frame_rate=float(frame_rate))) == exact


class Counting(torch.nn.Module):
    num_queries, output_dim = 1, 1


COUNTING = Counting()


def test_durations_in_single_precision() -> None:
    projector = SlidingWindowProjector(window_encoder=COUNTING, window_frames=1, llm_dim=1)
    tenths = torch.arange(1, 600) / 10
    assert projector.num_output_tokens(tenths, frame_rate=5.0).tolist() == [-(-k // 2) for k in range(1, 600)]
