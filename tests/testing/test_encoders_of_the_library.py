"""All of avfusion.encoders, frozen and trained, is what the Protocols ask; so are the window encoders."""

from typing import Any

import pytest
import torch

from avfusion import CausalQFormer
from avfusion.testing import (
    check_streaming_window_encoder,
    check_token_stream_encoder,
    check_visual_encoder,
    check_window_encoder,
)
from tests.encoders import tiny

SHARED = ("padding", "absent", "batch", "gradients", "dtype")


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", tiny.AUDIO)
def test_audio_encoders_fit(name: str, frozen: bool) -> None:
    encoder = tiny.AUDIO[name](frozen=frozen).train()
    wanted = ("protocol", "output", "device", "repeatable", "order", "start", *SHARED, "clock")
    assert check_token_stream_encoder(encoder) == (*wanted, *(["timeline"] if hasattr(encoder, "timeline") else []))
    assert encoder.training is not frozen  # the mode is put back


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_audio_encoders_fit_on_sound_of_one_s_own(name: str) -> None:
    wave = tiny.clips(40000, 0, 90, 12345)._replace(start=torch.tensor([-2.0, 0, 0.01, 7000], dtype=torch.float64))
    check_token_stream_encoder(tiny.AUDIO[name](), tiny.spoil(wave), dtypes=())


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", tiny.VISUAL)
def test_visual_encoders_fit(name: str, frozen: bool) -> None:
    wanted = ("protocol", "output", "device", "repeatable", "frames", "spans", *SHARED, "range")
    assert check_visual_encoder(tiny.VISUAL[name](frozen=frozen)) == wanted


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_visual_encoders_fit_on_films_of_one_s_own(name: str) -> None:
    check_visual_encoder(tiny.VISUAL[name](), tiny.film(4, 1), dtypes=())


@pytest.mark.parametrize(
    "options", [{}, {"causal_direction": None}, {"num_queries": 1}, {"attn_implementation": "eager"}]
)
def test_the_causal_qformer_fits(options: dict[str, Any]) -> None:
    sizes = {"input_dim": 24, "hidden_size": 16, "num_heads": 2, "num_queries": 3, "window_frames": 5}
    qformer = CausalQFormer(**{**sizes, "tokens_per_frame": 4, **options}).train()
    assert "shared frames" in check_window_encoder(qformer)
    check_streaming_window_encoder(qformer)
    assert qformer.training
