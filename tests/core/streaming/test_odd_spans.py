"""Which windows of a stream are real does not depend on the times of their frames."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import CausalQFormer, Frames, SlidingWindowProjector


@pytest.mark.parametrize("stride", [3, 2])
@given(
    real=st.lists(st.booleans(), min_size=1, max_size=14),
    steps=st.lists(st.sampled_from([0.0, 0.5]), min_size=14, max_size=14),
    cuts=st.sets(st.integers(1, 13)),
)
@settings(max_examples=200, deadline=None)
def test_frames_of_no_length_and_windows_of_padding(
    stride: int, real: list[bool], steps: list[float], cuts: set[int]
) -> None:
    torch.manual_seed(0)
    encoder = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, num_queries=2, window_frames=3, tokens_per_frame=2)
    projector = SlidingWindowProjector(window_encoder=encoder, window_frames=3, stride_frames=stride, llm_dim=4).eval()
    count = len(real)
    edges = torch.tensor([0.0, *steps[:count]], dtype=torch.float64).cumsum(0)
    frames = Frames(
        torch.randn(1, count, 2, 8),
        torch.tensor(real)[None, :, None].expand(1, -1, 2),
        torch.stack([edges[:-1], edges[1:]], -1)[None],
    )
    with torch.no_grad():
        whole = projector(frames)
        state, parts = projector.initial_state(), []
        bounds = [0, *sorted(cut for cut in cuts if cut < count), count]
        for start, stop in itertools.pairwise(bounds):
            piece = Frames(*(value[:, start:stop] for value in frames))
            out, state = projector.step(piece, state)
            parts.append(out.finished)
        parts.append(projector.flush(state).finished)
    mask, spans, embeddings = (
        torch.cat([getattr(part, name) for part in parts], 1) for name in ("mask", "spans", "embeddings")
    )
    length = mask.shape[1]  # padding behind the last real frame makes no windows in a stream
    assert not whole.mask[:, length:].any()
    assert torch.equal(mask, whole.mask[:, :length])
    assert torch.equal(spans, whole.spans[:, :length])
    torch.testing.assert_close(embeddings, whole.embeddings[:, :length], atol=1e-5, rtol=1e-4)
