"""The published sizes, on the meta device: parameters and tokens are what arithmetic says."""

import pytest
import torch

from avfusion import AudioVisualConnector, CausalQFormer, Frames, SlidingWindowProjector

VICUNA = {"7B": 4096, "13B": 5120}
WHISPER, VISUAL, FUSED, HIDDEN, INNER = 1280, 768, 1536, 768, 3072


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def norm(width: int) -> int:
    return 2 * width


def qformer_parameters(*, layers: int = 2, queries: int = 32, positions: int = 320) -> int:
    causal = 4 * linear(FUSED, FUSED) + norm(FUSED)
    own = 4 * linear(HIDDEN, HIDDEN) + norm(HIDDEN)
    cross = 2 * linear(HIDDEN, HIDDEN) + 2 * linear(FUSED, HIDDEN) + norm(HIDDEN)
    forward = linear(HIDDEN, INNER) + linear(INNER, HIDDEN) + norm(HIDDEN)
    embeddings = norm(FUSED) + positions * FUSED + queries * HIDDEN + norm(HIDDEN)
    return embeddings + layers * (causal + own + cross + forward)


def count(module: torch.nn.Module) -> int:
    assert all(parameter.is_meta for parameter in module.parameters())
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("size", VICUNA)
def test_parameters_and_tokens_of_the_published_connector(size) -> None:
    with torch.device("meta"):
        connector = AudioVisualConnector(projector=SlidingWindowProjector(llm_dim=VICUNA[size]))
        if size == "7B":
            connector = AudioVisualConnector()
    encoder = connector.projector.window_encoder
    assert count(encoder) == qformer_parameters()
    assert count(connector) == linear(WHISPER, VISUAL) + qformer_parameters() + linear(HIDDEN, VICUNA[size])
    assert connector.llm_dim == VICUNA[size]
    assert connector.num_output_tokens([30.0, 5.0, 5.1, 0.0]).tolist() == [192, 32, 64, 0]


@pytest.mark.parametrize("size", VICUNA)
def test_windows_of_thirty_seconds_through_the_dense_core(size) -> None:
    with torch.device("meta"):
        qformer, proj = CausalQFormer().eval(), torch.nn.Linear(HIDDEN, VICUNA[size])
        tokens = torch.empty(6, 10, 32, FUSED, dtype=torch.float32)
        mask = torch.ones(6, 10, 32, dtype=torch.bool)
        states = qformer(tokens, mask)
        embeddings = proj(states)
    assert states.shape == (6, 32, HIDDEN)
    assert embeddings.shape == (6, 32, VICUNA[size])


def test_thirty_seconds_through_the_projector() -> None:
    frames = Frames.from_rate(torch.empty(1, 60, 32, FUSED, device="meta"), frame_rate=2.0)
    with torch.device("meta"):
        projector = SlidingWindowProjector().eval()
    out = projector(frames)
    assert out.embeddings.shape == (1, 192, 4096)
    assert out.spans.shape == (1, 192, 2)
    assert out.query_states.shape == (6, 32, HIDDEN)


def test_half_the_bytes_in_half_precision() -> None:
    with torch.device("meta"):
        qformer = CausalQFormer().to(torch.bfloat16)
        out = qformer(torch.empty(1, 10, 32, FUSED, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in qformer.parameters()} == {torch.bfloat16}
