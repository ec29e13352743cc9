"""SlidingWindowProjector and MultiResolutionProjector: any window encoder, in time order, nothing for padding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avfusion import (
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    InvalidTypeError,
    InvalidValueError,
    LLMEmbeddings,
    MultiResolutionProjector,
    SlidingWindowProjector,
)
from tests.core.strategies import frame_rates
from tests.core.test_windows import cuts, leading_frames, window_starts

SLOTS, DIM = 2, 3  # of leading_frames


class MeanOfWindow(nn.Module):
    num_queries, output_dim = 1, DIM

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens.sum((1, 2))[:, None] / mask.sum((1, 2)).clamp(min=1)[:, None, None]


class MLPResampler(nn.Module):
    """Biases make its states of an empty window other than zero."""

    num_queries, output_dim = 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(DIM, 8), nn.GELU(), nn.Linear(8, 12))

    def forward(self, tokens: Tensor, mask: Tensor, queries: Tensor | None = None) -> Tensor:
        states = (self.mlp(tokens) * mask[..., None]).sum((1, 2)).unflatten(-1, (3, 4))
        states = states + self.mlp[0].bias[0] + 1
        return states if queries is None else states[:, : queries.shape[0]] * queries


def qformer(frames: int = 6, queries: int = 2, **arguments: object) -> CausalQFormer:
    return CausalQFormer(
        **{
            "input_dim": DIM,
            "hidden_size": 4,
            "num_heads": 1,
            "num_queries": queries,
            "window_frames": frames,
            "tokens_per_frame": SLOTS,
            "dropout": 0.0,
            **arguments,
        }
    )


ENCODERS = {"mean": MeanOfWindow, "mlp": MLPResampler, "qformer": qformer}
encoders = st.sampled_from(sorted(ENCODERS))


def build(encoder: str, window: int, stride: int | None = None, llm_dim: int = 5) -> SlidingWindowProjector:
    torch.manual_seed(1)
    return SlidingWindowProjector(
        window_encoder=ENCODERS[encoder](), window_frames=window, stride_frames=stride, llm_dim=llm_dim
    ).double()


def check_padding(out: LLMEmbeddings) -> None:
    assert not out.embeddings[~out.mask].any()
    assert not out.spans[~out.mask].any()
    assert not out.query_states[~out.window_mask].any()
    assert out.embeddings.isfinite().all()
    assert out.spans.dtype == torch.float64


@settings(deadline=None, max_examples=40)
@given(frames=leading_frames(), cut=cuts(), encoder=encoders)
def test_each_window_is_encoded_and_projected_on_its_own(frames: Frames, cut: tuple[int, int], encoder: str) -> None:
    window, stride = cut
    projector = build(encoder, window, stride)
    out = projector(frames)
    check_padding(out)
    queries = projector.num_queries
    for row in range(frames.tokens.shape[0]):
        real = frames.mask[row].any(-1)
        length = int(real.nonzero().max()) + 1 if real.any() else 0
        positions = 0
        for k, start in enumerate(window_starts(length, window, stride)):
            places = slice(k * queries, (k + 1) * queries)
            positions = places.stop
            mask = torch.zeros(1, window, SLOTS, dtype=torch.bool)
            mask[0, : min(window, length - start)] = frames.mask[row, start : min(start + window, length)]
            assert out.mask[row, places].tolist() == [bool(mask.any())] * queries
            if not mask.any():
                continue
            tokens = torch.zeros(1, window, SLOTS, DIM, dtype=torch.float64)
            tokens[mask] = frames.tokens[row][frames.mask[row] & within(start, window, frames)]
            states = projector.window_encoder(tokens, mask)[0]
            torch.testing.assert_close(out.embeddings[row, places], projector.proj(states), rtol=0, atol=1e-12)
            held = frames.spans[row][real & within(start, window, frames)[:, 0]]
            assert out.spans[row, places].tolist() == [[held[0, 0].item(), held[-1, 1].item()]] * queries
        assert not out.mask[row, positions:].any()


def within(start: int, window: int, frames: Frames) -> Tensor:
    places = torch.arange(frames.mask.shape[1])
    return ((places >= start) & (places < start + window))[:, None]


@settings(deadline=None, max_examples=25)
@given(frames=leading_frames(), cut=cuts(), encoder=encoders)
def test_a_clip_alone_is_the_clip_in_a_batch(frames: Frames, cut: tuple[int, int], encoder: str) -> None:
    projector = build(encoder, *cut)
    together = projector(frames)
    for row in range(frames.tokens.shape[0]):
        alone = projector(Frames(*(value[row : row + 1] for value in frames)))
        torch.testing.assert_close(alone.embeddings[0], together.embeddings[row], rtol=0, atol=1e-12)
        assert torch.equal(alone.mask[0], together.mask[row])
        assert torch.equal(alone.spans[0], together.spans[row])


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    rate=frame_rates,
    cut=cuts(),
    encoder=encoders,
)
def test_num_output_tokens_is_what_video_gives(
    lengths: list[int], rate: float, cut: tuple[int, int], encoder: str
) -> None:
    projector = build(encoder, *cut)
    out = projector(
        Frames.from_rate(torch.ones(len(lengths), 30, SLOTS, DIM, dtype=torch.float64), rate, lengths=lengths)
    )
    durations = [length / rate for length in lengths]
    found = projector.num_output_tokens(durations, frame_rate=rate)
    assert found.dtype == torch.int64
    assert found.tolist() == out.mask.sum(1).tolist()
    assert torch.equal(projector.num_tokens_of_frames(torch.tensor(lengths)), found)
    assert int(projector.num_output_tokens(durations[0], frame_rate=rate)) == found[0]
    # A duration that a container rounded to microseconds, up or down, counts the same.
    for nudge in (-9e-7, 9e-7):
        near = [max(duration + nudge, 0.0) for duration in durations]
        assert projector.num_output_tokens(near, frame_rate=rate).tolist() == found.tolist()


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=3), rate=st.sampled_from([1.0, 2.0, 5.0, 10.0, 25.0]))
def test_num_output_tokens_is_what_sound_gives(lengths: list[int], rate: float) -> None:
    """Where a frame holds a whole number of tokens, so that no edge cuts a token in two."""
    projector = SlidingWindowProjector(window_encoder=MeanOfWindow(), window_frames=3, llm_dim=2)
    sound = torch.ones(len(lengths), 90, DIM)
    synchronise = FrameSynchroniser(visual_dim=None, stream_dims={"audio": DIM}, frame_rate=rate, slots=50)
    real = torch.arange(90) < torch.tensor(lengths)[:, None]
    stream = synchronise.as_stream("audio", sound)._replace(mask=real)
    out = projector(synchronise(audio=stream))
    durations = [length / 50 for length in lengths]
    assert projector.num_output_tokens(durations, frame_rate=rate).tolist() == out.mask.sum(1).tolist()


@settings(deadline=None, max_examples=40)
@given(length=st.integers(1, 60), rate=frame_rates)
def test_num_output_tokens_is_never_too_few_for_sound(length: int, rate: float) -> None:
    """An edge through the last token counts one frame more than the token's centre needs, at most."""
    projector = SlidingWindowProjector(window_encoder=MeanOfWindow(), window_frames=1, llm_dim=2)
    synchronise = FrameSynchroniser(visual_dim=None, stream_dims={"audio": DIM}, frame_rate=rate, slots=60)
    frames = synchronise(audio=torch.ones(1, length, DIM)).tokens.shape[1]
    upper = int(projector.num_output_tokens(length / 50, frame_rate=rate))
    assert frames <= upper <= frames + math.ceil(rate * 0.01)


def test_num_output_tokens_refuses() -> None:
    projector = build("mean", 2)
    for durations in ([-1.0], [float("nan")], float("inf")):
        with pytest.raises(InvalidValueError, match=r"durations: must be finite and at least 0 seconds, found"):
            projector.num_output_tokens(durations)
    with pytest.raises(InvalidValueError, match=r"frame_rate: must be a positive, finite number"):
        projector.num_output_tokens([1.0], frame_rate=-2.0)


def test_hours_long_clips_are_counted_exactly() -> None:
    projector = build("mean", 1)
    seconds = torch.tensor([3600.0, 36000.0], dtype=torch.float64) + 0.0001
    assert projector.num_output_tokens(seconds, frame_rate=25.0).tolist() == [90001, 900001]


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_no_frames_give_no_positions_but_gradients(encoder: str) -> None:
    projector = build(encoder, 3)
    out = projector(Frames.empty(2, SLOTS, DIM, dtype=torch.float64))
    assert out.embeddings.shape == (2, 0, 5)
    assert out.window_mask.shape == (0,)
    out.embeddings.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in projector.parameters())


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_wholly_masked_clips_have_finite_gradients(encoder: str) -> None:
    projector = build(encoder, 3)
    tokens = torch.full((2, 4, SLOTS, DIM), torch.nan, dtype=torch.float64)
    out = projector(Frames.from_rate(tokens.requires_grad_(), 2.0, lengths=[0, 0]))
    assert not out.mask.any()
    check_padding(out)
    out.embeddings.sum().backward()
    assert not tokens.grad.any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in projector.parameters())


@pytest.mark.parametrize("fine", [False, True])
def test_instruction_goes_to_each_window_of_its_clip(fine: bool) -> None:
    encoder = qformer(2, instruction_dim=3)
    kind, parts = (MultiResolutionProjector, {"fine_num_queries": 1}) if fine else (SlidingWindowProjector, {})
    projector = kind(window_encoder=encoder, window_frames=2, llm_dim=5, **parts).double()
    frames = Frames.from_rate(torch.randn(2, 5, SLOTS, DIM, dtype=torch.float64), 2.0)
    instruction = torch.randn(2, 4, 3, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    together = projector(frames, instruction=instruction, instruction_mask=mask)
    for row, words in enumerate((4, 2)):
        one = Frames(*(value[row : row + 1] for value in frames))
        alone = projector(one, instruction=instruction[row : row + 1, :words])
        torch.testing.assert_close(alone.embeddings[0], together.embeddings[row], rtol=0, atol=1e-12)
    instruction[~mask] = torch.nan
    again = projector(frames, instruction=instruction, instruction_mask=mask)
    assert torch.equal(again.embeddings, together.embeddings)


def test_constructor_refuses() -> None:
    with pytest.raises(InvalidTypeError, match=r"window_encoder: must be callable and have num_queries.*found Linear"):
        SlidingWindowProjector(window_encoder=nn.Linear(1, 1))
    with pytest.raises(InvalidValueError, match=r"window_frames: the window encoder takes at most 6, found 7"):
        SlidingWindowProjector(window_encoder=qformer(), window_frames=7)
    with pytest.raises(InvalidValueError, match=r"stride_frames: must be between 1 and window_frames = 4, .*found 5"):
        SlidingWindowProjector(window_encoder=qformer(), window_frames=4, stride_frames=5)


@settings(deadline=None, max_examples=25)
@given(frames=leading_frames(), parts=st.integers(1, 3), fine_window=st.integers(1, 2), overlap=st.booleans())
def test_multi_resolution_is_both_resolutions_side_by_side(
    frames: Frames, parts: int, fine_window: int, overlap: bool
) -> None:
    torch.manual_seed(2)
    window, fine_queries = parts * fine_window, 2
    encoder = qformer(window, queries=parts * fine_queries)
    projector = MultiResolutionProjector(
        window_encoder=encoder,
        window_frames=window,
        stride_frames=1 if overlap else None,
        fine_window_frames=fine_window,
        fine_num_queries=fine_queries,
        llm_dim=5,
    ).double()
    out = projector(frames)
    check_padding(out)
    assert projector.num_queries == parts * fine_queries
    assert out.query_states.shape[2] == projector.states_dim == 8
    windows = projector.cut(frames)
    for index in range(windows.tokens.shape[0]):
        tokens, mask = windows.tokens[index : index + 1], windows.mask[index : index + 1]
        if not mask.any():
            continue
        coarse = encoder(tokens, mask)[0]
        fine = [
            encoder(
                tokens[:, at : at + fine_window], mask[:, at : at + fine_window], queries=projector.fine_query_tokens
            )
            for at in range(0, window, fine_window)
        ]
        wanted = torch.cat([torch.cat(fine, 1)[0], coarse], -1)
        torch.testing.assert_close(out.query_states[index], wanted, rtol=0, atol=1e-12)
        row, k = divmod(index, windows.window_mask.shape[1])
        positions = slice(k * projector.num_queries, (k + 1) * projector.num_queries)
        torch.testing.assert_close(out.embeddings[row, positions], projector.proj(wanted), rtol=0, atol=1e-12)


def test_multi_resolution_takes_other_encoders_and_touches_every_parameter() -> None:
    projector = MultiResolutionProjector(
        window_encoder=MLPResampler(), window_frames=3, fine_window_frames=1, fine_num_queries=1, llm_dim=5
    )
    for frames in (Frames.from_rate(torch.randn(2, 4, SLOTS, DIM), 2.0, lengths=[4, 2]), Frames.empty(2, SLOTS, DIM)):
        projector.zero_grad()
        out = projector(frames)
        check_padding(out)
        out.embeddings.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in projector.parameters())


def test_multi_resolution_refuses() -> None:
    with pytest.raises(InvalidValueError, match=r"fine_window_frames: must divide window_frames = 6, found 4"):
        MultiResolutionProjector(window_encoder=qformer(), window_frames=6, fine_window_frames=4)
    with pytest.raises(InvalidValueError, match=r"fine_window_frames: must divide window_frames = 6, found 0"):
        MultiResolutionProjector(window_encoder=qformer(), window_frames=6, fine_window_frames=0)
    with pytest.raises(InvalidValueError, match=r"fine_num_queries: 6 parts a window must give the encoder's 2 states"):
        MultiResolutionProjector(window_encoder=qformer(), window_frames=6, fine_num_queries=1)


@pytest.mark.parametrize("encoder", ["qformer"])
def test_compiles_whole_and_once_for_all_lengths(encoder: str) -> None:
    torch._dynamo.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    projector = build(encoder, 3, 2).eval()
    compiled = torch.compile(projector, fullgraph=True, backend=count, dynamic=True)
    for length in (7, 4, 9, 12):
        tokens = torch.randn(2, length, SLOTS, DIM, dtype=torch.float64)
        frames = Frames.from_rate(tokens, 2.0, lengths=[length, 2])
        for one, two in zip(compiled(frames), projector(frames), strict=True):
            torch.testing.assert_close(one, two)
    assert len(graphs) == 1
