"""What holds for every encoder alike: the Protocol, padding, absent clips, being frozen or trained, dtypes, errors."""

import copy
from typing import Any

import pytest
import torch

from avfusion import (
    AudioEncoder,
    AudioVisualConnector,
    InvalidTypeError,
    InvalidValueError,
    RegularAudioEncoder,
    Video,
    VisualEncoder,
    Waveform,
)
from tests.encoders import tiny

ALL = {**tiny.AUDIO, **tiny.VISUAL}


def source(name: str) -> Any:
    """Input of two clips of different length for this encoder."""
    return tiny.clips(12000, 5000) if name in tiny.AUDIO else tiny.film(3, 1)


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_audio_encoder_is_what_the_protocol_says(name: str) -> None:
    encoder = tiny.AUDIO[name]()
    assert isinstance(encoder, AudioEncoder)
    stream = encoder(tiny.clips(12000, 5000, start=2.0))
    assert stream.tokens.shape[2] == encoder.output_dim
    assert stream.timestamps.dtype == torch.float64
    for clip, seconds in enumerate((12000 / tiny.RATE, 5000 / tiny.RATE)):
        times = stream.timestamps[clip, stream.mask[clip]] - 2
        assert len(times)
        assert bool((times.diff() >= 0).all())
        assert float(times[0]) > 0
        assert float(times[-1]) < seconds + 0.01


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_clip_alone_equals_clip_in_a_batch(name: str) -> None:
    encoder = tiny.AUDIO[name]()
    wave = tiny.clips(13000, 0, 5000, 13000, 12999, 90)
    stream = encoder(tiny.spoil(wave, extra=3000))
    assert bool((stream.tokens[~stream.mask] == 0).all())
    assert int(stream.mask[1].sum()) == 0
    for index in range(len(wave.samples)):
        alone = encoder(tiny.row(wave, index))
        tiny.assert_same_stream(type(stream)(*(value[index : index + 1] for value in stream)), alone)


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_group_size_changes_nothing(name: str) -> None:
    encoder = tiny.AUDIO[name]()
    wave = tiny.clips(9000, 9000, 9000, 30000)
    wanted = encoder(wave)
    encoder._group_size = 2
    tiny.assert_same_stream(encoder(wave), wanted)


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_visual_encoder_is_what_the_protocol_says(name: str) -> None:
    encoder = tiny.VISUAL[name]()
    assert isinstance(encoder, VisualEncoder)
    video = tiny.film(3, 1)
    frames = encoder(video)
    assert frames.tokens.shape == (2, 3, encoder.tokens_per_frame, encoder.output_dim)
    assert torch.equal(frames.frame_mask, video.mask)
    assert torch.equal(frames.spans, video.spans)


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_only_real_frames_count(name: str) -> None:
    encoder = tiny.VISUAL[name](frame_batch_size=2)
    video = tiny.film(4, 4)
    mask = torch.tensor([[True, False, True, True], [False, True, False, False]])
    pixels = (video.pixels / 255).masked_fill(~mask[..., None, None, None], torch.nan)
    frames = encoder(Video(pixels, mask, video.spans))
    assert bool((frames.tokens[~mask] == 0).all())
    for clip, frame in mask.nonzero().tolist():
        alone = encoder(Video(pixels[clip : clip + 1, frame : frame + 1], mask[:1, :1], video.spans[:1, :1]))
        torch.testing.assert_close(frames.tokens[clip, frame], alone.tokens[0, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_uint8_and_unit_floats_are_the_same_pictures(name: str) -> None:
    encoder = tiny.VISUAL[name]()
    side = encoder.image_size if name.startswith("timm") else (32, 32)
    video = tiny.film(1, size=side)  # resizing rounds uint8
    if name in {"convnext", "instructblip"}:
        video = video._replace(pixels=video.pixels[..., :1, :1].expand(1, 1, 3, *side))
    floats = encoder(video._replace(pixels=video.pixels / 255))
    torch.testing.assert_close(encoder(video).tokens, floats.tokens, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_frozen_keeps_no_graph_and_stays_in_evaluation_mode(name: str) -> None:
    encoder = ALL[name]()
    holder = torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(value.requires_grad for value in holder.parameters())
    assert not encoder(source(name)).tokens.requires_grad
    encoder.requires_grad_(True)  # as a tool that sets all parameters of the whole model does
    assert not encoder(source(name)).tokens.requires_grad


@pytest.mark.parametrize("name", ALL)
def test_trained_gets_gradients_and_follows_its_parent(name: str) -> None:
    encoder = ALL[name](frozen=False)
    assert torch.nn.ModuleList([encoder]).train()[0].training
    encoder.eval()
    encoder(source(name)).tokens.square().sum().backward()
    reached = {key for key, value in encoder.named_parameters() if value.grad is not None}
    assert len(reached) > 20
    # The same parameters are reached, with zeros, when the batch holds nothing to encode.
    absent = tiny.clips(0, 0) if name in tiny.AUDIO else tiny.film(2)._replace(mask=torch.zeros(1, 2, dtype=torch.bool))
    encoder.zero_grad()
    tokens = encoder(absent).tokens
    assert bool((tokens == 0).all())
    tokens.sum().backward()
    found = {key: value.grad for key, value in encoder.named_parameters() if value.grad is not None}
    assert set(found) - reached <= {key for key in found if "qformer" in key}
    assert reached <= set(found)
    assert all(bool((grad == 0).all()) for grad in found.values())


@pytest.mark.parametrize("name", sorted(set(ALL) - {"convnext"}))  # which transformers cannot checkpoint
def test_gradient_checkpointing_computes_the_same(name: str) -> None:
    encoder = ALL[name](frozen=False)
    given = source(name)
    for module in encoder.modules():  # as in training, but without its noise
        if isinstance(module, torch.nn.Dropout) or type(module).__name__ == "DropPath":
            module.p = module.drop_prob = 0.0
        for key in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)
        if hasattr(module, "config"):
            for key in ("layerdrop", "mask_time_prob", "mask_feature_prob", "dropout"):
                if hasattr(module.config, key):
                    setattr(module.config, key, 0.0)
    twin = copy.deepcopy(encoder)
    twin.gradient_checkpointing_enable({"use_reentrant": False})
    gradients, calls = [], []
    for one in (encoder, twin):
        one.train()
        ran: list[torch.nn.Module] = []
        for module in one.modules():
            module.register_forward_pre_hook(lambda module, _, ran=ran: ran.append(module))
        tokens = one(given).tokens
        tokens.square().sum().backward()
        gradients.append({key: value.grad for key, value in one.named_parameters() if value.grad is not None})
        calls.append(len(ran))
    assert calls[1] > calls[0]  # layers ran again in the backward pass
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_close_to_float32(name: str) -> None:
    encoder = ALL[name]()
    given = source(name)
    wanted = encoder(given).tokens
    found = encoder.to(torch.bfloat16)(given).tokens
    assert found.dtype == torch.bfloat16
    assert encoder.dtype == torch.bfloat16
    assert float((found - wanted).norm() / wanted.norm()) < 0.1


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_audio_encoder_refuses_bad_input(name: str) -> None:
    encoder = tiny.AUDIO[name]()
    with pytest.raises(InvalidTypeError, match=r"waveform: .*found Tensor"):
        encoder(torch.zeros(1, 16000))
    with pytest.raises(InvalidValueError, match=r"sample_rate: must be 16000.*44100"):
        encoder(Waveform.from_samples(torch.zeros(1, 44100), 44100))
    wave = tiny.clips(5000)
    with pytest.raises(InvalidValueError, match=r"waveform\.mask: real samples must come first"):
        encoder(wave._replace(mask=~wave.mask.index_fill(1, torch.tensor([4999]), False)))
    with pytest.raises(InvalidValueError, match=r"chunk_batch_size: must be at least 1, found 0"):
        tiny.AUDIO[name](chunk_batch_size=0)


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_visual_encoder_refuses_bad_input(name: str) -> None:
    with pytest.raises(InvalidTypeError, match=r"video: .*found Tensor"):
        tiny.VISUAL[name]()(torch.zeros(1, 2, 3, 32, 32))
    with pytest.raises(InvalidValueError, match=r"frame_batch_size: must be at least 1, found 0"):
        tiny.VISUAL[name](frame_batch_size=0)


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_tokens_are_counted_before_they_are_computed(name: str) -> None:
    encoder = tiny.AUDIO[name]()
    lengths = [0, 1, 90, 399, 400, 4999, 7960, 12000, 16001]
    counts = encoder.num_tokens(torch.tensor(lengths) / tiny.RATE)
    assert counts.dtype == torch.int64
    assert counts.tolist() == encoder(tiny.clips(*lengths)).mask.sum(1).tolist()
    assert encoder.num_tokens([[0.5], [0.25]]).shape == (2, 1)
    assert encoder.num_tokens(0.5).shape == ()
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidValueError, match=r"durations: must be finite and at least 0"):
            encoder.num_tokens(wrong)


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_a_connector_follows_from_an_audio_encoder(name: str) -> None:
    encoder = tiny.AUDIO[name]()
    assert isinstance(encoder, RegularAudioEncoder)
    connector = AudioVisualConnector.from_encoders(audio=encoder, llm=8, hidden_size=16, num_queries=2, frame_rate=3.0)
    stream = encoder(tiny.clips(16000, 5000, start=0.0825))
    assert connector(audio=stream).embeddings.shape[2] == 8  # every token has a slot


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_a_picture_is_preprocessed_then_encoded(name: str) -> None:
    encoder = tiny.VISUAL[name]()
    video = tiny.film(3)
    ready = encoder.preprocess(video.pixels[0])
    assert ready.dtype == encoder.dtype
    torch.testing.assert_close(encoder.encode(ready), encoder(video).tokens[0], atol=1e-6, rtol=0)
    connector = AudioVisualConnector.from_encoders(visual=encoder, llm=8, hidden_size=16, num_queries=2)
    assert connector(visual=encoder(video)).embeddings.shape == (1, 2, 8)


@pytest.mark.parametrize("name", sorted(tiny.VISUAL))
def test_a_sharded_tower_is_called_once_whatever_there_is(name: str) -> None:
    encoder = tiny.VISUAL[name](frame_batch_size=2)
    first = next(encoder.parameters())
    calls: list[int] = []
    encode = encoder.encode
    encoder.encode = lambda *values: calls.append(len(values[0])) or encode(*values)
    wanted = encoder(tiny.film(5))
    assert calls == [2, 2, 1]
    first.ds_id = 0  # as ZeRO-3 marks a parameter whose rest is elsewhere
    calls.clear()
    assert encoder(tiny.film(5)).tokens.shape == wanted.tokens.shape
    assert calls == [5]
    encoder(tiny.film(2)._replace(mask=torch.zeros(1, 2, dtype=torch.bool)))
    assert calls == [5, 1]
