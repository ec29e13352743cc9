"""The streams of a clip, a row each: configuration, towers, kept features, dropout and counting go by this table."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from avfusion import Frames, InvalidValueError, TokenStream, Waveform
from avfusion.encoders import TokenGrid, token_grid

HELD = torch.iinfo(torch.int64).max  # the end of a still image, which lasts as long as there is sound; -HELD: its start
SAMPLE_RATE = 16_000  # of all sound
VISUAL = "visual"


class Stream(NamedTuple):
    """A stream that the connector takes: its tower, what the tower takes and gives, and when its tokens are.

    Attributes:
        kind: of the tower: ``"pictures"``; ``"speech"``: Whisper, which takes spectra; ``"sound"`` takes samples.
        config: name of the tower's configuration in :class:`FavorConfig`; where that is ``None`` there is no stream.
        tower: name of the tower in the model.
        inputs: names of what the tower takes, the media first, then their mask.
        tokens: name of what the tower gives, when it is kept.
        mask: name of the mask of these tokens.
        times: name of their times, whole microseconds.
    """

    kind: Literal["pictures", "speech", "sound"]
    config: str
    tower: str
    inputs: tuple[str, ...]
    tokens: str
    mask: str
    times: str

    @property
    def features(self) -> tuple[str, str, str]:
        """Names of what is kept."""
        return self.tokens, self.mask, self.times

    def values(self, tokens: Tensor, mask: Tensor, times: Tensor) -> Frames | TokenStream:
        """As the connector takes them."""
        if self.kind == "pictures":
            return Frames(tokens, mask[..., None].expand(tokens.shape[:3]), seconds(times))
        return TokenStream(tokens, mask, seconds(times))

    def width(self, config: Any) -> int:
        """Width of the tokens."""
        if self.kind == "pictures":
            return int(config.visual_dim)
        tower = getattr(config, self.config)
        return int(tower.d_model if self.kind == "speech" else tower.hidden_size)

    def clock(self, inputs: Mapping[str, Tensor], grid: TokenGrid | None = None) -> tuple[Tensor, Tensor]:
        """Mask and times of the tokens that the tower will give for ``inputs``.

        Args:
            inputs: what the tower takes.
            grid: of a tower of the kind ``"sound"``.
        """
        mask = inputs[self.inputs[1]].bool()
        if self.kind == "pictures":
            return mask, inputs["video_spans"]
        start = inputs["audio_start"].to(mask.device)
        if self.kind == "speech":  # a token stands for two mel frames of 10 ms
            steps = torch.arange(mask.shape[1] // 2, device=mask.device)
            return mask[:, ::2], start[:, None] + 20_000 * steps + 10_000
        if grid is None:
            raise RuntimeError(f"no grid for {self.config}")
        stream = grid.timeline(Waveform(inputs[self.inputs[0]], mask, SAMPLE_RATE, seconds(start)))
        return stream.mask, microseconds(stream.timestamps)


def sound_stream(name: str) -> Stream:
    """A row for an audio tower of transformers (AST, Wav2Vec2 and their kin): ``NAME_config``, ``NAME_encoder``, …."""
    inputs = ("input_values", "input_values_mask", "audio_start")
    kept = (f"{name}_features", f"{name}_mask", f"{name}_times")
    return Stream("sound", f"{name}_config", f"{name}_encoder", inputs, *kept)


def sound_grid(config: Any) -> TokenGrid:
    """When the tokens of a tower of the kind ``"sound"`` are.

    Raises:
        InvalidValueError: a tower whose configuration does not tell.
    """
    grid = token_grid(config, SAMPLE_RATE, pool_frequency=True)
    if grid is None:
        raise InvalidValueError(f"{config.model_type}: must be a tower whose configuration tells when its tokens are")
    return grid


STREAMS: dict[str, Stream] = {
    VISUAL: Stream(
        "pictures",
        "vision_config",
        "visual_encoder",
        ("pixel_values_videos", "video_mask", "video_spans", "qformer_input_ids", "qformer_attention_mask"),
        *("visual_features", "video_mask", "video_spans"),
    ),
    "audio": Stream(
        "speech",
        "audio_config",
        "audio_encoder",
        ("input_features", "feature_attention_mask", "audio_start"),
        *("audio_features", "audio_mask", "audio_times"),
    ),
    "events": sound_stream("event"),
}


def streams_of(config: Any) -> dict[str, Stream]:
    """The streams that a configuration has a tower for."""
    return {name: stream for name, stream in STREAMS.items() if getattr(config, stream.config, None) is not None}


def media_inputs() -> tuple[str, ...]:
    """Names of all that the towers take."""
    return tuple(dict.fromkeys(name for stream in STREAMS.values() for name in stream.inputs))


def feature_names() -> tuple[str, ...]:
    """Names of all that is kept of the towers' tokens."""
    return tuple(name for stream in STREAMS.values() for name in stream.features)


def seconds(microseconds: Tensor) -> Tensor:
    """Times as avfusion takes them."""
    dtype = torch.float32 if microseconds.device.type == "mps" else torch.float64
    times = microseconds.to(dtype) / 1e6
    return torch.where(microseconds.abs() == HELD, times.sign() * torch.inf, times)


def microseconds(times: Tensor) -> Tensor:
    """Times as the model takes them: whole numbers, which no cast to half precision harms."""
    whole = (times.nan_to_num(posinf=0, neginf=0) * 1e6).round().long()
    return torch.where(times.isinf(), times.sign().long() * HELD, whole)


def layout(batch: Mapping[str, Tensor], grids: Mapping[str, TokenGrid]) -> dict[str, Frames | TokenStream]:
    """Where the tokens of media, or of kept features, lie in time: all that is needed to count embeddings.

    Args:
        batch: media or features, by the names of the model's inputs.
        grids: of the towers of the kind ``"sound"``, by stream.
    """
    found: dict[str, Frames | TokenStream] = {}
    for name, stream in STREAMS.items():
        if stream.tokens in batch:
            mask, times = batch[stream.mask].bool(), batch[stream.times]
        elif stream.inputs[0] in batch and (stream.kind != "sound" or name in grids):
            mask, times = stream.clock(batch, grids.get(name))
        else:
            continue
        shape = (*mask.shape, 1, 1) if stream.kind == "pictures" else (*mask.shape, 1)
        found[name] = stream.values(torch.zeros(shape), mask, times)
    return found


def pad_features(clips: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Features of single clips, without padding and masks, to a batch with both; what no clip has is left out."""
    batch: dict[str, Tensor] = {}
    for stream in STREAMS.values():
        tokens, times = ([clip[name] for clip in clips if name in clip] for name in (stream.tokens, stream.times))
        if not tokens:
            continue
        rows = [clip.get(stream.tokens, tokens[0][:0]) for clip in clips]
        spans = [clip.get(stream.times, times[0][:0]) for clip in clips]
        batch[stream.tokens] = pad_sequence(rows, batch_first=True)
        batch[stream.mask] = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        batch[stream.times] = pad_sequence(spans, batch_first=True)
    return batch


def unpad_features(features: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    """Tokens and times of one clip of a batch of features, without padding and masks."""
    single: dict[str, Tensor] = {}
    for stream in STREAMS.values():
        real = features[stream.mask][row].bool() if stream.tokens in features else None
        if real is not None and real.any():
            kept = (stream.tokens, stream.times)
            single |= {name: features[name][row][real.to(features[name].device)] for name in kept}
    return single
