"""FrameSynchroniser: every token in the frame that holds it, whatever else is in the batch."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import AlignmentError, Frames, FrameSynchroniser, InvalidTypeError, InvalidValueError, TokenStream
from tests.core import reference
from tests.core.strategies import Clip, centres, clips, frame_rates, grid_spans, pad_frames, pad_stream

VISUAL_TOKENS = 2
SLOTS = 12  # tokens of the longest stream that the strategies make
STREAMS = ("audio", "speech")
FLOAT64 = torch.float64


def dims_of(fusion: str) -> dict[str, int]:
    return {"visual": 3, "audio": 2, "speech": 4} if fusion == "features" else dict.fromkeys(("visual", *STREAMS), 3)


def build(fusion: str = "features", frame_rate: float = 2.0, **arguments: object) -> FrameSynchroniser:
    dims = dims_of(fusion)
    streams = {name: dims[name] for name in STREAMS}
    return FrameSynchroniser(
        visual_dim=dims["visual"],
        stream_dims=streams,
        frame_rate=frame_rate,
        fusion=fusion,
        **{"slots": SLOTS, **arguments},
    )


def pad(batch: list[Clip], fusion: str, draw: st.DrawFn, first: int = 0) -> dict[str, Frames | TokenStream | None]:
    """The batch; what no clip has is sometimes None, sometimes all padding."""
    dims = dims_of(fusion)
    given: dict[str, Frames | TokenStream | None] = {
        "visual": pad_frames(batch, VISUAL_TOKENS, dims["visual"], draw, first)
    }
    given |= {name: pad_stream(batch, name, dims[name], draw, first) for name in STREAMS}
    absent = [name for name, value in given.items() if value is not None and not value.mask.any()]
    for name in absent[: 2 if len(absent) == 3 else None]:
        if draw(st.booleans()):
            given[name] = None
    return given


fusions = st.sampled_from(["features", "tokens"])


@settings(deadline=None, max_examples=60)
@given(batch=st.lists(clips(STREAMS), min_size=1, max_size=3), fusion=fusions, rate=frame_rates, data=st.data())
def test_is_the_reference(batch: list[Clip], fusion: str, rate: float, data: st.DataObject) -> None:
    out = build(fusion, rate)(**pad(batch, fusion, data.draw))
    longest = 0
    for row, clip in enumerate(batch):
        tokens, mask, laid = reference.synchronise(clip, row, dims_of(fusion), rate, SLOTS, VISUAL_TOKENS, fusion)
        assert torch.equal(out.tokens[row, : len(laid)], tokens)
        assert torch.equal(out.mask[row, : len(laid)], mask)
        assert [tuple(span) for span in out.spans[row, : len(laid)].tolist()] == [(a, b) for _, a, b in laid]
        assert not out.mask[row, len(laid) :].any()
        assert not out.tokens[row, len(laid) :].any()
        longest = max(longest, len(laid))
    assert out.tokens.shape[1] == longest


@settings(deadline=None, max_examples=40)
@given(batch=st.lists(clips(STREAMS), min_size=1, max_size=3), rate=frame_rates, data=st.data())
def test_every_token_is_in_one_frame_that_holds_its_centre(batch: list[Clip], rate: float, data: st.DataObject) -> None:
    """Read off the output alone: each token carries its own centre as its value."""
    streams = {}
    for name in STREAMS:
        stream = pad_stream(batch, name, 1, data.draw)
        streams[name] = stream._replace(tokens=stream.timestamps[..., None] + 10.0)
    synchronise = FrameSynchroniser(
        visual_dim=1, stream_dims=dict.fromkeys(STREAMS, 1), frame_rate=rate, slots=SLOTS, fusion="tokens"
    )
    out = synchronise(visual=pad_frames(batch, 1, 1, data.draw), **streams)
    for part, name in enumerate(STREAMS, start=1):
        tokens, mask = (x[:, :, part * SLOTS : (part + 1) * SLOTS] for x in (out.tokens[..., 0], out.mask))
        for row, clip in enumerate(batch):
            found = (tokens[row][mask[row]] - 10.0).tolist()
            assert found == pytest.approx(clip.streams[name], abs=1e-12)
            for frame, (start, end) in enumerate(out.spans[row].tolist()):
                inside = (tokens[row, frame][mask[row, frame]] - 10.0).tolist()
                assert all(start - 1e-12 <= time < end + 1e-12 for time in inside)
                assert not mask[row, frame, len(inside) :].any()  # slots are filled from the first


@settings(deadline=None, max_examples=40)
@given(batch=st.lists(clips(STREAMS), min_size=2, max_size=3), fusion=fusions, learn=st.booleans(), data=st.data())
def test_a_clip_alone_is_the_clip_in_a_batch(batch: list[Clip], fusion: str, learn: bool, data: st.DataObject) -> None:
    torch.manual_seed(0)
    synchronise = build(fusion, learn_absent_tokens=learn).double()
    together = synchronise(**pad(batch, fusion, data.draw))
    for row, clip in enumerate(batch):
        alone = synchronise(**pad([clip], fusion, data.draw, first=row))
        count = alone.tokens.shape[1]
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one[0], many[row, :count])
        assert not together.mask[row, count:].any()


def test_a_longer_clip_beside_it_changes_nothing() -> None:
    short, long = torch.randn(1, 30, 2), torch.randn(1, 400, 2)
    both = TokenStream.from_rate(
        torch.cat([torch.nn.functional.pad(short, (0, 0, 0, 370)), long]), 50.0, lengths=[30, 400]
    )
    synchronise = FrameSynchroniser(visual_dim=None, stream_dims={"audio": 2}, slots=25)
    alone, together = synchronise(audio=short), synchronise(audio=both)
    assert alone.tokens.shape[1] == 2
    assert together.mask.any(-1).sum(1).tolist() == [2, 16]
    assert torch.equal(together.tokens[0, :2], alone.tokens[0])


def audio(start: float, seconds: float, dim: int = 2) -> TokenStream:
    return TokenStream.from_rate(torch.rand(1, round(seconds * 10), dim) + 1, 10.0, start=start)


AUDIO_VIDEO = FrameSynchroniser(visual_dim=3, stream_dims={"audio": 2}, slots=5)


def test_a_still_image_is_held_over_the_sound() -> None:
    image = torch.rand(1, 4, 3) + 1
    out = AUDIO_VIDEO(visual=Frames.from_image(image), audio=audio(0.0, 3.2))
    assert out.spans[0].tolist() == [list(span) for span in grid_spans(7, 2.0)]
    assert torch.equal(out.tokens[0, :, :4, :3], image.expand(7, 4, 3))
    assert out.tokens[0, :, :, 3].ne(0).sum(-1).tolist() == [5] * 6 + [2]


def test_a_still_image_alone_is_one_frame() -> None:
    image = torch.rand(1, 4, 3) + 1
    out = AUDIO_VIDEO(visual=Frames.from_image(image))
    assert out.spans.tolist() == [[[0.0, 0.5]]]
    assert torch.equal(out.tokens[0, 0, :4, :3], image[0])
    assert out.mask.tolist() == [[[True] * 4 + [False]]]


def test_sound_from_before_zero_shows_the_image_too() -> None:
    image = torch.rand(1, 4, 3) + 1
    out = AUDIO_VIDEO(visual=Frames.from_image(image), audio=audio(-0.7, 1.0))
    assert out.spans[0].tolist() == [[-1.0, -0.5], [-0.5, 0.0], [0.0, 0.5]]
    assert torch.equal(out.tokens[0, :, :4, :3], image.expand(3, 4, 3))
    assert out.tokens[0, :, :, 3].ne(0).sum(-1).tolist() == [2, 5, 3]


@pytest.mark.parametrize(("seconds", "frames", "with_sound"), [(3.0, 6, 6), (1.0, 4, 2), (2.0, 4, 4)])
def test_sound_longer_and_shorter_than_video(seconds: float, frames: int, with_sound: int) -> None:
    video = Frames.from_rate(torch.rand(1, 4, 2, 3) + 1, 2.0)
    out = AUDIO_VIDEO(visual=video, audio=audio(0.0, seconds))
    assert out.tokens.shape[1] == frames
    assert out.tokens[0, :, 0, 0].ne(0).tolist() == [True] * 4 + [False] * (frames - 4)
    assert out.tokens[0, :, 0, 3].ne(0).tolist() == [True] * with_sound + [False] * (frames - with_sound)


def test_sound_around_a_late_video_adds_frames_on_both_sides() -> None:
    video = Frames.from_rate(torch.rand(1, 2, 2, 3) + 1, 4.0, start=1.1)
    out = AUDIO_VIDEO(visual=video, audio=audio(0.5, 2.0))
    starts = [0.1, 0.6, 1.1, 1.35, 1.6, 2.1]
    assert out.spans[0, :, 0].tolist() == pytest.approx(starts)
    assert out.tokens[0, :, 0, 0].ne(0).tolist() == [False, False, True, True, False, False]
    assert out.tokens[0, :, :, 3].ne(0).sum().item() == 20


def test_video_alone_and_sound_alone() -> None:
    video, sound = torch.rand(1, 3, 2, 3), torch.rand(1, 60, 2)
    only_video = AUDIO_VIDEO(visual=video)
    assert torch.equal(only_video.tokens[..., :2, :3], video)
    assert only_video.mask.sum().item() == 6
    only_sound = FrameSynchroniser(visual_dim=3, stream_dims={"audio": 2}, slots=25)(audio=sound)
    assert torch.equal(only_sound.tokens[..., 3:].flatten(1, 2)[:, :50], sound[:, :50])
    assert only_sound.mask.sum(-1).tolist() == [[25, 25, 10]]


def test_nothing_real_makes_no_frames() -> None:
    for nothing in (
        {"audio": torch.zeros(2, 0, 2)},
        {"visual": torch.zeros(2, 0, 4, 3)},
        {"audio": TokenStream.from_rate(torch.full((2, 5, 2), torch.nan), 10.0, lengths=[0, 0])},
        {"visual": Frames.from_rate(torch.full((2, 5, 4, 3), torch.nan), 2.0, lengths=[0, 0])},
    ):
        out = AUDIO_VIDEO(**nothing)
        assert out.tokens.shape == (2, 0, 5, 5)
        assert out.spans.shape == (2, 0, 2)


def test_one_clip_of_nothing_beside_a_real_one() -> None:
    sound = TokenStream.from_rate(torch.randn(2, 10, 2), 10.0, lengths=[0, 10])
    out = AUDIO_VIDEO(audio=sound, visual=Frames.from_rate(torch.randn(2, 2, 4, 3), 2.0, lengths=[0, 2]))
    assert out.mask.any(-1).tolist() == [[False, False], [True, True]]
    assert not out.tokens[0].any()


def test_an_hour_of_sound() -> None:
    """The last tokens of an hour at 50 Hz keep their frames of 29.97 a second."""
    count = 3600 * 50
    start = 3600.0 - 2.0
    stream = TokenStream.from_rate(torch.arange(100.0).view(1, 100, 1), 50.0, start=start)
    video = Frames.from_rate(torch.zeros(1, 61, 1, 1), 29.97, start=start)
    out = FrameSynchroniser(visual_dim=1, stream_dims={"audio": 1}, slots=3)(visual=video, audio=stream)
    spans = grid_spans(61, 29.97, start)
    for frame, (begin, end) in enumerate(spans):
        inside = reference.tokens_of_frame(centres(100, 50.0, start), begin, end)
        assert out.tokens[0, frame, : len(inside), 1].tolist() == inside
    whole = FrameSynchroniser(visual_dim=None, stream_dims={"audio": 1}, slots=25)(audio=torch.ones(1, count, 1))
    assert whole.mask.sum(-1).eq(25).all()
    assert whole.spans[0, -1].tolist() == [3599.5, 3600.0]


def all_ways(names: tuple[str, ...]) -> list[tuple[bool, ...]]:
    return list(product([False, True], repeat=len(names)))


def mixed_batch(fusion: str) -> dict[str, Frames | TokenStream]:
    """Every combination of modalities, the empty one included; NaN wherever nothing is real."""
    ways, dims = all_ways(("visual", *STREAMS)), dims_of(fusion)
    batch = len(ways)
    has = torch.tensor(ways)
    video = torch.where(has[:, 0, None, None, None], torch.rand(batch, 3, VISUAL_TOKENS, dims["visual"]) + 1, torch.nan)
    given: dict[str, Frames | TokenStream] = {
        "visual": Frames.from_rate(video.requires_grad_(), 2.0, lengths=has[:, 0] * 3)
    }
    for column, name in enumerate(STREAMS, start=1):
        tokens = torch.where(has[:, column, None, None], torch.rand(batch, 12, dims[name]) + 1, torch.nan)
        stream = TokenStream.from_rate(tokens.requires_grad_(), 10.0, lengths=has[:, column] * 12)
        given[name] = stream._replace(timestamps=torch.where(stream.mask, stream.timestamps, torch.nan))
    return given


@pytest.mark.parametrize("fusion", ["features", "tokens"])
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("padding", ["masked", "released"])
def test_all_combinations_in_one_batch_have_finite_gradients(fusion: str, learn: bool, padding: str) -> None:
    given = mixed_batch(fusion)
    synchronise = build(fusion, learn_absent_tokens=learn, padding=padding)
    out = synchronise(**given)
    assert out.tokens.isfinite().all()
    out.tokens.square().sum().backward()
    for value in given.values():
        assert value.tokens.grad.isfinite().all()
        assert value.tokens.grad[~value.mask].eq(0).all()
        assert value.tokens.grad[value.mask].ne(0).all()
    for token in synchronise.absent_tokens.values():
        assert token.grad.isfinite().all()
        assert token.grad.ne(0).any()
    assert len(synchronise.absent_tokens) == (3 if learn else 0)


@pytest.mark.parametrize("fusion", ["features", "tokens"])
@pytest.mark.parametrize("has", all_ways(("visual", *STREAMS))[1:])
def test_whole_batches_without_a_modality_touch_the_same_parameters(fusion: str, has: tuple[bool, ...]) -> None:
    given = {
        name: value
        for name, value, there in zip(("visual", *STREAMS), [*mixed_batch(fusion).values()], has, strict=True)
        if there
    }
    given = {name: type(value)(*(field[-1:] for field in value)) for name, value in given.items()}
    synchronise = build(fusion, learn_absent_tokens=True)
    synchronise(**given).tokens.square().sum().backward()
    for name, token in synchronise.absent_tokens.items():
        assert token.grad is not None
        assert bool(token.grad.any()) == (name not in given)


def test_parameters_are_touched_by_a_batch_of_nothing() -> None:
    synchronise = build(learn_absent_tokens=True)
    synchronise(audio=torch.zeros(2, 0, 2)).tokens.sum().backward()
    assert all(torch.equal(token.grad, torch.zeros_like(token)) for token in synchronise.absent_tokens.values())


def test_learned_tokens_of_features_fill_every_real_slot() -> None:
    synchronise = build(learn_absent_tokens=True)
    out = synchronise(**mixed_batch("features"))
    parts = dict(zip(synchronise.dims, out.tokens.split(list(synchronise.dims.values()), -1), strict=True))
    for row, way in enumerate(all_ways(("visual", *STREAMS))):
        for there, (name, part) in zip(way, parts.items(), strict=True):
            if not there:
                wanted = synchronise.absent_tokens[name].expand_as(part[row][out.mask[row]])
                assert torch.equal(part[row][out.mask[row]], wanted)
        assert not out.tokens[row][~out.mask[row]].any()
    assert not out.mask[0].any()


def test_learned_tokens_of_tokens_stand_in_the_first_slot_of_every_frame() -> None:
    slots = {"visual": 2, "audio": 5, "speech": 6}
    plain, learned = build("tokens", slots=slots), build("tokens", slots=slots, learn_absent_tokens=True)
    given = mixed_batch("tokens")
    base, out = plain(**given), learned(**given)
    first = {"visual": 0, "audio": 2, "speech": 7}
    for row, way in enumerate(all_ways(("visual", *STREAMS))):
        frames = int(base.mask[row].any(-1).sum())
        mask, tokens = base.mask[row].clone(), base.tokens[row].clone()
        for there, (name, slot) in zip(way, first.items(), strict=True):
            if not there:
                mask[:frames, slot] = True
                tokens[:frames, slot] = learned.absent_tokens[name]
        assert torch.equal(out.mask[row], mask)
        assert torch.equal(out.tokens[row], tokens)


def test_slots_for_each_stream() -> None:
    slots = {"speech": 3, "audio": 5, "visual": 4}
    synchronise = build("tokens", slots=slots)
    assert synchronise.tokens_per_frame == 12
    assert synchronise.output_dim == 3
    out = synchronise(visual=torch.ones(1, 1, 2, 3), audio=audio(0.0, 0.4, 3), speech=audio(0.0, 0.2, 3))
    assert out.mask[0, 0].int().tolist() == [*[1, 1, 0, 0], *[1, 1, 1, 1, 0], *[1, 1, 0]]
    wide = build("features")
    assert (wide.tokens_per_frame, wide.output_dim) == (SLOTS, 9)


def test_masked_tokens_inside_a_frame_are_empty_slots() -> None:
    video = torch.ones(1, 2, 3, 3)
    mask = torch.tensor([[[True, False, True], [False, False, True]]])
    video[~mask] = torch.nan
    out = AUDIO_VIDEO(visual=Frames.from_rate(video.requires_grad_(), 2.0, mask=mask))
    assert torch.equal(out.mask[..., :3], mask)
    assert torch.equal(out.tokens.ne(0).any(-1), out.mask)
    out.tokens.square().sum().backward()
    assert torch.equal(video.grad, 2.0 * mask[..., None].expand_as(video))


def test_released_padding_masks_added_frames_only() -> None:
    given = {
        "visual": Frames.from_rate(torch.randn(2, 3, 2, 3), 2.0, lengths=[1, 3]),
        "audio": torch.randn(2, 5, 2),
    }
    out = build(padding="released")(**given)
    masked = build()(**given)
    assert out.mask.all(-1).tolist() == [[True, False, False], [True, True, True]]
    assert torch.equal(out.mask.any(-1), out.mask.all(-1))
    assert torch.equal(out.tokens, masked.tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_is_the_tokens_own(dtype: torch.dtype) -> None:
    synchronise = build(learn_absent_tokens=True)
    out = synchronise(audio=torch.ones(1, 10, 2, dtype=dtype))
    assert out.tokens.dtype == dtype
    assert out.spans.dtype == FLOAT64


@pytest.mark.parametrize("num_frames", [None, 5])
def test_compiles_whole_when_told_how_many_frames_and_else_in_parts(num_frames) -> None:
    synchronise = build()
    given = {"visual": torch.randn(1, 3, 2, 3), "audio": torch.randn(1, 30, 2)}
    given["audio"] = TokenStream.from_rate(given["audio"], 20.0)
    torch._dynamo.reset()
    compiled = torch.compile(synchronise, backend="eager", fullgraph=num_frames is not None)
    found, wanted = (call(**given, num_frames=num_frames) for call in (compiled, synchronise))
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"visual_dim": None, "stream_dims": {}}, r"visual_dim, stream_dims: there must be at least one stream"),
        ({"stream_dims": {"visual": 3}}, r"stream_dims: 'visual' is the video's own name"),
        ({"fusion": "sum"}, r"fusion: must be \"features\" or \"tokens\", found 'sum'"),
        ({"padding": "zeros"}, r"padding: must be .*, found 'zeros'"),
        ({"frame_rate": 0.0}, r"frame_rate: must be a positive number a second, found 0.0"),
        ({"frame_rate": float("nan")}, r"frame_rate: must be a positive number a second, found nan"),
        ({"stream_rates": {"audio": -1.0}}, r"audio: must be a positive number a second, found -1.0"),
        (
            {"stream_rates": {"music": 5.0}},
            r"stream_rates: must name the streams \['audio'\], found \['audio', 'music'\]",
        ),
        ({"stream_rates": {"visual": 5.0}}, r"stream_rates: must name the streams \['audio'\], found .*'visual'"),
        (
            {"slots": {"audio": 5}, "fusion": "tokens"},
            r"slots: must name the streams \['audio', 'visual'\], found \['audio'\]",
        ),
        ({"slots": 0}, r"slots: must be at least 1, found"),
        ({"slots": {"audio": 5, "visual": 6}}, r'slots: must be one number for fusion="features", found'),
        ({"visual_dim": 3, "fusion": "tokens"}, r'dims: must be equal for fusion="tokens", found'),
    ],
)
def test_constructor_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        FrameSynchroniser(**arguments)


def test_forward_refuses() -> None:
    video, sound = torch.zeros(2, 3, 4, 3), torch.zeros(2, 10, 2)
    with pytest.raises(InvalidValueError, match=r"streams: one of \['audio', 'visual'\] must be given, found none"):
        AUDIO_VIDEO()
    with pytest.raises(InvalidValueError, match=r"streams: one of .* must be given, found none"):
        AUDIO_VIDEO(visual=None, audio=None)
    with pytest.raises(InvalidValueError, match=r"streams: must be among \['audio'\], found \['music'\]"):
        AUDIO_VIDEO(visual=video, music=sound)
    with pytest.raises(InvalidValueError, match=r"visual: must have width 3, found 2"):
        AUDIO_VIDEO(visual=video[..., :2])
    with pytest.raises(InvalidValueError, match=r"audio: must have width 2, found 1"):
        AUDIO_VIDEO(audio=sound[..., :1])
    with pytest.raises(InvalidValueError, match=r"same batch size, found \{'visual': 2, 'audio': 1\}"):
        AUDIO_VIDEO(visual=video, audio=sound[:1])
    with pytest.raises(InvalidValueError, match=r"visual: a frame has 5 slots, found 6 tokens a frame"):
        AUDIO_VIDEO(visual=torch.zeros(2, 3, 6, 3))
    with pytest.raises(InvalidTypeError, match=r"audio: must be a TokenStream, a tensor or None, found list"):
        AUDIO_VIDEO(audio=[1.0])
    with pytest.raises(InvalidTypeError, match=r"visual: must be Frames, a tensor or None, found TokenStream"):
        AUDIO_VIDEO(visual=audio(0.0, 1.0))
    with pytest.raises(InvalidValueError, match=r"visual: this FrameSynchroniser was built with visual_dim=None"):
        FrameSynchroniser(visual_dim=None)(visual=video)
    with pytest.raises(AlignmentError, match=r"audio: a frame has 5 slots, and these tokens are more"):
        AUDIO_VIDEO(audio=TokenStream.from_rate(sound, 20.0))
    backwards = TokenStream.from_rate(sound, 10.0)
    with pytest.raises(AlignmentError, match=r"audio: timestamps of real tokens must be finite and must not decrease"):
        AUDIO_VIDEO(audio=backwards._replace(timestamps=backwards.timestamps.flip(1)))
    gap = Frames(video[:, :2], torch.ones(2, 2, 4).bool(), torch.tensor([[[0.0, 0.2], [0.8, 1.0]]] * 2))
    with pytest.raises(
        AlignmentError, match=r"audio: .* gaps between frames: clip 0 token 2 at 0.250 s, .* and 9 more"
    ):
        AUDIO_VIDEO(visual=gap, audio=TokenStream.from_rate(sound, 10.0))
    with pytest.raises(InvalidValueError, match=r"spans: frames must not overlap"):
        AUDIO_VIDEO(visual=gap._replace(spans=gap.spans.flip(1)))
