"""Whisper: the same mel and the same states as transformers, for sound of any length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, CLIPVisionModel, WhisperFeatureExtractor

from avfusion import InvalidTypeError, InvalidValueError, TokenStream
from avfusion.encoders import WhisperAudioEncoder, log_mel, log_mel_chunks
from tests.encoders import tiny


@pytest.mark.parametrize("bands", [80, 128])
def test_mel_is_the_feature_extractor_s(bands: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=bands)
    samples = torch.randn(2, 48000) * torch.tensor([[0.001], [0.5]])
    samples[:, 40000:] = 0
    wanted = extractor(list(samples.numpy()), sampling_rate=16000, max_length=48000, return_tensors="pt")
    torch.testing.assert_close(log_mel(samples, extractor), wanted["input_features"], atol=1e-5, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(log_mel(samples, extractor), wanted["input_features"], atol=1e-5, rtol=0)


def test_dither_is_applied() -> None:
    samples = torch.zeros(1, 3200)
    assert not torch.equal(
        log_mel(samples, WhisperFeatureExtractor(dither=0.01)), log_mel(samples, WhisperFeatureExtractor())
    )


@pytest.mark.parametrize("head", [False, True])
def test_full_length_chunk_equals_transformers(head: bool) -> None:
    encoder = tiny.whisper(1500, head)
    wave = tiny.clips(16000 * 3)
    features = encoder.feature_extractor(wave.samples[0].numpy(), sampling_rate=16000, return_tensors="pt")
    wanted = encoder.model(features["input_features"]).last_hidden_state
    stream = encoder(wave)
    assert encoder.rate == 50.0
    assert encoder.chunk_samples == 30 * 16000
    assert bool(stream.mask.all())
    torch.testing.assert_close(stream.tokens, wanted[:, :150], atol=1e-5, rtol=0)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 20000), min_size=1, max_size=3), st.floats(-5, 5))
def test_long_sound_is_its_chunks_one_after_the_other(lengths: list[int], start: float) -> None:
    encoder = tiny.whisper()  # chunks of 0.5 s
    wave = tiny.clips(*lengths, start=start)
    stream = encoder(tiny.spoil(wave))
    assert stream.mask.sum(1).tolist() == [-(-length // 320) for length in lengths]
    assert stream.tokens.shape[1] == -(-max(lengths) // 320)
    for index, length in enumerate(lengths):
        samples = tiny.row(wave, index).samples[0]
        parts = [encoder(tiny.Waveform.from_samples([part], 16000)) for part in samples.split(8000) if length]
        if parts:
            wanted = torch.cat([part.tokens[0] for part in parts])
            torch.testing.assert_close(stream.tokens[index, : len(wanted)], wanted, atol=1e-5, rtol=0)
        times = start + (torch.arange(-(-length // 320), dtype=torch.float64) + 0.5) / 50
        torch.testing.assert_close(stream.timestamps[index, stream.mask[index]], times, atol=1e-12, rtol=0)


def test_no_sound_at_all() -> None:
    stream = tiny.whisper()(tiny.clips(0, 0))
    assert isinstance(stream, TokenStream)
    assert stream.tokens.shape == (2, 0, 16)


def test_the_decoder_is_not_held() -> None:
    assert not [key for key in tiny.whisper(head=True).state_dict() if "decoder" in key]


def test_refuses_what_is_not_whisper() -> None:
    extractor = WhisperFeatureExtractor(feature_size=80)
    with pytest.raises(InvalidTypeError, match=r"model: must be a Whisper model, found CLIPVisionModel"):
        WhisperAudioEncoder(model=CLIPVisionModel(CLIPVisionConfig(**tiny.VIT)), feature_extractor=extractor)
    with pytest.raises(InvalidValueError, match=r"feature_extractor: must make the model's 8 mel bands, found 80"):
        WhisperAudioEncoder(model=tiny.WhisperModel(tiny.whisper_config()), feature_extractor=extractor)


def test_the_timeline_is_when_the_tokens_are() -> None:
    encoder = tiny.whisper(50, False)
    wave = tiny.clips(40000, 8000, 0)._replace(start=torch.tensor([0.3, -0.1, 2.0], dtype=torch.float64))
    stream, when = encoder(wave), encoder.timeline(wave)
    assert when.tokens.shape == (*stream.mask.shape, 0)
    assert torch.equal(when.mask, stream.mask)
    assert torch.equal(when.timestamps, stream.timestamps)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 20000), min_size=1, max_size=3), st.floats(-2.0, 2.0))
def test_what_a_processor_made_is_encoded_alike(lengths: list[int], start: float) -> None:
    encoder = tiny.whisper()
    extractor = WhisperFeatureExtractor(feature_size=8)
    extractor.n_samples = encoder.chunk_samples  # 0.5 s
    wave = tiny.clips(*lengths, start=start)
    mel = log_mel_chunks(tiny.spoil(wave), extractor, chunk_batch_size=2)
    assert mel.features.shape[2] == 50 * -(-max(lengths) // 8000)
    assert mel.mask.sum(1).tolist() == [-(-length // 160) for length in lengths]
    found, wanted = encoder.encode(*mel), encoder(wave)
    tiny.assert_same_stream(found, wanted)
    assert torch.equal(found.mask, wanted.mask)


def test_features_come_in_whole_chunks() -> None:
    with pytest.raises(InvalidValueError, match=r"features: .* in whole chunks of 50 frames, found shape \(1, 8, 40\)"):
        tiny.whisper().encode(torch.zeros(1, 8, 40))
    assert tiny.whisper().encode(torch.zeros(2, 8, 100)).mask.sum(1).tolist() == [50, 50]
