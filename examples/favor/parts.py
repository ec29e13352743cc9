"""Small pieces of the model: what is built from the configuration, and how tensors are put in their places."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils.rnn import pad_sequence
from transformers import ASTFeatureExtractor, AutoModel, Wav2Vec2FeatureExtractor

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    InvalidValueError,
    MultiResolutionProjector,
    SlidingWindowProjector,
    TokenStream,
    Waveform,
)
from avfusion.encoders import HFAudioEncoder
from examples.favor.fusion import FUSIONS, FramesConnector, SeparateConnector

HELD = torch.iinfo(torch.int64).max  # the end of a still image, which lasts as long as there is sound; -HELD: its start


def seconds(microseconds: Tensor) -> Tensor:
    """Times as avfusion takes them."""
    dtype = torch.float32 if microseconds.device.type == "mps" else torch.float64
    times = microseconds.to(dtype) / 1e6
    return torch.where(microseconds.abs() == HELD, times.sign() * torch.inf, times)


def microseconds(times: Tensor) -> Tensor:
    """Times as the model takes them: whole numbers, which no cast to half precision harms."""
    whole = (times.nan_to_num(posinf=0, neginf=0) * 1e6).round().long()
    return torch.where(times.isinf(), times.sign().long() * HELD, whole)


def scatter(values: Tensor, mask: Tensor) -> Tensor:
    """Values ``(real, ...)`` at the true places of ``mask``, zeros elsewhere; what is left over is dropped."""
    places = values.new_zeros(*mask.shape, *values.shape[1:])
    index = mask.nonzero(as_tuple=True)
    return places.index_put(index, values[: len(index[0])])


def pool_patches(patches: Tensor, config: Any, count: int) -> Tensor:
    """Averages the patch grid ``(picture, patch, dim)`` to ``count`` tokens; class tokens are left out."""
    side = config.image_size // config.patch_size
    rows = next(rows for rows in range(int(count**0.5), 0, -1) if count % rows == 0)
    grid = patches[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(grid, (rows, count // rows)).flatten(2).transpose(1, 2)


STREAMS = {  # what is kept of each stream: tokens, mask and times, as the model names them
    "visual": ("visual_features", "video_mask", "video_spans"),
    "audio": ("audio_features", "audio_mask", "audio_times"),
    "events": ("event_features", "event_mask", "event_times"),
}


def pad_features(clips: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Features of single clips, without padding and masks, to a batch with both; what no clip has is left out."""
    batch: dict[str, Tensor] = {}
    for tokens, mask, times in STREAMS.values():
        given = [clip[tokens] for clip in clips if tokens in clip]
        if not given:
            continue
        rows = [clip.get(tokens, given[0][:0]) for clip in clips]
        spans = [clip.get(times, next(clip[times] for clip in clips if times in clip)[:0]) for clip in clips]
        batch[tokens] = pad_sequence(rows, batch_first=True)
        batch[mask] = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        batch[times] = pad_sequence(spans, batch_first=True)
    return batch


def features_layout(batch: Mapping[str, Tensor]) -> dict[str, Frames | TokenStream]:
    """Where the tokens of a batch of features lie in time: all that is needed to count embeddings."""
    layout: dict[str, Frames | TokenStream] = {}
    if "video_mask" in batch:
        real = batch["video_mask"][..., None]
        layout["visual"] = Frames(torch.zeros(*real.shape, 1), real, seconds(batch["video_spans"]))
    if "audio_mask" in batch:
        real = batch["audio_mask"]
        layout["audio"] = TokenStream(torch.zeros(*real.shape, 1), real, seconds(batch["audio_times"]))
    return layout


def is_sharded(*modules: nn.Module | None) -> bool:
    """Whether FSDP2 or ZeRO-3 splits the parameters: then every rank must run the modules equally often."""
    return (
        dist.is_available()
        and dist.is_initialized()
        and any(
            isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")
            for module in modules
            if module is not None
            for parameter in module.parameters()
        )
    )


def active_connector(model: Any) -> Any:
    """The connector that a model computes with; peft keeps the one from before training beside it."""
    trained = getattr(model.connector, "modules_to_save", None)
    return model.connector if trained is None else trained[model.connector.active_adapter]


def items_per_call(config: Any, dtype: torch.dtype, limit: float) -> int:
    """How many pictures or chunks of sound a tower computes within ``limit`` MiB."""
    tokens = getattr(config, "max_source_positions", None) or (config.image_size // config.patch_size) ** 2 + 1
    # At its fullest a layer holds its input, what it was normalised to, and the feed-forward, four times as wide,
    # before and after its non-linearity; attention that is written out holds its weights a few times.
    numbers = 16 * tokens * config.hidden_size
    if config._attn_implementation == "eager":
        numbers += 4 * config.num_attention_heads * tokens * tokens
    return max(1, int(limit * 2**20 / (numbers * dtype.itemsize)))


def build_connector(config: Any) -> nn.Module:
    """The connector that a configuration describes."""
    streams = {"audio": config.audio_config.d_model}
    if config.event_config is not None:
        streams["events"] = config.event_config.hidden_size
    given = {"visual": config.visual_dim, **streams}
    if config.fusion == "synchronised":
        return _synchronised(config, given)
    if config.fusion == "separate" and config.event_config is None:
        return SeparateConnector({name: _synchronised(config, {name: dim}) for name, dim in given.items()})
    if config.fusion not in FUSIONS or config.fusion == "separate":
        raise InvalidValueError(
            f"fusion: must be one of {', '.join(FUSIONS)}, without a second audio tower if separate, "
            f"found {config.fusion!r}{' with one' if config.event_config is not None else ''}"
        )
    llm_dim = config.get_text_config(decoder=True).hidden_size
    return FramesConnector(visual_dim=config.visual_dim, llm_dim=llm_dim, average=config.fusion == "averaged")


def _synchronised(config: Any, given: Mapping[str, int]) -> AudioVisualConnector:
    qformer = CausalQFormer(
        input_dim=config.stream_dim * len(given),
        hidden_size=config.connector_hidden_size,
        num_layers=config.connector_layers,
        num_heads=config.connector_heads,
        intermediate_size=config.connector_intermediate_size,
        num_queries=config.num_queries,
        window_frames=config.window_frames,
        tokens_per_frame=config.slots,
        causal_direction=config.causal_direction,
        padding=config.padding,
        dropout=config.connector_dropout,
    )
    sizes = {
        "window_encoder": qformer,
        "window_frames": config.window_frames,
        "stride_frames": config.stride_frames,
        "llm_dim": config.get_text_config(decoder=True).hidden_size,
    }
    fine = {"fine_window_frames": config.fine_window_frames, "fine_num_queries": config.fine_num_queries}
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=config.stream_dim if "visual" in given else None,
            stream_dims={name: config.stream_dim for name in given if name != "visual"},
            frame_rate=config.frame_rate,
            slots=config.slots,
            padding=config.padding,
        ),
        projector=(
            SlidingWindowProjector(**sizes)
            if config.fine_window_frames is None
            else MultiResolutionProjector(**sizes, **fine)
        ),
        # The published model maps the audio only, because its visual tokens have the stream's width already.
        input_dims={name: dim for name, dim in given.items() if name != "visual" or dim != config.stream_dim},
    )


class EventTower(nn.Module):
    """A second audio tower, for sounds that are not speech."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        spectrogram = config.model_type == "audio-spectrogram-transformer"
        extractor = (
            ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)
            if spectrogram
            else Wav2Vec2FeatureExtractor()
        )
        model = AutoModel.from_config(config)
        self.encoder = HFAudioEncoder(model=model, feature_extractor=extractor, pool_frequency=spectrogram)

    def forward(
        self, input_values: Tensor, input_values_mask: Tensor | None = None, audio_start: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Tokens, mask and times of samples ``(clip, sample)`` at 16 kHz."""
        if input_values_mask is None:
            input_values_mask = torch.ones_like(input_values, dtype=torch.bool)
        start = input_values.new_zeros(len(input_values), dtype=torch.int64) if audio_start is None else audio_start
        stream = self.encoder(
            Waveform(input_values, input_values_mask.bool(), self.encoder.sample_rate, seconds(start))
        )
        # Of very short sounds, the only token's middle may lie past the end: it still stands for the sound.
        length = input_values_mask.sum(1, keepdim=True).to(stream.timestamps) / self.encoder.sample_rate
        last = seconds(start).to(stream.timestamps)[:, None] + (length - 1 / 32_000).clamp(min=0)
        return {
            "event_features": stream.tokens,
            "event_mask": stream.mask,
            "event_times": microseconds(stream.timestamps.minimum(last)),
        }
