"""The budget against what torch counts while the real modules run, on no device at all."""

import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import avfusion
from avfusion import CausalQFormer, ConnectorSize, Frames, LanguageModelSize, SlidingWindowProjector, estimate_budget


@settings(max_examples=10)
@given(
    heads=st.integers(1, 3),
    layers=st.integers(1, 3),
    queries=st.integers(1, 5),
    frames=st.integers(1, 4),
    slots=st.integers(1, 5),
    causal=st.booleans(),
)
def test_connector_flops_are_what_torch_counts(heads, layers, queries, frames, slots, causal):
    size = ConnectorSize(
        input_dim=8 * heads,
        hidden_size=4 * heads,
        num_layers=layers,
        num_queries=queries,
        intermediate_size=24,
        window_frames=frames,
        tokens_per_frame=slots,
        causal=causal,
    )
    fields = {name: value for name, value in size._asdict().items() if name not in ("stride_frames", "causal")}
    qformer = CausalQFormer(
        num_heads=heads,
        causal_direction="causal" if causal else None,
        attn_implementation="eager",
        **fields,
    )
    projector = SlidingWindowProjector(window_encoder=qformer, window_frames=frames, llm_dim=12).eval()
    one_window = Frames.from_rate(torch.randn(1, frames, slots, 8 * heads), 2.0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        projector(one_window)
    assert counter.get_total_flops() == size.flops_of_window(12)


@pytest.mark.parametrize("key_value_heads", [1, 4])
def test_prefill_flops_and_cache_are_the_language_models_own(key_value_heads):
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        intermediate_size=48,
        vocab_size=50,
        attn_implementation="eager",
    )
    size, tokens = LanguageModelSize.from_config(config), 7
    model = transformers.LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = model(inputs_embeds=torch.randn(1, tokens, 32), use_cache=True, logits_to_keep=1)
    rotary = 2 * (size.head_dim // 2) * tokens  # the rotary angles are a matrix product too
    assert counter.get_total_flops() == pytest.approx(size.prefill_flops(tokens) + rotary, rel=0.002)
    cached = sum(t.numel() * t.element_size() for layer in out[1].layers for t in (layer.keys, layer.values))
    assert size.cache_bytes(tokens, torch.float32) == cached


@given(
    duration=st.floats(0.01, 4000),
    frame_rate=st.floats(0.1, 60),
    window=st.integers(1, 20),
    stride=st.integers(1, 20),
)
def test_tokens_are_the_projectors(duration, frame_rate, window, stride):
    stride = min(stride, window)
    qformer = CausalQFormer(
        input_dim=4, hidden_size=4, num_heads=1, num_queries=3, window_frames=window, tokens_per_frame=1
    )
    projector = SlidingWindowProjector(window_encoder=qformer, window_frames=window, stride_frames=stride, llm_dim=4)
    size = ConnectorSize(num_queries=3, window_frames=window, stride_frames=stride)
    cost = estimate_budget(duration, frame_rate=frame_rate, connector=size)
    assert cost.num_tokens == int(projector.num_output_tokens(duration, frame_rate=frame_rate))
    assert cost.num_tokens == 3 * cost.num_windows
    assert cost.tokens_per_second == pytest.approx(cost.num_tokens / duration)


def test_more_frames_and_more_overlap_cost_more():
    plain = estimate_budget(60.0)
    for dearer in (
        estimate_budget(60.0, frame_rate=4.0),
        estimate_budget(60.0, connector=ConnectorSize(stride_frames=5)),
        estimate_budget(60.0, connector=ConnectorSize(num_queries=64)),
    ):
        assert dearer.num_tokens > plain.num_tokens
        assert dearer.connector_flops > plain.connector_flops
        assert dearer.prefill_flops > plain.prefill_flops
        assert dearer.cache_bytes > plain.cache_bytes


def test_a_prompt_is_paid_for():
    assert estimate_budget(5.0, prompt_tokens=10).cache_bytes == LanguageModelSize().cache_bytes(32 + 10)


@pytest.mark.parametrize("argument", [{"duration": 0.0}, {"duration": math.inf}, {"duration": 1.0, "frame_rate": -2.0}])
def test_bad_times_are_refused_by_name(argument):
    with pytest.raises(avfusion.InvalidValueError, match=list(argument)[-1]):
        estimate_budget(**argument)


def test_a_config_without_sizes_is_refused_by_name():
    with pytest.raises(avfusion.InvalidValueError, match="num_hidden_layers"):
        LanguageModelSize.from_config(object())
