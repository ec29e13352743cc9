"""Encoded clips: how many embeddings they give, which rows they belong to, and what stands for none."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avfusion.errors import InvalidValueError
from avfusion.models.merge import select_rows
from avfusion.modules import AudioVisualConnector, is_sharded
from avfusion.types import Frames, LLMEmbeddings, TokenStream, Video, Waveform

VISUAL = "visual"

Features = Mapping[str, Frames | TokenStream | None]


def layout(
    audio_encoders: Mapping[str, Any], video: Video | None, waveform: Waveform | None
) -> dict[str, Frames | TokenStream]:
    """The features that encoders would give, with tokens of no width."""
    features: dict[str, Frames | TokenStream] = {}
    if video is not None:
        tokens = torch.empty(*video.mask.shape, 1, 0, device=video.mask.device)
        features[VISUAL] = Frames(tokens, video.mask[..., None], video.spans)
    if waveform is not None:
        for name, encoder in audio_encoders.items():
            features[name] = encoder.timeline(waveform) if hasattr(encoder, "timeline") else encoder(waveform)
    return features


def can_count(connector: Any) -> bool:
    """Whether it is known how the connector counts; else it must run."""
    return isinstance(connector, AudioVisualConnector) and type(connector).forward is AudioVisualConnector.forward


def count_positions(connector: Any, features: Mapping[str, Frames | TokenStream]) -> Tensor:
    """``(clip,)`` int64: real positions of :class:`~avfusion.LLMEmbeddings` that the connector gives for features.

    The synchroniser and the cutting of windows run on tokens of zeros, so that every rule of theirs holds.
    """
    features = place(connector, features)
    if not can_count(connector):
        return connector(**features).mask.sum(1)
    return count_by(connector.synchroniser, connector.projector, features)


def count_by(synchroniser: Any, projector: Any, features: Mapping[str, Frames | TokenStream]) -> Tensor:
    """:func:`count_positions` of a connector of these parts, on the synchroniser's device."""
    dims = synchroniser.dims
    unknown = sorted(set(features) - set(dims))
    if unknown:
        raise InvalidValueError(f"features: must be among the connector's streams {sorted(dims)}, found {unknown}")
    blank = {
        name: value._replace(tokens=value.tokens.new_zeros(()).expand(*value.mask.shape, dims[name]))
        for name, value in features.items()
    }
    frames = synchroniser(**blank)
    windows = projector.cut(frames._replace(tokens=frames.tokens[..., :0]))
    return windows.window_mask.sum(1) * projector.num_queries


def input_dims(connector: Any) -> dict[str, int] | None:
    """Width of each stream that the connector takes; ``None`` for a connector of another class."""
    if not isinstance(connector, AudioVisualConnector):
        return None
    return {**connector.synchroniser.dims, **connector.input_dims}


def empty_features(connector: Any, encoders: Mapping[str, Any], batch: int) -> dict[str, Frames | TokenStream]:
    """A stream of no tokens, for a batch without any media."""
    dims = input_dims(connector) or {name: int(encoder.output_dim) for name, encoder in encoders.items()}
    if not dims:
        raise InvalidValueError("features: must be given, this model has no encoders")
    name, dim = next(iter(dims.items()))
    return {name: Frames.empty(batch, 1, dim) if name == VISUAL else TokenStream.empty(batch, dim)}


def runs_without_clips(connector: nn.Module) -> bool:
    """Whether the connector must run for a batch of text alone.

    Its trained parameters then get zero gradients, and every process calls a sharded connector equally often.
    """
    trained = torch.is_grad_enabled() and any(value.requires_grad for value in connector.parameters())
    return trained or is_sharded(connector)


def no_embeddings(rows: int, llm_dim: int) -> LLMEmbeddings:
    """What a connector gives for rows without a clip: no position."""
    nothing = torch.zeros(rows, 0, llm_dim)
    spans = torch.zeros(rows, 0, 2, dtype=torch.float64)
    return LLMEmbeddings(nothing, torch.zeros(rows, 0, dtype=torch.bool), spans, torch.zeros(0, 1, llm_dim))


def place(connector: nn.Module, features: Mapping[str, Frames | TokenStream]) -> dict[str, Frames | TokenStream]:
    """Features on the connector's device, tokens in its dtype and times in theirs."""
    like = next(connector.parameters(), None)
    if like is None:
        return dict(features)
    return {
        name: type(value)(value.tokens.to(like.device, like.dtype), *(part.to(like.device) for part in value[1:]))
        for name, value in features.items()
    }


def num_clips(features: Features) -> int | None:
    """Clips of a batch of features; ``None`` where there are none at all."""
    return next((value.tokens.shape[0] for value in features.values() if value is not None), None)


def take_clips(features: Features, index: Tensor) -> dict[str, Frames | TokenStream]:
    """The features of the clip that each row talks about; masked for ``-1``."""
    return {
        name: type(value)(*(select_rows(part, index) for part in value))
        for name, value in features.items()
        if value is not None
    }
