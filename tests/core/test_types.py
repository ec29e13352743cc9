"""The value types: checked when made, plain tuples otherwise, exact in time."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from avfusion import (
    Frames,
    InvalidTypeError,
    InvalidValueError,
    LLMEmbeddings,
    TokenStream,
    Video,
    VisualEncoder,
    Waveform,
    WindowEncoder,
    Windows,
)
from tests.core.strategies import centres, grid_spans, offsets, rates

STREAM = TokenStream.from_rate(torch.randn(2, 5, 3), 50.0, lengths=[5, 2])
FRAMES = Frames.from_rate(torch.randn(2, 4, 3, 6), 2.0, lengths=[1, 4])
WAVE = Waveform.from_samples([torch.randn(8), torch.randn(3)], 16000)
VIDEO = Video.from_rate(torch.zeros(2, 4, 3, 5, 5), 2.0, lengths=[4, 3])
WINDOWS = Windows(torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4).bool(), torch.zeros(2, 1, 2), torch.ones(2, 1).bool())
EMBEDDINGS = LLMEmbeddings(torch.zeros(2, 4, 5), torch.ones(2, 4).bool(), torch.zeros(2, 4, 2), torch.zeros(2, 4, 3))
VALUES = [STREAM, FRAMES, WAVE, VIDEO, WINDOWS, EMBEDDINGS]
named = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@named
def test_pytree_round_trip(value: tuple) -> None:
    leaves, spec = pytree.tree_flatten(value)
    again = pytree.tree_unflatten(leaves, spec)
    assert len(leaves) == len(value)
    assert type(again) is type(value)
    assert all(a is b for a, b in zip(again, value, strict=True))


@named
def test_tree_map_keeps_the_type(value: tuple) -> None:
    halved = pytree.tree_map_only(torch.Tensor, lambda t: t[:1], value)
    assert type(halved) is type(value)
    assert halved[0].shape[0] == 1
    assert type(pytree.tree_map(lambda _: None, value)) is type(value)  # as tracing tools do


@named
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies(value: tuple, copied: object) -> None:
    again = copied(value)  # type: ignore[operator]
    assert type(again) is type(value)
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(again, value, strict=True))


@named
def test_unpacks_and_replaces(value: tuple) -> None:
    first, *rest = value
    assert first is value[0]
    assert len(rest) == len(value) - 1
    again = value._replace(**{value._fields[0]: first + 1})  # type: ignore[attr-defined]
    assert type(again) is type(value)
    assert torch.equal(again[0], first + 1)
    assert all(a is b for a, b in zip(again[1:], rest, strict=True))


@pytest.mark.parametrize("value", [STREAM, FRAMES, WAVE, VIDEO], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("made_by", ["constructor", "_replace", "_make"])
def test_checked_however_made(value: tuple, made_by: str) -> None:
    def make(**changes: object) -> object:
        fields = {**value._asdict(), **changes}  # type: ignore[attr-defined]
        if made_by == "constructor":
            return type(value)(**fields)
        if made_by == "_make":
            return type(value)._make(fields.values())  # type: ignore[attr-defined]
        return value._replace(**changes)  # type: ignore[attr-defined]

    times = {"TokenStream": "timestamps", "Waveform": "start"}.get(type(value).__name__, "spans")
    data = value._fields[0]  # type: ignore[attr-defined]
    with pytest.raises(InvalidTypeError, match=r"mask: must be boolean .*found torch.float32"):
        make(mask=value[1].float())
    with pytest.raises(InvalidValueError, match=r"mask: must be .*, found shape"):
        make(mask=value[1][:, :-1])
    with pytest.raises(InvalidValueError, match=r"mask: must be .*, found shape"):
        make(mask=value[1][0])
    with pytest.raises(InvalidValueError, match=rf"{times}: must be .*, found shape"):
        make(**{times: getattr(value, times)[:1]})
    with pytest.raises(InvalidTypeError, match=rf"{times}: must be floating point, found torch.int64"):
        make(**{times: getattr(value, times).nan_to_num().long()})
    with pytest.raises(InvalidValueError, match=rf"{data}: must be \(batch, .*found shape"):
        make(**{data: value[0][0]})
    with pytest.raises(InvalidTypeError, match=rf"{data}: must be .*floating point, found torch.int64"):
        make(**{data: value[0].long()})


def test_constructors_refuse() -> None:
    tokens, video = torch.randn(2, 4, 3), torch.randn(2, 4, 1, 3)
    for rate in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InvalidValueError, match=r"rate: must be a positive, finite number per second, found"):
            TokenStream.from_rate(tokens, rate)
        with pytest.raises(InvalidValueError, match=r"frame_rate: must be a positive, finite number"):
            Frames.from_rate(video, rate)
    with pytest.raises(InvalidValueError, match="mask, lengths: give one of them, found both"):
        TokenStream.from_rate(tokens, 1.0, mask=torch.ones(2, 4).bool(), lengths=[4, 4])
    with pytest.raises(InvalidValueError, match="mask, lengths: give one of them, found both"):
        Frames.from_rate(video, 1.0, mask=torch.ones(2, 4, 1).bool(), lengths=[4, 4])
    for lengths in ([5, 1], [-1, 1]):
        with pytest.raises(InvalidValueError, match=r"lengths: must be between 0 and 4, found"):
            TokenStream.from_rate(tokens, 1.0, lengths=lengths)
    with pytest.raises(InvalidTypeError, match=r"lengths: must be whole numbers, found torch.float32"):
        TokenStream.from_rate(tokens, 1.0, lengths=torch.tensor([1.5, 2.0]))
    with pytest.raises(InvalidValueError, match=r"lengths: must be \(batch,\) = \(2,\), found shape \(3,\)"):
        Frames.from_rate(video, 1.0, lengths=[1, 2, 3])
    with pytest.raises(
        InvalidValueError, match=r"start: must be one number or \(batch,\) = \(2,\), found shape \(3,\)"
    ):
        TokenStream.from_rate(tokens, 1.0, start=torch.zeros(3))
    with pytest.raises(InvalidValueError, match=r"end: must be one number or \(batch,\)"):
        Frames.from_timestamps(video, torch.zeros(2, 4), end=torch.zeros(3))
    with pytest.raises(
        InvalidValueError, match=r"timestamps: must be \(batch, frame\) = \(2, 4\), found shape \(2, 3\)"
    ):
        Frames.from_timestamps(video, torch.zeros(2, 3), end=1.0)
    with pytest.raises(InvalidValueError, match=r"tokens: must be \(batch, token, dim\)|tokens: must be \(batch, time"):
        Frames.from_image(video)
    with pytest.raises(InvalidValueError, match=r"samples: must hold at least one clip, found none"):
        Waveform.from_samples([], 16000)
    with pytest.raises(InvalidValueError, match=r"sample_rate: must be a positive, finite number"):
        Waveform.from_samples([torch.zeros(3)], 0)
    with pytest.raises(InvalidValueError, match=r"pixels: must have 3 channels \(RGB\), found shape"):
        Video.from_rate(torch.zeros(1, 2, 4, 5, 5), 2.0)


@settings(deadline=None, max_examples=30)
@given(rate=rates, start=offsets, count=st.integers(0, 9))
def test_from_rate_lays_out_centres_and_spans(rate: float, start: float, count: int) -> None:
    stream = TokenStream.from_rate(torch.zeros(1, count, 1), rate, start=start)
    assert stream.timestamps.dtype == torch.float64
    assert stream.timestamps[0].tolist() == centres(count, rate, start)
    frames = Frames.from_rate(torch.zeros(1, count, 1, 1), rate, start=start)
    assert frames.spans.dtype == torch.float64
    assert [tuple(span) for span in frames.spans[0].tolist()] == grid_spans(count, rate, start)


def test_times_stay_exact_after_an_hour() -> None:
    hour = 3600 * 50
    stream = TokenStream.from_rate(torch.zeros(1, hour, 1, dtype=torch.bfloat16), 50.0)
    assert stream.timestamps[0, -1].item() == (hour - 0.5) / 50
    frames = Frames.from_rate(torch.zeros(1, 3600 * 30, 1, 1, dtype=torch.float16), 29.97, start=0.1)
    assert frames.spans[0, -1].tolist() == [0.1 + (108000 - 1) / 29.97, 0.1 + 108000 / 29.97]
    wave = Waveform.from_samples([torch.zeros(1)], 16000, start=[0.1])
    assert wave.start.tolist() == [0.1]
    assert wave.start.dtype == torch.float64
    long = wave._replace(samples=torch.zeros(1, 1).expand(1, 16000 * 3600 + 1), mask=torch.ones(1, 57600001).bool())
    assert long.durations.tolist() == [57600001 / 16000]


def test_start_for_each_clip() -> None:
    stream = TokenStream.from_rate(torch.zeros(2, 1, 1), 2.0, start=torch.tensor([1.0, -1.0]))
    assert stream.timestamps.tolist() == [[1.25], [-0.75]]


@settings(deadline=None, max_examples=30)
@given(data=st.data(), end=st.sampled_from([9.0, torch.inf]))
def test_variable_frame_rate_ends_each_frame_at_the_next_real_one(data: st.DataObject, end: float) -> None:
    times = sorted(set(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))))
    width = len(times) + data.draw(st.integers(0, 3))
    places = sorted(data.draw(st.permutations(range(width)))[: len(times)])
    stamps, mask = torch.full((1, width), torch.nan), torch.zeros(1, width, 2, dtype=torch.bool)
    for time, place in zip(times, places, strict=True):
        stamps[0, place], mask[0, place, 1] = time / 8, True
    frames = Frames.from_timestamps(torch.zeros(1, width, 2, 1), stamps, end=end, mask=mask)
    found = [tuple(span) for span in frames.spans[frames.frame_mask].tolist()]
    edges = [time / 8 for time in times]
    assert found == list(zip(edges, [*edges[1:], end], strict=True))


def test_frame_mask_needs_one_real_token() -> None:
    mask = torch.tensor([[[True, False], [False, True], [False, False]]])
    frames = Frames.from_rate(torch.zeros(1, 3, 2, 1), 1.0, mask=mask)
    assert frames.frame_mask.tolist() == [[True, True, False]]


def test_image_is_on_screen_at_every_time() -> None:
    mask = torch.tensor([[True, False], [True, True]])
    image = Frames.from_image(torch.randn(2, 2, 3), mask=mask)
    assert image.tokens.shape == (2, 1, 2, 3)
    assert torch.equal(image.mask[:, 0], mask)
    assert image.spans.tolist() == [[[-torch.inf, torch.inf]]] * 2
    assert torch.equal(Video.from_image(torch.zeros(2, 3, 4, 4)).spans, image.spans)


def test_empty_values_follow_dtype() -> None:
    assert TokenStream.empty(2, 3, dtype=torch.bfloat16).tokens.shape == (2, 0, 3)
    assert Frames.empty(2, 1, 3, dtype=torch.bfloat16).tokens.dtype == torch.bfloat16
    assert TokenStream.empty(2, 3, device="meta").timestamps.device.type == "meta"


def test_protocols_see_what_is_there() -> None:
    class Pool(torch.nn.Module):
        num_queries, output_dim = 1, 2

    assert isinstance(Pool(), WindowEncoder)
    assert not isinstance(torch.nn.Linear(1, 1), WindowEncoder)
    assert not isinstance(Pool(), VisualEncoder)


@pytest.mark.parametrize("value", [STREAM, FRAMES], ids=lambda value: type(value).__name__)
def test_values_pass_through_compile(value: TokenStream | Frames) -> None:
    def twice(given: TokenStream | Frames) -> TokenStream | Frames:
        return given._replace(tokens=given.tokens * 2)

    out = torch.compile(twice, fullgraph=True, backend="eager")(value)
    assert type(out) is type(value)
    assert torch.equal(out.tokens, value.tokens * 2)
