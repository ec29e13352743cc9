"""Each way in which a window encoder may not fit is found, and named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avfusion import CausalQFormer, ConformanceError, InvalidValueError, SlidingWindowProjector
from avfusion.testing import check_streaming_window_encoder, check_window_encoder
from tests.testing.parts import Pool


class WithoutQueries(Pool):
    num_queries = None


class ThreeQueries(Pool):
    num_queries = 3


class Nothing(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Any:
        return None


class DividesByZero(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = super().forward(tokens, mask)
        return states / (mask.flatten(1).sum(1) - 4)[:, None, None]


class Noisy(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens, mask) + torch.rand(())


class NormalisesOverWindows(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = super().forward(tokens, mask)
        return states - states.mean(0)


class CountsMasked(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens, torch.ones_like(mask))


class WholeWindows(Pool):
    """Attends by place, to masked tokens of zeros too, and takes no other lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(5, 4, 8))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens + self.place, torch.ones_like(mask))


class ClaimsShort(WholeWindows):
    frame_multiple = 1


class ClaimsToShare(Pool):
    def forward(self, tokens: Tensor, mask: Tensor, *, frame_index: Tensor | None = None) -> Tensor:
        return super().forward(tokens, mask)


class OwnQueriesOnly(Pool):
    def forward(self, tokens: Tensor, mask: Tensor, *, queries: Tensor | None = None) -> Tensor:
        return super().forward(tokens, mask)


class HearsPadding(Pool):
    instruction_dim = 3

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        *,
        instruction: Tensor | None = None,
        instruction_mask: Tensor | None = None,
    ) -> Tensor:
        states = super().forward(tokens, mask)
        return states if instruction is None else states + instruction.mean((1, 2))[:, None, None]


class HearsAll(HearsPadding):
    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        *,
        instruction: Tensor | None = None,
        instruction_mask: Tensor | None = None,
    ) -> Tensor:
        states = Pool.forward(self, tokens, mask)
        if instruction is not None and instruction_mask is not None:
            instruction = torch.where(instruction_mask[..., None], instruction, 0)
        return states if instruction is None else states + instruction.mean()


class OneArgument(Pool):
    def forward(self, tokens: Tensor) -> Any:
        return tokens


class NaNWhereNothingIsReal(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        mean = tokens.sum((1, 2)) / mask.sum((1, 2))[:, None]
        return torch.stack([mean, mean], 1)


class NaNInTheGradient(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = super().forward(tokens, mask)
        return states / states.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-6)


class FailsWithoutWindows(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens, mask).reshape(len(tokens), -1, 8)


class Detached(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens.detach(), mask)


class Float32(Pool):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens, mask).float()


BROKEN = [
    (WithoutQueries, "protocol", r"num_queries must be a whole number of at least 1, found None"),
    (ThreeQueries, "output", r"must be \(window, num_queries, output_dim\) = \(4, 3, 8\), found shape \(4, 2, 8\)"),
    (Nothing, "output", r"found NoneType"),
    (DividesByZero, "output", r"states must be finite, found NaN or infinity"),
    (Noisy, "repeatable", r"the same states in evaluation mode, found a difference"),
    (NormalisesOverWindows, "independence", r"beside others what it gives alone, found a difference of .* in window 0"),
    (CountsMasked, "masked", r"what the window without them gives, found a difference of .*leave masked tokens out"),
    (WholeWindows, "masked", r"must not count as tokens of zeros, found the same states whatever the mask says"),
    (ClaimsShort, "masked", r"the window without them gives, found RuntimeError"),
    (OneArgument, "protocol", r"must be a WindowEncoder, found none of a 2nd argument of its call; name the arguments"),
    (OwnQueriesOnly, "query sets", r"3 queries must give states of shape \(4, 3, 8\), found shape \(4, 2, 8\)"),
    (HearsPadding, "conditioning", r"masked tokens of an instruction must not matter, found a difference of nan"),
    (HearsAll, "conditioning", r"a window's instruction must reach no other window, found a difference of"),
    (ClaimsToShare, "shared frames", r"masked places may hold anything, found a difference of nan; clear them first"),
    (
        NaNWhereNothingIsReal,
        "nothing real",
        r"must give finite states and gradients, found NaN or infinity in the states",
    ),
    (NaNInTheGradient, "nothing real", r"found NaN or infinity in the gradient; divide by a count of at least 1"),
    (FailsWithoutWindows, "no windows", r"states of shape \(0, 2, 8\), found RuntimeError: cannot reshape"),
    (Detached, "gradients", r"must reach the tokens, or nothing in front of the encoder learns, found none"),
    (Float32, "dtype", r"states of torch\.bfloat16 tokens must be torch\.bfloat16, found torch\.float32"),
]


def test_a_pool_that_fits_passes_and_serves_a_projector() -> None:
    assert check_window_encoder(Pool())[-1] == "dtype"
    assert SlidingWindowProjector(window_encoder=Pool(), window_frames=5, llm_dim=4).num_queries == 2


@pytest.mark.parametrize(("broken", "name", "message"), BROKEN, ids=[broken.__name__ for broken, *_ in BROKEN])
def test_what_is_wrong_is_named(broken: type[Pool], name: str, message: str) -> None:
    with pytest.raises(ConformanceError, match=f'^{broken.__name__} breaks "{name}": .*{message}'):
        check_window_encoder(broken())


def test_a_frozen_encoder_fits_and_one_without_parameters() -> None:
    class Mean(nn.Module):
        num_queries, output_dim = 1, 3

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            return tokens.sum((1, 2))[:, None] / mask.sum((1, 2)).clamp(min=1)[:, None, None]

    check_window_encoder(Pool().requires_grad_(False))
    check_window_encoder(Mean(), input_dim=3, tokens_per_frame=1, window_frames=1)
    with pytest.raises(InvalidValueError, match=r"input_dim: must be given for Mean, which has no input_dim"):
        check_window_encoder(Mean())


def qformer(kind: type[CausalQFormer] = CausalQFormer) -> CausalQFormer:
    return kind(input_dim=24, hidden_size=16, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4)


class UnnamedState(CausalQFormer):
    def initial_state(self, batch_size: int = 1) -> Any:
        return {"state": super().initial_state(batch_size)}


class RowsLast(CausalQFormer):
    def initial_state(self, batch_size: int = 1) -> Any:
        state = super().initial_state(batch_size)
        return state._replace(mask=torch.zeros(2, batch_size, dtype=torch.bool))


class ForgetsTheMask(CausalQFormer):
    def step(self, tokens: Tensor, state: Any, *, mask: Any = None, lengths: Any = None) -> Any:
        return super().step(tokens, state)


class WritesIntoTheState(CausalQFormer):
    def step(self, tokens: Tensor, state: Any, *, mask: Any = None, lengths: Any = None) -> Any:
        _, after = super().step(tokens, state, mask=mask)
        state.num_frames.add_(1)
        return None, after


class SharesRows(CausalQFormer):
    def flush(self, state: Any, **conditioning: Any) -> Tensor:
        states = super().flush(state, **conditioning)
        return states + 0.1 * (len(states) - 4)


class OtherStep(CausalQFormer):
    def step(self, tokens: Tensor, state: Any, lengths: Any = None) -> Any:
        return super().step(tokens, state)


STREAMS = [
    (OtherStep, "protocol", r"must be a StreamingWindowEncoder, found none of the argument mask of step; a stream can"),
    (Pool, "protocol", r"must be a StreamingWindowEncoder, found none of initial_state, step, flush; a stream can use"),
    (UnnamedState, "state", r"first axis is the row, found InvalidTypeError: state: must be a tree of tuples"),
    (RowsLast, "state", r"found mask of shape \(2, 4\) for 4 rows"),
    (ForgetsTheMask, "stream", r"the call gives for the frames so far, found a difference of .* after 5 of 5 frames"),
    (WritesIntoTheState, "snapshot", r"must not change the state that it gets, found another num_frames; make new"),
    (SharesRows, "rows", r"must give what they gave among others, found a difference of 0\.2"),
]


@pytest.mark.parametrize(("broken", "name", "message"), STREAMS, ids=[broken.__name__ for broken, *_ in STREAMS])
def test_what_is_wrong_with_a_stream_is_named(broken: Any, name: str, message: str) -> None:
    part = Pool() if broken is Pool else qformer(broken)
    with pytest.raises(ConformanceError, match=f'^{broken.__name__} breaks "{name}": .*{message}'):
        check_streaming_window_encoder(part)
