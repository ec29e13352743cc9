"""Cutting frames into windows, against loops."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import Frames, InvalidValueError
from avfusion.functional.windows import cut_windows, num_frames_of, num_windows, spread_over_positions
from tests.core.strategies import Clip, grid_spans, pad_frames


def window_starts(num_frames: int, window: int, stride: int) -> list[int]:
    """From the start, on by one stride, for as long as the windows so far leave a frame out."""
    starts: list[int] = []
    while num_frames and (not starts or starts[-1] + window < num_frames):
        starts.append(len(starts) * stride)
    return starts


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int]:
    window = draw(st.integers(1, 6))
    return window, draw(st.integers(1, window))


@settings(deadline=None, max_examples=50)
@given(num_frames=st.integers(0, 40), cut=cuts())
def test_number_of_windows(num_frames: int, cut: tuple[int, int]) -> None:
    window, stride = cut
    starts = window_starts(num_frames, window, stride)
    assert num_windows(num_frames, window, stride) == len(starts)
    found = num_windows(torch.tensor([[num_frames, 1]]), window, stride)
    assert found.dtype == torch.int64
    assert found.tolist() == [[len(starts), 1]]
    assert num_windows(num_frames, window) == -(-num_frames // window)
    for before, start in pairwise(starts):  # each adds a frame that no earlier one holds
        assert before + window < num_frames
        assert start < before + window or stride == window


@st.composite
def leading_frames(draw: st.DrawFn) -> Frames:
    """Clips whose real frames come first, with rubbish in the padding and holes among the tokens."""
    lengths = draw(st.lists(st.integers(0, 11), min_size=1, max_size=3))
    batch = [Clip(grid_spans(length, 2.0, 0.3), {}) for length in lengths]
    frames = pad_frames(batch, 2, 3, draw)
    order = torch.argsort(frames.mask.any(-1).int(), dim=1, descending=True, stable=True)
    tokens, mask, spans = (
        value.gather(1, order.view(*order.shape, *[1] * (value.ndim - 2)).expand_as(value)) for value in frames
    )
    holes = torch.rand(mask.shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0.3
    mask = mask & ~holes
    return Frames(torch.where(mask[..., None], tokens, torch.nan), mask, spans)


@settings(deadline=None, max_examples=60)
@given(frames=leading_frames(), cut=cuts())
def test_window_k_holds_frames_from_k_strides_on(frames: Frames, cut: tuple[int, int]) -> None:
    window, stride = cut
    out = cut_windows(frames, window, stride)
    batch, count = out.window_mask.shape
    tokens, mask = out.tokens.unflatten(0, (batch, count)), out.mask.unflatten(0, (batch, count))
    assert tokens.shape[2] == window
    assert tokens.isfinite().all()
    assert not tokens[~mask].any()
    for row in range(batch):
        real = frames.mask[row].any(-1).tolist()
        length = max((place + 1 for place, is_real in enumerate(real) if is_real), default=0)
        starts = window_starts(length, window, stride)
        assert not out.window_mask[row, len(starts) :].any()
        assert not mask[row, len(starts) :].any()
        assert not out.spans[row, len(starts) :].any()
        for k, start in enumerate(starts):
            held = min(window, length - start)
            wanted = frames.mask[row, start : start + held]
            assert torch.equal(mask[row, k, :held], wanted)
            assert not mask[row, k, held:].any()
            assert torch.equal(tokens[row, k, :held][wanted], frames.tokens[row, start : start + held][wanted])
            inside = [frames.spans[row, f].tolist() for f in range(start, start + held) if real[f]]
            assert bool(out.window_mask[row, k]) == bool(inside)
            assert out.spans[row, k].tolist() == ([inside[0][0], inside[-1][1]] if inside else [0.0, 0.0])


@settings(deadline=None, max_examples=30)
@given(frames=leading_frames(), cut=cuts())
def test_a_clip_alone_has_the_same_windows(frames: Frames, cut: tuple[int, int]) -> None:
    together = cut_windows(frames, *cut)
    batch, count = together.window_mask.shape
    for row in range(batch):
        length = int(num_frames_of(frames.frame_mask)[row])
        alone = cut_windows(Frames(*(value[row : row + 1, :length] for value in frames)), *cut)
        own = alone.window_mask.shape[1]
        assert torch.equal(alone.window_mask[0], together.window_mask[row, :own])
        assert not together.window_mask[row, own:].any()
        assert torch.equal(alone.spans[0], together.spans[row, :own])
        assert torch.equal(alone.tokens, together.tokens.unflatten(0, (batch, count))[row, :own])
        assert torch.equal(alone.mask, together.mask.unflatten(0, (batch, count))[row, :own])


def test_spread_keeps_positions_of_a_window_together() -> None:
    spans = torch.arange(8.0).view(1, 4, 2)
    assert spread_over_positions(spans, 2)[0, :, 0].tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


def test_gradients_do_not_see_what_is_masked() -> None:
    tokens = torch.full((1, 3, 2, 1), torch.nan)
    tokens[0, 0, 0] = 1.0
    tokens.requires_grad_()
    mask = torch.zeros(1, 3, 2, dtype=torch.bool)
    mask[0, 0, 0] = True
    cut_windows(Frames.from_rate(tokens, 1.0, mask=mask), 2, 1).tokens.square().sum().backward()
    assert tokens.grad.flatten().tolist() == [2.0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [
        (0, None, r"window_frames: must be at least 1, found 0"),
        (4, 0, r"stride_frames: must be between 1 and window_frames = 4, so that no frame is left out, found 0"),
        (4, 5, r"stride_frames: must be between 1 and window_frames = 4, .*, found 5"),
    ],
)
def test_refuses(window: int, stride: int | None, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        num_windows(3, window, stride)
    with pytest.raises(InvalidValueError, match=message):
        cut_windows(Frames.empty(1, 1, 1), window, stride)
