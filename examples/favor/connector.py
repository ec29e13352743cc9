"""The connector: the one that a configuration describes, and the one that a model computes with."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    FrameSynchroniser,
    InvalidValueError,
    MultiResolutionProjector,
    SlidingWindowProjector,
)
from examples.favor.fusion import FUSIONS, FramesConnector, SeparateConnector
from examples.favor.streams import VISUAL, streams_of


def active_connector(model: Any) -> Any:
    """The connector that a model computes with; peft keeps the one from before training beside it."""
    trained = getattr(model.connector, "modules_to_save", None)
    return model.connector if trained is None else trained[model.connector.active_adapter]


def build_connector(config: Any) -> nn.Module:
    """The connector that a configuration describes."""
    given = {name: stream.width(config) for name, stream in streams_of(config).items()}
    if config.fusion == "synchronised":
        return _synchronised(config, given)
    if config.fusion == "separate" and len(given) == 2:
        return SeparateConnector({name: _synchronised(config, {name: dim}) for name, dim in given.items()})
    if config.fusion not in FUSIONS or config.fusion == "separate":
        raise InvalidValueError(
            f"fusion: must be one of {', '.join(FUSIONS)}, without a second audio tower if separate, "
            f"found {config.fusion!r}{' with one' if len(given) > 2 else ''}"
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
            visual_dim=config.stream_dim if VISUAL in given else None,
            stream_dims={name: config.stream_dim for name in given if name != VISUAL},
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
        input_dims={name: dim for name, dim in given.items() if name != VISUAL or dim != config.stream_dim},
    )
