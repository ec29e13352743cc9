"""Audio encoders of transformers: each clip's states as transformers computes them, and where they stand in time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Wav2Vec2ForCTC

from avfusion import InvalidValueError
from avfusion.encoders import HFAudioEncoder
from tests.encoders import tiny


def features_of(encoder: HFAudioEncoder, samples: Tensor) -> Tensor:
    return encoder.feature_extractor(samples.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"]


@pytest.mark.parametrize("family", tiny.SPEECH)
def test_equals_transformers_on_one_clip(family: str) -> None:
    encoder = tiny.speech(family)
    wave = tiny.clips(9999)
    wanted = encoder.model(features_of(encoder, wave.samples[0])).last_hidden_state
    stream = encoder(wave)
    assert bool(stream.mask.all())
    torch.testing.assert_close(stream.tokens, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["group_norm", "layer_norm"])
def test_loudness_is_normalised_clip_by_clip(family: str) -> None:
    encoder = tiny.speech(family)
    wave = tiny.clips(6000, 9000)
    quiet = wave._replace(samples=wave.samples * torch.tensor([[0.01], [1.0]]))
    tiny.assert_same_stream(encoder(tiny.spoil(quiet)), encoder(wave), atol=1e-2)


def test_a_token_stands_at_the_middle_of_what_it_sees() -> None:
    encoder = tiny.speech("layer_norm")
    times = encoder(tiny.clips(2000)).timestamps[0]
    samples = torch.randn(1, 2000, dtype=torch.float64, requires_grad=True)
    states = encoder.model.feature_extractor.double()(samples)
    assert states.shape[2] == len(times)
    for index, time in enumerate(times.tolist()):
        (seen,) = torch.autograd.grad(states[..., index].sum(), samples, retain_graph=True)
        places = seen[0].nonzero()[:, 0]
        assert time == pytest.approx((int(places[0]) + int(places[-1]) + 1) / 2 / 16000, abs=1e-9)


@settings(max_examples=15)
@given(st.integers(1, 6000))
def test_tokens_are_as_many_as_the_convolutions_make(length: int) -> None:
    stream = tiny.speech()(tiny.clips(length))
    wanted = int(tiny.speech().model._get_feat_extract_output_lengths(length)) if length >= 400 else 1
    assert stream.mask.sum().item() == stream.tokens.shape[1] == wanted


def test_chunks_follow_each_other_on_the_same_grid() -> None:
    whole, cut = tiny.speech(), tiny.speech(chunk_seconds=0.2)
    wave = tiny.clips(16000, 7000)
    wanted, found = whole(wave), cut(wave)
    assert torch.equal(found.timestamps, wanted.timestamps)
    assert torch.equal(found.mask, wanted.mask)
    piece = wave.samples[0, 3200 : 3200 + 9 * 320 + 400]  # the second chunk: 10 steps and what the last one sees
    states = cut.model(features_of(cut, piece)).last_hidden_state
    torch.testing.assert_close(found.tokens[0, 10:20], states[0], atol=1e-5, rtol=0)


def test_ast_patches_are_in_time_order() -> None:
    encoder = tiny.spectrogram()
    wave = tiny.clips(7960)  # fills the 48 of 50 spectrogram frames that patches see
    hidden = encoder.model(features_of(encoder, wave.samples[0])).last_hidden_state[:, 2:]
    wanted = hidden.reshape(1, 3, 4, 16).transpose(1, 2)  # (clip, band, step, dim): bands are the slower axis
    stream = encoder(wave)
    assert encoder.tokens_per_step == 3
    torch.testing.assert_close(stream.tokens, wanted.reshape(1, 12, 16), atol=1e-5, rtol=0)
    # A patch sees 8 frames, 10 ms apart and 25 ms long, so 95 ms; the next one begins 120 ms later.
    times = (torch.arange(4, dtype=torch.float64) * 0.12 + 0.0475).repeat_interleave(3)
    torch.testing.assert_close(stream.timestamps[0], times, atol=1e-12, rtol=0)

    pooled = tiny.spectrogram(pool_frequency=True)
    pooled.load_state_dict(encoder.state_dict())
    stream = pooled(wave)
    assert pooled.tokens_per_step == 1
    torch.testing.assert_close(stream.tokens, wanted.mean(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(stream.timestamps[0], times[::3], atol=1e-12, rtol=0)


def test_ast_long_sound_is_not_cut_off() -> None:
    encoder = tiny.spectrogram()
    wave = tiny.clips(20000)
    stream = encoder(wave)
    assert bool(stream.mask.all())
    steps = stream.timestamps[0, ::3]
    assert len(steps) == -(-(20000 - 760) // 1920)
    torch.testing.assert_close(steps.diff(), torch.full((len(steps) - 1,), 0.12, dtype=torch.float64))
    second = encoder(tiny.clips(1)._replace(samples=wave.samples[:, 7680:15640], mask=wave.mask[:, 7680:15640]))
    torch.testing.assert_close(stream.tokens[:, 12:24], second.tokens, atol=1e-5, rtol=0)


def test_given_rate_and_centre() -> None:
    known = tiny.speech()
    given_rate = HFAudioEncoder(
        model=known.model, feature_extractor=known.feature_extractor, rate=50, first_centre=0.0125
    )
    wave = tiny.clips(16000, 5000)
    tiny.assert_same_stream(given_rate(wave), known(wave))
    plain = HFAudioEncoder(model=known.model, feature_extractor=known.feature_extractor, rate=50)
    assert plain(wave).timestamps[0, 0].item() == pytest.approx(0.01)


def test_a_model_with_a_head_gives_its_encoder() -> None:
    config = tiny.Wav2Vec2Config(
        **tiny.TOWER, conv_dim=(8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2
    )
    encoder = HFAudioEncoder(model=Wav2Vec2ForCTC(config), feature_extractor=tiny.Wav2Vec2FeatureExtractor())
    assert isinstance(encoder.model, tiny.Wav2Vec2Model)


def test_refuses_what_has_no_known_time() -> None:
    known = tiny.speech()
    make = {"model": known.model, "feature_extractor": known.feature_extractor}
    adapted = tiny.Wav2Vec2Model(
        tiny.Wav2Vec2Config(**tiny.TOWER, conv_dim=(8,) * 7, num_conv_pos_embedding_groups=2, add_adapter=True)
    )
    with pytest.raises(InvalidValueError, match=r"rate: must be given for Wav2Vec2Model"):
        HFAudioEncoder(**{**make, "model": adapted})
    with pytest.raises(InvalidValueError, match=r"rate: must be a positive, finite .* found 0"):
        HFAudioEncoder(**make, rate=0)
    with pytest.raises(InvalidValueError, match=r"first_centre: must come with rate"):
        HFAudioEncoder(**make, first_centre=0.1)
    with pytest.raises(InvalidValueError, match=r"first_centre: must be a positive.* found -1"):
        HFAudioEncoder(**make, rate=50, first_centre=-1)
    for seconds in (0.0, 0.03, 0.0001):
        with pytest.raises(InvalidValueError, match=r"chunk_seconds: must be a whole number"):
            HFAudioEncoder(**make, chunk_seconds=seconds)
    with pytest.raises(InvalidValueError, match=r"chunk_seconds: must be at most 0\.48"):
        tiny.spectrogram(chunk_seconds=0.6)
    with pytest.raises(InvalidValueError, match=r"rate: 100.* imply 100 steps .* found 49"):
        HFAudioEncoder(**make, rate=100)(tiny.clips(16000))
