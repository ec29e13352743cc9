"""What a window encoder offers is seen in its signature, used if it is there, and missed by name if it is needed."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avfusion import (
    CausalQFormer,
    ConditionedWindowEncoder,
    Frames,
    InvalidTypeError,
    InvalidValueError,
    MultiResolutionProjector,
    QuerySetWindowEncoder,
    SharedFrameWindowEncoder,
    ShortWindowEncoder,
    SlidingWindowProjector,
    StreamingWindowEncoder,
    WindowEncoder,
)
from avfusion.testing import check_streaming_window_encoder, check_window_encoder
from avfusion.types.state import put_rows

PROTOCOLS: dict[str, type] = {
    "instruction": ConditionedWindowEncoder,
    "frame_index": SharedFrameWindowEncoder,
    "queries": QuerySetWindowEncoder,
    "short": ShortWindowEncoder,
    "stream": StreamingWindowEncoder,
}
SLOTS, DIM, FRAMES = 2, 3, 4


class Mean(nn.Module):
    """The mean of what is real, plus the mean of what is said: a state for each query, with the query added."""

    num_queries, output_dim = 2, DIM

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(2, DIM, dtype=torch.float64))
        self.calls: list[dict[str, Any]] = []

    def compute(self, tokens: Tensor, mask: Tensor | None, **named: Any) -> Tensor:
        self.calls.append(named)
        index, queries, said = named.get("frame_index"), named.get("queries"), named.get("instruction")
        tokens = tokens if index is None else tokens[index]
        mask = torch.ones(tokens.shape[:3], dtype=torch.bool) if mask is None else mask
        mean = torch.where(mask[..., None], tokens, 0).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)[:, None]
        states = mean[:, None] + (self.own if queries is None else queries)
        if said is None:
            return states
        heard = named["instruction_mask"]
        heard = torch.ones(said.shape[:2], dtype=torch.bool) if heard is None else heard
        return states + torch.where(heard[..., None], said, 0).sum(1, keepdim=True)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.compute(tokens, mask)


def offering(names: set[str]) -> Mean:
    """An encoder whose call names these arguments, and no others."""
    keywords = [name for name in ("instruction", "frame_index", "queries") if name in names]
    keywords += ["instruction_mask"] if "instruction" in names else []
    arguments = "".join(f", {name}=None" for name in keywords)
    given = "".join(f", {name}={name}" for name in keywords)
    body: dict[str, Any] = {}
    exec(
        f"def forward(self, tokens, mask{', *' if keywords else ''}{arguments}):\n"
        f"    return self.compute(tokens, mask{given})\n",
        body,
    )
    members: dict[str, Any] = {"forward": body["forward"]}
    if "instruction" in names:
        members["instruction_dim"] = DIM
    if "short" in names:
        members["frame_multiple"] = 1
    if "stream" in names:
        members |= {"initial_state": Stream.initial_state, "step": Stream.step, "flush": Stream.flush}
    return type("Offering", (Mean,), members)()


class Stream:
    """The window's tokens, kept."""

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch_size, 0, SLOTS, DIM, dtype=torch.float64), torch.zeros(
            batch_size, 0, SLOTS, dtype=torch.bool
        )

    def step(self: Any, tokens: Tensor, state: Any, *, mask: Tensor | None = None) -> Any:
        mask = torch.ones(tokens.shape[:3], dtype=torch.bool) if mask is None else mask
        return None, (torch.cat([state[0], tokens], 1), torch.cat([state[1], mask], 1))

    def flush(self: Any, state: Any, **conditioning: Tensor) -> Tensor:
        tokens: Tensor = torch.where(state[1][..., None], state[0], 0)
        return self(tokens, state[1], **conditioning)


def clips(lengths: tuple[int, ...] = (9, 5)) -> Frames:
    return Frames.from_rate(torch.randn(2, 9, SLOTS, DIM, dtype=torch.float64), 2.0, lengths=list(lengths))


def plain(encoder: Mean) -> Mean:
    """The same encoder, offering nothing."""
    other = Mean()
    other.load_state_dict(encoder.state_dict())
    return other


offers = st.sets(st.sampled_from(sorted(PROTOCOLS)))


@given(names=offers, stride=st.sampled_from([1, 2, 4]), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=200)
@torch.no_grad()
def test_whatever_is_offered_the_result_is_the_same_and_only_that_is_asked_for(names, stride, seed) -> None:
    torch.manual_seed(seed)
    encoder = offering(names)
    for name, protocol in PROTOCOLS.items():
        assert isinstance(encoder, protocol) == (name in names)
    sizes: dict[str, Any] = {"window_frames": FRAMES, "stride_frames": stride, "llm_dim": 5}
    projector = SlidingWindowProjector(window_encoder=encoder, **sizes).double()
    other = SlidingWindowProjector(window_encoder=plain(encoder), **sizes).double()
    other.load_state_dict(projector.state_dict())
    frames, wanted = clips(), other(clips())
    wanted = other(frames)
    torch.testing.assert_close(projector(frames).embeddings, wanted.embeddings, rtol=0, atol=1e-10)
    assert any("frame_index" in call and call["frame_index"] is not None for call in encoder.calls) == (
        "frame_index" in names and stride < FRAMES
    )
    state, found = projector.initial_state(2), []
    for start in range(0, 9, 2):
        out, state = projector.step(Frames(*(value[:, start : start + 2] for value in frames)), state)
        found.append(out.finished)
    found.append(projector.flush(state).finished)
    for row in range(2):
        streamed = torch.cat([each.embeddings[row][each.mask[row]] for each in found])
        torch.testing.assert_close(streamed, wanted.embeddings[row][wanted.mask[row]], rtol=0, atol=1e-10)
    words = torch.randn(2, 3, DIM, dtype=torch.float64)
    if "instruction" in names:
        assert not torch.equal(projector(frames, instruction=words).embeddings, wanted.embeddings)
        return
    message = r"instruction: the window encoder must be a ConditionedWindowEncoder to take one, found Offering without "
    with pytest.raises(InvalidValueError, match=message + "instruction_dim, the argument instruction of its call"):
        projector(frames, instruction=words)
    with pytest.raises(InvalidValueError, match=r"^instruction: the window encoder must be"):
        projector.flush(projector.step(frames, projector.initial_state(2))[1], instruction=words)


@given(names=offers)
@settings(deadline=None, max_examples=40)
@torch.no_grad()
def test_two_resolutions_need_other_queries_and_use_what_else_there_is(names) -> None:
    encoder = offering(names)
    sizes: dict[str, Any] = {"window_frames": 4, "stride_frames": 2, "fine_window_frames": 2, "llm_dim": 5}
    if "queries" not in names:
        message = r"window_encoder: must be a QuerySetWindowEncoder, found Offering without the argument queries of its"
        with pytest.raises(InvalidTypeError, match=message):
            MultiResolutionProjector(window_encoder=encoder, fine_num_queries=1, **sizes)
        return
    projector = MultiResolutionProjector(window_encoder=encoder, fine_num_queries=1, **sizes).double()
    for name in ("instruction", "short", "stream"):
        assert isinstance(projector.window_encoder, PROTOCOLS[name]) == (name in names)
    names_checked = check_window_encoder(projector.window_encoder, input_dim=DIM, tokens_per_frame=SLOTS, dtypes=())
    assert ("conditioning" in names_checked) == ("instruction" in names)
    if "stream" in names:
        check_streaming_window_encoder(projector.window_encoder, input_dim=DIM, tokens_per_frame=SLOTS)


@pytest.mark.parametrize("said", [False, True])
@torch.no_grad()
def test_parts_are_read_under_the_instruction_of_the_step_that_finishes_them(said) -> None:
    qformer = CausalQFormer(
        input_dim=DIM, hidden_size=4, num_heads=1, num_queries=2, window_frames=4, tokens_per_frame=SLOTS,
        instruction_dim=3,
    )  # fmt: skip
    projector = MultiResolutionProjector(
        window_encoder=qformer, window_frames=4, fine_window_frames=2, fine_num_queries=1, llm_dim=5
    )
    projector = projector.double().eval()
    frames = Frames.from_rate(torch.randn(1, 4, SLOTS, DIM, dtype=torch.float64), 2.0)
    first, last = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    _, state = projector.step(
        Frames(*(value[:, :3] for value in frames)), projector.initial_state(), instruction=first if said else None
    )
    out, _ = projector.step(Frames(*(value[:, 3:] for value in frames)), state, instruction=last)
    wanted = projector(frames, instruction=last).embeddings
    torch.testing.assert_close(out.finished.embeddings, wanted, rtol=0, atol=1e-10)


@torch.no_grad()
def test_rows_of_two_resolutions_may_have_different_numbers_of_frames() -> None:
    qformer = CausalQFormer(
        input_dim=DIM, hidden_size=4, num_heads=1, num_queries=4, window_frames=4, tokens_per_frame=SLOTS
    )
    projector = MultiResolutionProjector(
        window_encoder=qformer, window_frames=4, fine_window_frames=2, fine_num_queries=2, llm_dim=5
    )
    encoder: Any = projector.double().eval().window_encoder
    tokens = torch.randn(3, 4, SLOTS, DIM, dtype=torch.float64)
    state = encoder.step(tokens[:, :1], encoder.initial_state(3))[1]
    ahead = encoder.step(tokens[:1, 1:3], encoder.step(tokens[:1, :1], encoder.initial_state(1))[1])[1]
    state = put_rows(state, torch.tensor([1]), ahead)
    rest = torch.stack([tokens[0, 1], tokens[0, 3], tokens[2, 1]])[:, None]
    state = encoder.step(rest, state)[1]
    found = encoder.flush(state)
    assert state.num_frames.tolist() == [2, 4, 2]
    torch.testing.assert_close(found[0], encoder(tokens[:1, :2])[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(found[1], encoder(tokens[:1])[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(found[2], encoder(tokens[2:, :2])[0], rtol=0, atol=1e-10)


def test_names_of_methods_alone_make_no_stream() -> None:
    class Trainer(Mean):
        def initial_state(self) -> None: ...

        def step(self, closure: Any) -> None: ...

        def flush(self) -> None: ...

    assert isinstance(Trainer(), WindowEncoder)
    assert not isinstance(Trainer(), StreamingWindowEncoder)
    projector = SlidingWindowProjector(window_encoder=Trainer(), window_frames=4, llm_dim=5).double()
    out, _ = projector.step(clips(), projector.initial_state(2))  # gets whole windows
    assert out.finished.mask.sum() == 4 * 2


def test_arguments_that_would_be_lost_are_no_offer() -> None:
    class Loose(Mean):
        def forward(self, tokens: Tensor, mask: Tensor, **named: Any) -> Tensor:
            return self.compute(tokens, mask)

    assert isinstance(Loose(), WindowEncoder)
    assert not any(isinstance(Loose(), protocol) for protocol in PROTOCOLS.values())
    assert not isinstance(nn.Linear(2, 2), WindowEncoder)
    with pytest.raises(
        InvalidTypeError, match="found Linear without num_queries, output_dim, a 2nd argument of its call"
    ):
        SlidingWindowProjector(window_encoder=nn.Linear(2, 2))
