"""What a module makes stands beside its inputs, whatever device new tensors go to by default."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    DiversityLoss,
    Frames,
    FrameSynchroniser,
    SlidingWindowProjector,
    TokenStream,
)


def connector(stride: int | None) -> AudioVisualConnector:
    qformer = CausalQFormer(
        input_dim=16, hidden_size=8, num_heads=2, num_queries=2, window_frames=4, tokens_per_frame=25, instruction_dim=5
    )
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}, slots=25),
        projector=SlidingWindowProjector(window_encoder=qformer, window_frames=4, stride_frames=stride, llm_dim=12),
        input_dims={"audio": 10},
    )


def media() -> dict[str, Any]:
    return {
        "visual": Frames.from_rate(torch.randn(2, 7, 16, 8), 2.0, lengths=[7, 4]),
        "audio": TokenStream.from_rate(torch.randn(2, 168, 10), 50.0),
    }


@pytest.fixture
def _elsewhere() -> Iterator[None]:
    """New tensors have no values, so that none of them can be computed with."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.parametrize("missing", [None, "visual", "audio"])
def test_forward_and_backward(request: pytest.FixtureRequest, stride: int | None, missing: str | None) -> None:
    module, words, words_mask = connector(stride), torch.randn(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)
    given = {name: value for name, value in media().items() if name != missing}
    request.getfixturevalue("_elsewhere")
    out = module(**given, instruction=words, instruction_mask=words_mask)
    loss = out.embeddings.square().mean() + DiversityLoss()(out.query_states, out.mask[:, ::2].flatten())
    loss.backward()
    assert loss.device.type == "cpu"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("stride", [None, 2])
@torch.inference_mode()
def test_streams(request: pytest.FixtureRequest, stride: int | None) -> None:
    module, given = connector(stride).eval(), media()
    visual, audio = given["visual"], given["audio"]
    one, both = torch.tensor([True, False]), torch.tensor([True, True])
    request.getfixturevalue("_elsewhere")
    state, count = module.initial_state(2, max_wait=30.0), 0
    for number in range(7):
        shown, heard = slice(number, number + 1), slice(24 * number, 24 * (number + 1))
        chunk = {
            "visual": Frames(*(value[:, shown] for value in visual)),
            "audio": TokenStream(*(value[:, heard] for value in audio)),
        }
        seen = {"visual": (number + 1) / 2, "audio": 0.48 * (number + 1)}
        out, state = module.step(chunk, state, partial=True, watermark=seen)
        count += int(out.finished.mask.sum())
    count += int(module.flush(state).finished.mask.sum())
    assert count == int(module(**given).mask.sum())
    _, state = module.step({}, state, end=one)
    state = module.reset(state, both)
    assert not module.flush(state).finished.mask.any()
