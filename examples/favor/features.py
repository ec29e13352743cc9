"""The towers' tokens of a data set, kept in files: frozen towers always give the same."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion import CheckpointError, Frames, TokenStream
from avfusion.features import FeatureStore
from avfusion.models import Clip, first_question, media_sources
from examples.favor.processing_favor import FavorProcessor
from examples.favor.streams import STREAMS, microseconds
from examples.favor.tags import Messages


class Track(NamedTuple):
    """The frames or the audio of a conversation.

    Attributes:
        key: name of its tokens; equal names, equal tokens, while the file stays the same.
        file: the media file.
    """

    key: str
    file: str


def cache_settings(model: Any, processor: FavorProcessor) -> dict[str, Any]:
    """What the towers' tokens depend on, besides the media."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    name, config = str(base.name_or_path), base.config
    kinds = ("qformer_config", *(stream.config for stream in STREAMS.values()))
    towers = {kind: getattr(config, kind, None) for kind in kinds}
    text = json.dumps({kind: None if one is None else one.to_diff_dict() for kind, one in towers.items()}, default=str)
    return {
        "model": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "towers": hashlib.sha256(text.encode()).hexdigest()[:16],
        "tower dtype": str(base.audio_encoder.dtype).removeprefix("torch."),
        "frame_rate": processor.frame_rate,
        "instructed": processor.qformer_tokenizer is not None,
    }


def clip_tracks(messages: Messages, *, instructed: bool) -> dict[str, Track]:
    """The tracks that a conversation is about: ``"visual"``, ``"sound"``, or both."""
    sources, tracks = media_sources(messages), {}
    for kind in ("video", "image"):
        if kind in sources:
            asked = first_question(messages) if instructed else None
            tracks["visual"] = _track(sources[kind], kind, asked)
    for kind in ("video", "audio"):  # an audio file takes the place of the video's own audio
        if kind in sources:
            tracks["sound"] = _track(sources[kind], "sound of " + kind)
    return tracks


def _track(file: Any, kind: str, *more: str | None) -> Track:
    return Track(json.dumps([kind, str(file), *more]), str(file))


class FeatureCache:
    """Reads what ``python -m examples.favor cache`` wrote.

    Args:
        directory: of the cache.
        settings: of :func:`cache_settings`, of the model that shall be trained.

    Raises:
        CheckpointError: no cache, or one of other settings; the message names which.
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any]) -> None:
        self.store = FeatureStore(directory, settings)
        self.instructed = bool(self.store.settings.get("instructed"))

    def clip(self, messages: Messages) -> Clip | None:
        """The tokens of a conversation's media; ``None`` if it has none.

        Raises:
            CheckpointError: media that are not in the cache, or that have changed since.
        """
        tracks = clip_tracks(messages, instructed=self.instructed)
        features: dict[str, Tensor] = {}
        for track in tracks.values():
            if track.key not in self.store:
                raise CheckpointError(
                    f"features: {self.store.directory} lacks {track.key}; run the command cache on this data"
                )
            self.store.check_files(track.key, [track.file])
            features |= as_inputs(self.store[track.key])
        return Clip(None, None, None, features) if tracks else None


def as_streams(features: Mapping[str, Tensor]) -> dict[str, Frames | TokenStream]:
    """Tokens and times of one clip, by the names of the model's inputs, as the library keeps them."""
    found = {}
    for name, stream in STREAMS.items():
        if stream.tokens in features:
            tokens, times = features[stream.tokens][None], features[stream.times][None]
            found[name] = stream.values(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), times.cpu())
    return found


def as_inputs(streams: Mapping[str, Frames | TokenStream]) -> dict[str, Tensor]:
    """What :func:`as_streams` was given."""
    features: dict[str, Tensor] = {}
    for name, (tokens, _, times) in streams.items():
        features |= {STREAMS[name].tokens: tokens[0], STREAMS[name].times: microseconds(times[0])}
    return features
