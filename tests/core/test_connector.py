"""AudioVisualConnector: synchroniser and projector in one, whatever is missing."""

from collections.abc import Mapping
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import (
    AlignmentError,
    AudioVisualConnector,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    InvalidValueError,
    SlidingWindowProjector,
    TokenStream,
)
from tests.core.strategies import Clip, clips, pad_frames, pad_stream
from tests.core.test_projector import MeanOfWindow

SLOTS = 12
NAMES = ("visual", "audio", "speech")
WIDTHS = {"visual": 3, "audio": 4, "speech": 2}
WAYS = list(product([False, True], repeat=3))
ALL_MAPS = {"visual": 5, "audio": 3, "speech": 6}


def build(
    fusion: str = "features", *, learn: bool = False, input_dims: Mapping[str, int] | None = None
) -> AudioVisualConnector:
    torch.manual_seed(3)
    widths = WIDTHS if fusion == "features" else dict.fromkeys(NAMES, 4)
    synchroniser = FrameSynchroniser(
        visual_dim=widths["visual"],
        stream_dims={name: widths[name] for name in NAMES[1:]},
        slots=SLOTS,
        fusion=fusion,
        learn_absent_tokens=learn,
    )
    encoder = CausalQFormer(
        input_dim=synchroniser.output_dim,
        hidden_size=4,
        num_heads=1,
        num_queries=2,
        window_frames=2,
        tokens_per_frame=synchroniser.tokens_per_frame,
        dropout=0.0,
    )
    projector = SlidingWindowProjector(window_encoder=encoder, window_frames=2, llm_dim=5)
    return AudioVisualConnector(synchroniser=synchroniser, projector=projector, input_dims=input_dims).double()


def input_widths(connector: AudioVisualConnector) -> dict[str, int]:
    return {**connector.synchroniser.dims, **connector.input_dims}


def mixed_batch(connector: AudioVisualConnector, ways: list[tuple[bool, ...]]) -> dict[str, Frames | TokenStream]:
    """One clip for each way of having modalities; NaN in all that is not there, times included."""
    has, widths, batch = torch.tensor(ways), input_widths(connector), len(ways)
    nan = torch.nan
    video = torch.rand(batch, 3, 2, widths["visual"], dtype=torch.float64) + 1
    video = torch.where(has[:, 0, None, None, None], video, nan).requires_grad_()
    frames = Frames.from_rate(video, 2.0, lengths=has[:, 0] * 3)
    given = {"visual": frames._replace(spans=torch.where(frames.frame_mask[..., None], frames.spans, nan))}
    for column, name in enumerate(NAMES[1:], start=1):
        tokens = torch.rand(batch, 12, widths[name], dtype=torch.float64) + 1
        tokens = torch.where(has[:, column, None, None], tokens, nan).requires_grad_()
        stream = TokenStream.from_rate(tokens, 10.0, lengths=has[:, column] * 12)
        given[name] = stream._replace(timestamps=torch.where(stream.mask, stream.timestamps, nan))
    return given


def gradients(connector: AudioVisualConnector) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in connector.named_parameters() if p.grad is not None}


configurations = pytest.mark.parametrize(
    ("fusion", "learn", "input_dims"),
    [
        ("features", False, {}),
        ("features", True, {"audio": 3}),
        ("features", False, ALL_MAPS),
        ("tokens", True, ALL_MAPS),
        ("tokens", False, {"visual": 5}),
    ],
)


@configurations
def test_all_combinations_in_one_batch(fusion: str, learn: bool, input_dims: dict[str, int]) -> None:
    connector = build(fusion, learn=learn, input_dims=input_dims)
    given = mixed_batch(connector, WAYS)
    out = connector(**given)
    assert out.embeddings.isfinite().all()
    assert out.mask.any(1).tolist() == [any(way) for way in WAYS]
    out.embeddings.square().sum().backward()
    found = gradients(connector)
    assert set(found) == {name for name, _ in connector.named_parameters()}
    assert all(grad.isfinite().all() for grad in found.values())
    for value in given.values():
        assert value.tokens.grad.isfinite().all()
        assert not value.tokens.grad[~value.mask].any()
        assert value.tokens.grad[value.mask].any(-1).all()


@configurations
def test_every_kind_of_batch_touches_the_same_parameters(fusion: str, learn: bool, input_dims: dict[str, int]) -> None:
    """A modality that a whole batch lacks, as None and as padding, and a batch of nothing at all."""
    connector = build(fusion, learn=learn, input_dims=input_dims)
    for way in WAYS:
        padded = mixed_batch(connector, [way, way])
        none = {name: value for (name, value), there in zip(padded.items(), way, strict=True) if there}
        outputs = []
        for inputs in (padded, none) if any(way) else (padded,):
            connector.zero_grad()
            out = connector(**inputs)
            outputs.append(out)
            (out.embeddings.square().sum() + out.query_states.sum()).backward()
            found = gradients(connector)
            assert set(found) == {name for name, _ in connector.named_parameters()}
            assert all(grad.isfinite().all() for grad in found.values())
            for (name, _), there in zip(padded.items(), way, strict=True):
                if name in input_dims:
                    assert bool(found[f"input_projections.{name}.weight"].any()) == there
                if learn and any(way):
                    assert bool(found[f"synchroniser.absent_tokens.{name}"].any()) != there
        for one in outputs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(one, outputs[0], strict=True))


@settings(deadline=None, max_examples=30)
@given(
    batch=st.lists(clips(NAMES[1:]), min_size=2, max_size=3), mapped=st.booleans(), learn=st.booleans(), data=st.data()
)
def test_a_clip_alone_is_the_clip_in_a_batch(batch: list[Clip], mapped: bool, learn: bool, data: st.DataObject) -> None:
    connector = build(learn=learn, input_dims=ALL_MAPS if mapped else None)
    widths = input_widths(connector)

    def pad(part: list[Clip], first: int) -> dict[str, Frames | TokenStream]:
        streams = {name: pad_stream(part, name, widths[name], data.draw, first) for name in NAMES[1:]}
        return {"visual": pad_frames(part, 2, widths["visual"], data.draw, first), **streams}

    together = connector(**pad(batch, 0))
    for row, clip in enumerate(batch):
        alone = connector(**pad([clip], row))
        count = alone.mask.shape[1]
        torch.testing.assert_close(alone.embeddings[0], together.embeddings[row, :count], rtol=0, atol=1e-10)
        assert torch.equal(alone.mask[0], together.mask[row, :count])
        assert torch.equal(alone.spans[0], together.spans[row, :count])
        assert not together.mask[row, count:].any()


def test_is_its_parts_one_after_the_other() -> None:
    connector = build(input_dims=ALL_MAPS)
    given = mixed_batch(connector, [(True, True, True)])
    mapped = {
        name: value._replace(tokens=connector.input_projections[name](value.tokens)) for name, value in given.items()
    }
    frames = connector.synchroniser(**mapped)
    for one, two in zip(connector.projector(frames), connector(**given), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(frames, connector.synchronise(**given), strict=True):
        assert torch.equal(one, two)


def test_plain_tensors_are_at_the_rates_of_the_synchroniser() -> None:
    synchroniser = FrameSynchroniser(
        visual_dim=3, stream_dims={"audio": 3}, frame_rate=4.0, stream_rates={"audio": 20.0}, slots=5, fusion="tokens"
    )
    projector = SlidingWindowProjector(window_encoder=MeanOfWindow(), window_frames=3, llm_dim=2)
    connector = AudioVisualConnector(synchroniser=synchroniser, projector=projector)
    video, sound = torch.randn(2, 8, 2, 3), torch.randn(2, 55, 3)
    plain = connector(visual=video, audio=sound)
    timed = connector(visual=Frames.from_rate(video, 4.0), audio=TokenStream.from_rate(sound, 20.0))
    assert all(torch.equal(a, b) for a, b in zip(plain, timed, strict=True))
    assert plain.mask.sum(1).tolist() == connector.num_output_tokens([2.75, 2.75]).tolist() == [4, 4]
    assert plain.spans[0].tolist() == [[0.0, 0.75], [0.75, 1.5], [1.5, 2.25], [2.25, 2.75]]
    assert connector.llm_dim == 2


def test_instruction_reaches_the_window_encoder() -> None:
    synchroniser = FrameSynchroniser(visual_dim=3, stream_dims={}, slots=2)
    encoder = CausalQFormer(
        input_dim=3,
        hidden_size=4,
        num_heads=1,
        num_queries=2,
        window_frames=2,
        tokens_per_frame=2,
        instruction_dim=3,
        dropout=0.0,
    )
    connector = AudioVisualConnector(
        synchroniser=synchroniser, projector=SlidingWindowProjector(window_encoder=encoder, window_frames=2, llm_dim=5)
    )
    video, words = torch.randn(2, 3, 2, 3), torch.randn(2, 4, 3)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    frames = synchroniser(visual=video)
    wanted = connector.projector(frames, instruction=words, instruction_mask=mask)
    found = connector(visual=video, instruction=words, instruction_mask=mask)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert not torch.allclose(found.embeddings, connector(visual=video).embeddings)


def test_constructor_refuses() -> None:
    synchroniser = FrameSynchroniser(visual_dim=3, stream_dims={"audio": 3}, slots=2)
    encoder = CausalQFormer(input_dim=6, hidden_size=4, num_heads=1, window_frames=2, tokens_per_frame=3)
    with pytest.raises(InvalidValueError, match=r"tokens_per_frame must be the synchroniser's 2, found 3"):
        AudioVisualConnector(
            synchroniser=synchroniser, projector=SlidingWindowProjector(window_encoder=encoder, window_frames=2)
        )
    encoder = CausalQFormer(input_dim=5, hidden_size=4, num_heads=1, window_frames=2, tokens_per_frame=2)
    projector = SlidingWindowProjector(window_encoder=encoder, window_frames=2, llm_dim=2)
    with pytest.raises(InvalidValueError, match=r"input_dim must be the synchroniser's 6, found 5"):
        AudioVisualConnector(synchroniser=synchroniser, projector=projector)
    free = SlidingWindowProjector(window_encoder=MeanOfWindow(), window_frames=2, llm_dim=2)
    with pytest.raises(InvalidValueError, match=r"input_dims: must be among the streams \['audio', 'visual'\], found"):
        AudioVisualConnector(synchroniser=synchroniser, projector=free, input_dims={"music": 2})
    reserved = FrameSynchroniser(visual_dim=3, stream_dims={"instruction": 3}, slots=2)
    with pytest.raises(InvalidValueError, match=r"stream_dims: \['instruction'\] are arguments of this module"):
        AudioVisualConnector(synchroniser=reserved, projector=free)


@pytest.mark.parametrize("input_dims", [{}, ALL_MAPS])
def test_forward_refuses(input_dims: dict[str, int]) -> None:
    connector = build(input_dims=input_dims).float()
    widths = input_widths(connector)
    video, sound = torch.zeros(2, 3, 2, widths["visual"]), torch.zeros(2, 5, widths["audio"])
    for nothing in ({}, {"visual": None}, dict.fromkeys(NAMES)):
        with pytest.raises(InvalidValueError, match=r"streams: one of .* must be given, found none"):
            connector(**nothing)
    with pytest.raises(InvalidValueError, match=r"streams: must be among \['audio', 'speech'\], found \['music'\]"):
        connector(visual=video, music=sound)
    with pytest.raises(InvalidValueError, match=rf"audio: must have width {widths['audio']}, found 1"):
        connector(visual=video, audio=sound[..., :1])
    with pytest.raises(InvalidValueError, match=rf"visual: must have width {widths['visual']}, found 1"):
        connector(visual=video[..., :1])
    with pytest.raises(InvalidValueError, match=r"streams: must have the same batch size, found"):
        connector(visual=video, audio=sound[:1])
    with pytest.raises(AlignmentError, match=r"audio: a frame has 12 slots"):
        connector(audio=TokenStream.from_rate(torch.zeros(1, 30, widths["audio"]), 50.0))
