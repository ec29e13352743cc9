"""A truthful ``watermark`` makes frames come sooner, and changes none."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avfusion import AlignmentError, Frames, FrameSynchroniser, TokenStream
from tests.core.strategies import Clip, centres, clips, frame_rates, grid_spans
from tests.core.streaming.cutting import NAMES, build_synchroniser, lengths_of, part_of, whole


def next_time(clip: Clip, name: str, given: int) -> float:
    """When the next token or picture is; ``inf`` where nothing is left."""
    times = [start for start, _ in clip.spans] if name == "visual" else clip.streams[name]
    return times[given] if given < len(times) else torch.inf


def truthful(draw: st.DrawFn, following: float) -> float:
    if following == torch.inf:
        return draw(st.sampled_from([-1.5, 0.4, 2.0, 7.0, torch.inf]))
    return following - draw(st.sampled_from([0.0, 0.0, 1e-7, 0.1, 0.5, 3.0]) | st.floats(0.0, 2.0))


def added(found: list[list[tuple[Tensor, ...]]], out: Frames, lengths: Tensor) -> None:
    for row, length in enumerate(lengths.tolist()):
        found[row] += zip(*(value[row, :length] for value in out), strict=True)


def check_equal(found: list[list[tuple[Tensor, ...]]], wanted: Frames) -> None:
    for row, frames in enumerate(found):
        for place, frame in enumerate(frames):
            assert all(torch.equal(one, value[row, place]) for one, value in zip(frame, wanted, strict=True))
        assert not wanted.spans[row, len(frames) :].any()
        assert not wanted.mask[row, len(frames) :].any()


@settings(deadline=None, max_examples=200)
@given(
    batch=st.lists(clips(NAMES[1:]), min_size=1, max_size=2),
    rate=frame_rates,
    fusion=st.sampled_from(["features", "tokens"]),
    padding=st.sampled_from(["masked", "released"]),
    learn=st.booleans(),
    data=st.data(),
)
def test_the_stream_is_the_clip(
    batch: list[Clip], rate: float, fusion: str, padding: str, learn: bool, data: st.DataObject
) -> None:
    synchroniser = build_synchroniser(fusion, frame_rate=rate, padding=padding, learn_absent_tokens=learn)
    wanted = synchroniser(**whole(batch, synchroniser.dims, data.draw))
    state = synchroniser.initial_state(len(batch))
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in batch]
    done = {name: [0] * len(batch) for name in NAMES}
    said = {name: [-torch.inf] * len(batch) for name in NAMES}
    open_ended = data.draw(st.booleans())  # pictures whose end is said by the next one
    for _ in range(data.draw(st.integers(1, 6))):
        chunk = {}
        for name in data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3)):
            places = []
            for row, count in enumerate(lengths_of(batch, name)):
                begin = done[name][row]
                done[name][row] = min(count, begin + data.draw(st.integers(0, 6)))
                places.append(list(range(begin, done[name][row])))
            chunk[name] = part_of(batch, name, synchroniser.dims[name], places, data.draw)
            if name == "visual" and open_ended:
                chunk[name] = open_all_but_the_last(batch, chunk[name], done[name])
        watermark = {}
        for name in data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3)):
            for row, clip in enumerate(batch):
                if data.draw(st.booleans()):
                    mark = truthful(data.draw, next_time(clip, name, done[name][row]))
                    said[name][row] = max(said[name][row], mark)
            watermark[name] = torch.tensor(said[name], dtype=torch.float64)
        out, state = synchroniser.step(chunk, state, watermark=watermark)
        assert not out.late.any()
        added(found, out.frames, out.lengths)
    rest = {
        name: part_of(
            batch, name, synchroniser.dims[name],
            [list(range(b, n)) for b, n in zip(done[name], lengths_of(batch, name), strict=True)], data.draw,
        )
        for name in NAMES
    }  # fmt: skip
    out, state = synchroniser.step(rest, state)
    added(found, out.frames, out.lengths)
    out = synchroniser.flush(state)
    added(found, out.frames, out.lengths)
    check_equal(found, wanted)


def open_all_but_the_last(batch: list[Clip], chunk: Frames, done: list[int]) -> Frames:
    spans = chunk.spans.clone()
    for row, clip in enumerate(batch):
        places = chunk.frame_mask[row].nonzero().flatten().tolist()
        if done[row] == len(clip.spans):
            places = places[:-1]
        for place in places:
            if spans[row, place, 0] > -torch.inf:
                spans[row, place, 1] = torch.inf
    return chunk._replace(spans=spans)


SYNC = FrameSynchroniser(visual_dim=1, stream_dims={"audio": 1}, stream_rates={"audio": 10.0}, slots=8)


def pictures(*starts: float, last: float) -> Frames:
    edges = torch.tensor([*starts, last], dtype=torch.float64)
    spans = torch.stack([edges[:-1], edges[1:]], -1)[None]
    return Frames(edges[None, :-1, None, None].float() + 9, torch.ones(1, len(starts), 1, dtype=torch.bool), spans)


def sound(*times: float) -> TokenStream:
    stamps = torch.tensor([times], dtype=torch.float64)
    return TokenStream(stamps[..., None].float() + 9, torch.ones(1, len(times), dtype=torch.bool), stamps)


def test_frames_before_the_first_picture_are_counted_from_it() -> None:
    audio, video = sound(-0.8, -0.3, 0.3, 0.7), pictures(0.4, 0.9, last=1.4)
    state = SYNC.initial_state()
    out, state = SYNC.step({"audio": audio}, state, watermark={"visual": 0.4})
    assert out.lengths.tolist() == [0]
    out, state = SYNC.step({"visual": video}, state, watermark={"visual": torch.inf, "audio": torch.inf})
    wanted = SYNC(visual=video, audio=audio)
    torch.testing.assert_close(wanted.spans[0, 0].tolist(), [-1.1, -0.6])
    assert all(torch.equal(one, two) for one, two in zip(out.frames, wanted, strict=True))


def test_a_picture_without_an_end_waits_for_the_next() -> None:
    state = SYNC.initial_state()
    out, state = SYNC.step({"visual": pictures(0.0, last=torch.inf)}, state, watermark={"visual": 0.7, "audio": 5.0})
    assert out.lengths.tolist() == [0]
    out, state = SYNC.step({"visual": pictures(0.8, last=1.3)}, state)
    assert out.frames.spans.tolist() == [[[0.0, 0.8], [0.8, 1.3]]]


def test_sound_in_a_gap_is_an_error_however_far_the_pictures_are_said_to_be() -> None:
    both = Frames(*(torch.cat(pair, 1) for pair in zip(pictures(0.0, last=0.5), pictures(1.5, last=2.0), strict=True)))
    with pytest.raises(AlignmentError, match="gaps between frames"):
        SYNC(visual=both, audio=sound(0.7))
    state = SYNC.initial_state()
    chunk = {"visual": pictures(0.0, last=0.5), "audio": sound(0.7)}
    out, state = SYNC.step(chunk, state, watermark={"visual": 1.5, "audio": 5.0})
    assert out.lengths.tolist() == [1]
    with pytest.raises(AlignmentError, match="gaps between frames"):
        SYNC.step({"visual": pictures(1.5, last=2.0)}, state)


def test_a_modality_counts_as_absent_only_when_it_has_ended() -> None:
    synchroniser = FrameSynchroniser(visual_dim=1, stream_dims={"audio": 1}, slots=8, learn_absent_tokens=True)
    video = pictures(*(start for start, _ in grid_spans(8, 2.0)), last=4.0)
    audio = sound(*centres(4, 10.0, 2.0))
    wanted = synchroniser(visual=video, audio=audio)
    state, found = synchroniser.initial_state(), [[]]
    for chunk, watermark in (({"visual": video}, {"audio": 2.0}), ({"audio": audio}, {})):
        out, state = synchroniser.step(chunk, state, watermark=watermark)
        added(found, out.frames, out.lengths)
    out = synchroniser.flush(state)
    added(found, out.frames, out.lengths)
    check_equal(found, wanted)
