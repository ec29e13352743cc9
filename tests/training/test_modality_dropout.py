"""Clips that lose a modality at random are clips that never had it."""

import pytest
import torch

from avfusion import AudioVisualConnector, Frames, InvalidValueError, TokenStream, Video, Waveform
from avfusion.models import MediaBatch
from avfusion.training import drop_modalities


def features(clips: int) -> dict[str, Frames | TokenStream]:
    torch.manual_seed(0)
    return {
        "visual": Frames.from_rate(torch.randn(clips, 4, 3, 5), 2.0),
        "audio": TokenStream.from_rate(torch.randn(clips, 24, 6), 8.0),
    }


def kept(batch: MediaBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Which clips still have pictures, and which sound."""
    assert batch.features is not None
    visual, audio = batch.features["visual"], batch.features["audio"]
    assert visual is not None
    assert audio is not None
    return visual.mask.flatten(1).any(1), audio.mask.any(1)


def test_each_chance_is_exact_and_no_clip_loses_both() -> None:
    batch = drop_modalities(
        MediaBatch(features=features(8000)), video=0.3, audio=0.2, generator=torch.Generator().manual_seed(1)
    )
    sees, hears = kept(batch)
    assert (sees | hears).all()
    assert (~sees).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (~hears).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_both_are_lost_when_asked() -> None:
    generator = torch.Generator().manual_seed(1)
    sees, hears = kept(drop_modalities(MediaBatch(features=features(8000)), audio=0.2, both=0.5, generator=generator))
    assert (~(sees | hears)).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (sees & ~hears).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert not (hears & ~sees).any()


def test_the_generator_decides_alone() -> None:
    batch = MediaBatch(features=features(64))
    first, again, other = (
        kept(drop_modalities(batch, video=0.5, audio=0.5, generator=torch.Generator().manual_seed(seed)))[0]
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_a_clip_has_alone_stays() -> None:
    given = features(2)
    sound = given["audio"]
    lacks = sound._replace(mask=sound.mask & torch.tensor([[True], [False]]))
    batch = MediaBatch(features={"visual": given["visual"], "audio": lacks})
    assert kept(drop_modalities(batch, video=1.0))[0].tolist() == [False, True]
    assert kept(drop_modalities(batch, audio=1.0))[0].tolist() == [True, True]


@pytest.mark.parametrize("lost", ["visual", "audio"])
def test_a_dropped_modality_equals_a_missing_one(lost: str) -> None:
    connector = AudioVisualConnector.from_dims(visual=5, audio=6, llm=16, num_queries=2).double().eval()
    given = {name: value._replace(tokens=value.tokens.double()) for name, value in features(3).items()}
    chance = {"visual": "video"}.get(lost, lost)
    less = drop_modalities(MediaBatch(features=given), **{chance: 1.0})
    assert less.features is not None
    out, missing = connector(**less.features), connector(**{n: v for n, v in given.items() if n != lost})
    assert torch.equal(out.mask[:, : missing.mask.shape[1]], missing.mask)
    assert not out.mask[:, missing.mask.shape[1] :].any()
    torch.testing.assert_close(out.embeddings[out.mask], missing.embeddings[missing.mask], rtol=0, atol=1e-12)


def test_media_lose_their_masks_too() -> None:
    video = Video.from_rate(torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8), 2.0)
    sound = Waveform.from_samples(torch.ones(2, 80), 80)
    batch = drop_modalities(MediaBatch(video=video, waveform=sound), video=1.0)
    assert batch.video is not None
    assert batch.waveform is not None
    assert not batch.video.mask.any()
    assert torch.equal(batch.waveform.mask, sound.mask)
    assert video.mask.all()
    assert drop_modalities(MediaBatch(waveform=sound), video=0.5, audio=0.5).waveform is not None


def test_chances_that_are_none_are_refused() -> None:
    for chances in ({"video": -0.1}, {"video": 0.6, "audio": 0.6}):
        with pytest.raises(InvalidValueError, match="must be at least 0 and sum to at most 1"):
            drop_modalities(MediaBatch(features=features(1)), **chances)
