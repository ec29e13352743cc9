"""Training clips that lose their pictures or their sound at random."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError
from avfusion.models import MediaBatch

VISUAL = "visual"


def drop_modalities(
    media: MediaBatch,
    *,
    video: float = 0.0,
    audio: float = 0.0,
    both: float = 0.0,
    generator: torch.Generator | None = None,
) -> MediaBatch:
    """Takes the pictures or the sound from clips at random, so that a model learns to answer from what is left.

    What is dropped is masked, which is how a batch holds a clip that lacks a modality. A clip loses pictures only if
    it has sound, and the reverse, unless ``both`` is drawn. Call it before the text is made: a clip that loses its
    longer modality has fewer embeddings.

    Args:
        media: media, or features: the stream ``"visual"`` is video, all others are audio.
        video: probability that a clip loses its pictures.
        audio: that it loses its sound.
        both: that it loses both.
        generator: on the CPU; the default one without it.

    Returns:
        The same clips with other masks; tokens, samples and pixels are shared.

    Raises:
        InvalidValueError: probabilities that are negative or sum to more than 1.

    Example:
        >>> import torch
        >>> from avfusion import Frames, TokenStream
        >>> from avfusion.models import MediaBatch
        >>> from avfusion.training import drop_modalities
        >>> sound = TokenStream.from_rate(torch.ones(4, 8, 3), rate=8.0)
        >>> pictures = Frames.from_rate(torch.ones(4, 2, 1, 3), frame_rate=2.0)
        >>> batch = MediaBatch(features={"audio": sound, "visual": pictures})
        >>> less = drop_modalities(batch, video=1.0)
        >>> less.features["visual"].mask.any().item(), less.features["audio"].mask.all().item()
        (False, True)
    """
    chances = {"video": video, "audio": audio, "both": both}
    if min(chances.values()) < 0 or sum(chances.values()) > 1 + 1e-9:
        raise InvalidValueError(f"video, audio, both: must be at least 0 and sum to at most 1, found {chances}")
    values: dict[str, Any] = dict(media.features or {})
    if media.features is None:
        values = {VISUAL: media.video, "waveform": media.waveform}
    given = {name: value for name, value in values.items() if value is not None}
    if not given:
        return media
    real = {name: value.mask.flatten(1).any(1).cpu() for name, value in given.items()}
    clips = len(next(iter(real.values())))
    sees = real.get(VISUAL, torch.zeros(clips, dtype=torch.bool))
    hears = torch.zeros(clips, dtype=torch.bool)
    for name in real.keys() - {VISUAL}:
        hears = hears | real[name]
    # One number a clip, cut into intervals: what a clip loses is exclusive, each with just its probability.
    drawn = torch.rand(clips, generator=generator, dtype=torch.float64)
    loses_all = (drawn >= video + audio) & (drawn < video + audio + both)
    blind = (drawn < video) & hears | loses_all
    deaf = (drawn >= video) & (drawn < video + audio) & sees | loses_all
    kept = {name: _masked(value, blind if name == VISUAL else deaf) for name, value in given.items()}
    if isinstance(media.features, Mapping):
        return replace(media, features={**values, **kept})
    return replace(media, video=kept.get(VISUAL), waveform=kept.get("waveform"))


def _masked(value: Any, dropped: Tensor) -> Any:
    rows = dropped.to(value.mask.device).reshape(-1, *[1] * (value.mask.ndim - 1))
    return value._replace(mask=value.mask & ~rows)
