"""One table of streams: what is counted before the towers run is what they give, and a fourth stream is one row."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, Wav2Vec2Config

from avfusion import Video, Waveform
from avfusion.models import Clip, conversation
from examples.favor import FavorConfig, FavorForConditionalGeneration
from examples.favor.connector import build_connector
from examples.favor.data import without
from examples.favor.features import cache_settings
from examples.favor.processing_favor import FavorProcessor, shared_options
from examples.favor.streams import STREAMS, media_inputs, sound_stream, unpad_features
from examples.favor.tiny import tiny

Parts = tuple[FavorForConditionalGeneration, FavorProcessor]


@pytest.fixture(scope="module")
def three() -> Parts:
    return tiny("video-salmonn-13b")


def four_streams() -> Parts:
    """Three streams, and a row of the table more."""
    base, processor = tiny("video-salmonn-13b")
    speaker = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(16,) * 7
    )
    config = FavorConfig(**base.config.to_dict() | {"speaker_config": speaker})
    for name, value in shared_options(config).items():
        setattr(processor, name, value)
    torch.manual_seed(0)
    return FavorForConditionalGeneration(config).eval(), processor


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setitem(STREAMS, "speakers", sound_stream("speaker"))
    monkeypatch.setitem(FavorConfig.sub_configs, "speaker_config", AutoConfig)
    return four_streams()


def sound(samples: int, start: float = 0.0) -> Waveform:
    noise = torch.Generator().manual_seed(samples)
    return Waveform.from_samples([0.1 * torch.randn(samples, generator=noise)], 16_000, start=start)


def film(frames: int, rate: float = 2.0) -> Video:
    return Video.from_rate(torch.zeros(1, frames, 3, 28, 28, dtype=torch.uint8), rate)


def places(processor: FavorProcessor, inputs: Any) -> list[int]:
    return (inputs["input_ids"] == processor.placeholder_id).sum(1).tolist()


def given_by(model: FavorForConditionalGeneration, inputs: Any) -> list[int]:
    with torch.no_grad():
        features = model.encode(**{name: inputs[name] for name in media_inputs() if name in inputs})
        return model.get_media_embeddings(**features).mask.sum(1).tolist()


def resized(parts: Parts, **options: Any) -> Parts:
    model, processor = parts
    for name, value in options.items():
        setattr(model.config, name, value)
        setattr(processor, name, value)
    model.connector = build_connector(model.config).eval()
    return parts


clips = st.tuples(st.integers(0, 24_000), st.floats(-1, 3), st.none() | st.integers(1, 9))


@settings(max_examples=200, deadline=None)
@given(
    batch=st.lists(clips.filter(lambda clip: clip[0] or clip[2]), min_size=1, max_size=2),
    rate=st.sampled_from([2.0, 2.5, 3.0, 29.97]),
    window=st.integers(1, 4),
)
def test_places_are_as_many_as_the_towers_and_the_connector_give(
    three: Parts, batch: list[tuple[int, float, int | None]], rate: float, window: int
) -> None:
    model, processor = resized(
        three, frame_rate=rate, window_frames=window, fine_window_frames=None, stride_frames=None
    )
    asked = [
        conversation(
            "a?",
            audio=sound(samples, start) if samples else None,
            video=None if frames is None else film(frames, rate),
        )
        for samples, start, frames in batch
    ]
    inputs = processor.apply_chat_template(asked)
    found = places(processor, inputs)
    if "media_index" not in inputs:
        assert found == given_by(model, inputs)


def test_sound_shorter_than_a_token_of_the_third_tower_is_counted_to_where_it_is(three: Parts) -> None:
    model, processor = resized(three, frame_rate=29.97, window_frames=1, fine_window_frames=None)
    inputs = processor.apply_chat_template(conversation("a?", audio=sound(100)))
    # Whisper's token is at 10 ms, AST's at 87.5 ms: in the first frame and in the third.
    assert places(processor, inputs) == given_by(model, inputs) == [2 * 4]


@pytest.mark.parametrize("longest", [*STREAMS])
def test_kept_tokens_of_any_stream_may_run_longer_than_the_others(three: Parts, longest: str) -> None:
    model, processor = resized(three, frame_rate=2.0, window_frames=4, fine_window_frames=None)
    inputs = processor.apply_chat_template([conversation("a?", video=film(6), audio=sound(48_000))])
    with torch.no_grad():
        features = unpad_features(model.encode(**{n: inputs[n] for n in media_inputs() if n in inputs}), 0)
    for name, stream in STREAMS.items():
        kept = int(len(features[stream.tokens]) * (1 if name == longest else 0.4))
        features |= {part: features[part][:kept] for part in (stream.tokens, stream.times)}
    kept_clip = Clip(None, None, None, features)
    asked = processor.apply_chat_template(conversation("a?", video=kept_clip))
    assert places(processor, asked) == [2 * 4]  # three seconds are six frames in two windows
    model(**asked)  # refuses another number


def test_a_fourth_stream_is_one_row(four: Parts, tmp_path: Path) -> None:
    model, processor = four
    assert list(model.connector.synchroniser.dims) == ["visual", "audio", "events", "speakers"]
    assert "speaker_encoder" in model.towers
    answer = {"role": "assistant", "content": "yes"}
    asked = [
        [*conversation("a?", video=film(5), audio=sound(30_000)), answer],
        [*conversation("b?", audio=sound(12_345)), answer],
        [*conversation("c?", video=film(3)), answer],
    ]
    inputs = processor.apply_chat_template(asked, return_labels=True)
    out = model(**inputs)
    out.loss.backward()
    with torch.no_grad():
        features = model.encode(**{name: inputs[name] for name in media_inputs() if name in inputs})
        assert {"speaker_features", "speaker_mask", "speaker_times"} <= features.keys()
        plain = model(**inputs).logits
        text = {name: value for name, value in inputs.items() if name not in media_inputs()}
        torch.testing.assert_close(model(**text, **features).logits, plain)
        silent = {name: value for name, value in features.items() if name != "speaker_features"}
        assert not torch.equal(model(**text, **silent).logits, plain)
    # Kept, dropped, saved and loaded again.
    single = unpad_features(features, 0)
    clip = Clip(None, None, None, single)
    assert set(without(clip, "audio").features or {}) == {"visual_features", "video_spans"}
    assert "speaker_features" in (without(clip, "video").features or {})
    settings_of = cache_settings(model, processor)
    model.config.speaker_config.hidden_act = "relu"
    assert cache_settings(model, processor)["towers"] != settings_of["towers"]
    model.config.speaker_config.hidden_act = "gelu"
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, theirs = FavorForConditionalGeneration.from_pretrained(tmp_path), FavorProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(**theirs.apply_chat_template(asked)).logits, plain)


@pytest.mark.parametrize("samples", [1, 100, 399, 5_439, 16_000, 40_001])
def test_a_fourth_stream_is_counted(four: Parts, samples: int) -> None:
    model, processor = resized(four, frame_rate=3.0, window_frames=1, fine_window_frames=None)
    inputs = processor.apply_chat_template(conversation("a?", audio=sound(samples)))
    assert places(processor, inputs) == given_by(model, inputs)


def test_the_order_in_which_sharded_towers_run_is_that_of_the_table(
    three: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks whose batches lack different modalities gather the same parameters at the same time."""
    model, _ = three
    monkeypatch.setattr("examples.favor.towers.is_sharded", lambda *_: True)
    parts = ["visual_encoder.vision_model", "visual_encoder.qformer", "audio_encoder.model", "event_encoder.model"]
    order: list[str] = []
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: order.append(name)) for name in parts
    ]
    inputs: dict[str, dict[str, Tensor]] = {
        "nothing": {},
        "pictures": {"pixel_values_videos": torch.zeros(1, 2, 3, 28, 28)},
        "sound": {"input_features": torch.zeros(1, 80, 100), "input_values": torch.zeros(1, 16_000)},
    }
    orders = []
    for media in inputs.values():
        order.clear()
        with torch.no_grad():
            model.encode(**media)
        orders.append([*order])
    for hook in hooks:
        hook.remove()
    assert orders == [parts] * 3
