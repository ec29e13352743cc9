"""Encoders and window encoders are on the GPU what the Protocols ask, and values wait for no device."""

from typing import Any

import pytest
import torch

from avfusion import CausalQFormer, Frames, TokenStream, Video, Waveform
from avfusion.testing import (
    check_streaming_window_encoder,
    check_token_stream_encoder,
    check_visual_encoder,
    check_window_encoder,
)
from tests.device.best import needs_gpu
from tests.device.parts import projector
from tests.encoders import tiny

pytestmark = needs_gpu


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_audio_encoders(name: str) -> None:
    check_token_stream_encoder(tiny.AUDIO[name]().cuda())


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_visual_encoders(name: str) -> None:
    check_visual_encoder(tiny.VISUAL[name]().cuda())


@pytest.mark.parametrize("options", [{}, {"causal_direction": None}, {"attn_implementation": "eager"}])
def test_window_encoders(options: dict[str, Any]) -> None:
    sizes = {"input_dim": 24, "hidden_size": 16, "num_heads": 2, "num_queries": 3, "window_frames": 5}
    encoder = CausalQFormer(**{**sizes, "tokens_per_frame": 4, **options}).cuda()
    check_window_encoder(encoder)
    check_streaming_window_encoder(encoder)


@pytest.fixture
def _no_waiting() -> Any:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_no_waiting")
def test_values_are_made_without_waiting_for_the_device() -> None:
    tokens = torch.zeros(2, 6, 3, 4, device="cuda")
    mask = torch.ones(2, 6, 3, dtype=torch.bool, device="cuda")
    spans = torch.zeros(2, 6, 2, dtype=torch.float64, device="cuda")
    Frames(tokens, mask, spans)
    TokenStream(tokens[:, :, 0], mask[:, :, 0], spans[..., 0])
    Video(torch.zeros(2, 6, 3, 4, 4, device="cuda"), mask[:, :, 0], spans)
    Waveform(tokens[:, :, 0, 0], mask[:, :, 0], 16000, spans[:, 0, 0])
    Frames.from_rate(tokens, 2.0)
    TokenStream.from_rate(tokens[:, :, 0], 50.0)


@pytest.mark.parametrize("grad", [False, True])
def test_the_dense_core_does_not_wait_for_the_device(grad: bool) -> None:
    encoder = projector().window_encoder.cuda().bfloat16()
    tokens = torch.randn(3, 10, 32, 128, device="cuda", dtype=torch.bfloat16)
    with torch.set_grad_enabled(grad):
        encoder(tokens)  # masks are made once
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            states = encoder(tokens)
            if grad:
                states.square().mean().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
