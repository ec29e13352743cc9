"""What FAVOR is made of, as a configuration of transformers."""

from typing import Any, ClassVar, Literal

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from avfusion.encoders import TimmVisualEncoder
from examples.favor.streams import STREAMS


class FavorConfig(PreTrainedConfig):
    """Towers, connector and language model.

    Args:
        text_config: of any causal language model of transformers.
        vision_config: of InstructBLIP's ViT (with ``qformer_config``), or of any vision model of transformers or timm.
        audio_config: of Whisper.
        qformer_config: of InstructBLIP's Q-Former; without it the patches of a frame are averaged to
            ``num_query_tokens``.
        event_config: of a second audio tower (AST, Wav2Vec2 and their kin), for video-SALMONN's third stream. Further
            rows of ``STREAMS`` have theirs, by the name that they give it.
        num_query_tokens: visual tokens a frame.
        stream_dim: width of each stream of a frame.
        frame_rate: frames a second where there is no video, and of video files.
        slots: places for tokens in a frame.
        window_frames: frames a window.
        stride_frames: frames from window to window; ``window_frames`` without it.
        num_queries: embeddings a window.
        connector_hidden_size: width of the causal Q-Former.
        connector_layers: its layers.
        connector_heads: its attention heads.
        connector_intermediate_size: width of its feed-forward; four times its own without it.
        connector_dropout: its dropout.
        fine_window_frames: frames a fine window (video-SALMONN); one resolution without it.
        fine_num_queries: queries a fine window.
        causal_direction: what a frame sees: ``"causal"``, ``"reversed"`` (released weights), ``None``: all.
        padding: ``"masked"``, or ``"released"`` for released weights, which attend to empty slots.
        fusion: ``"synchronised"``, FAVOR's; for comparison ``"separate"``: a Q-Former for each stream (Video-LLaMA's),
            ``"averaged"`` and ``"concatenated"``: the frames' tokens as they are (InstructBLIP's).
        diversity_weight: λ of the diversity loss.
        media_token_id: the token that keeps a place for an embedding.
        frame_batch_size: frames that go through the vision tower at once.
        chunk_batch_size: chunks of sound that go through an audio tower at once.
    """

    model_type = "favor"
    sub_configs: ClassVar[dict[str, Any]] = dict.fromkeys(
        ("text_config", *(stream.config for stream in STREAMS.values()), "qformer_config"), AutoConfig
    )

    # The names under which others look for it.
    attribute_map: ClassVar[dict[str, str]] = dict.fromkeys(("video_token_id", "audio_token_id"), "media_token_id")

    text_config: Any = None
    vision_config: Any = None
    audio_config: Any = None
    qformer_config: Any = None
    event_config: Any = None
    num_query_tokens: int = 32
    stream_dim: int = 768
    frame_rate: float = 2.0
    slots: int = 32
    window_frames: int = 10
    stride_frames: int | None = None
    num_queries: int = 32
    connector_hidden_size: int = 768
    connector_layers: int = 2
    connector_heads: int = 12
    connector_intermediate_size: int | None = None
    connector_dropout: float = 0.0
    fine_window_frames: int | None = None
    fine_num_queries: int = 3
    causal_direction: Literal["causal", "reversed"] | None = "causal"
    padding: Literal["masked", "released"] = "masked"
    fusion: Literal["synchronised", "separate", "averaged", "concatenated"] = "synchronised"
    diversity_weight: float = 0.01
    media_token_id: int = 0
    frame_batch_size: int = 32
    chunk_batch_size: int = 16
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        default = {"text_config": "llama", "vision_config": "instructblip_vision_model", "audio_config": "whisper"}
        for name in self.sub_configs:
            value = kwargs.pop(name, getattr(self, name, None))  # a stream of the table may have no field here
            if value is None and name in default:
                value = {}
            if isinstance(value, dict):
                value = dict(value)
                kind = value.pop("model_type", default.get(name, "instructblip_qformer"))
                value = CONFIG_MAPPING[kind](**value)
            setattr(self, name, value)
        if self.vision_config.model_type == "timm_wrapper":
            _state_timm_sizes(self.vision_config)
        super().__post_init__(**kwargs)

    @property
    def visual_dim(self) -> int:
        """Width of a visual token."""
        tower: Any = self.vision_config if self.qformer_config is None else self.qformer_config
        return int(tower.hidden_size)


def _state_timm_sizes(config: Any) -> None:
    """Size of the pictures and width of the tokens, which the configurations of transformers' own models state."""
    if hasattr(config, "image_size") and hasattr(config, "hidden_size"):
        return
    size = getattr(config, "image_size", None)
    with torch.device("meta"):
        encoder = TimmVisualEncoder.from_config(config, image_size=None if size is None else (size, size))
    config.image_size, config.hidden_size = encoder.image_size[0], encoder.output_dim
