"""The model from its parts, and a baseline that does not synchronise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BatchFeature

from avfusion import AudioVisualConnector, DiversityLoss, Frames, LLMEmbeddings, TokenStream
from avfusion.encoders import WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel, embedding_norm, match_scale
from avfusion.modules import Component
from examples.real_parts.arms import ARMS, Arm
from examples.real_parts.audio_encoder import blockwise
from examples.real_parts.clips import FRAME_RATE
from examples.real_parts.parts import Parts

QUERIES = 4  # of a window of two seconds, so two per scene
SIZES: dict[str, Any] = {
    "window_seconds": 2.0, "frame_rate": FRAME_RATE, "stream_dim": 128, "intermediate_size": 384, "dropout": 0.0,
}  # fmt: skip
HIDDEN = 192  # of the Q-Former
BASELINE_HIDDEN = 152  # of each of the two Q-Formers of the baseline: as many parameters in all


def load_audio_encoder(folder: Path) -> nn.Module:
    """The audio encoder, frozen."""
    return blockwise(WhisperAudioEncoder.from_pretrained(str(folder), chunk_batch_size=64))


def build(parts: Parts, whisper: Path, arm: Arm = ARMS["synchronised"]) -> AudioVisualLanguageModel:
    """The parts with a new connector."""
    model = AudioVisualLanguageModel.from_pretrained_parts(
        language_model=parts.language_model,
        visual_encoder=parts.visual_encoder,
        audio_encoder=load_audio_encoder(whisper),
        encoder_options={"visual": {"image_size": (128, 128)}},
        diversity_loss=DiversityLoss(weight=0.01),
        num_queries=QUERIES,
        hidden_size=HIDDEN,
        **SIZES,
    )
    if not arm.scaled:
        model.connector = AudioVisualConnector.from_config(model.connector.config)
    if arm.separate:
        model.connector = SeparateConnector(model)
    return model


def to_model(inputs: Mapping[str, Any], model: AudioVisualLanguageModel) -> BatchFeature:
    """Inputs on the language model's device."""
    return BatchFeature(inputs).to(model.language_model.get_input_embeddings().weight.device)


def add_lora(model: AudioVisualLanguageModel) -> None:
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    model.language_model = get_peft_model(model.language_model, config)


class SeparateConnector(Component):
    """The baseline: a Q-Former for what is seen, another for what is heard, and their embeddings one after the other.

    Each has half the queries, so that a window gives as many embeddings, and is narrower, so that there are as many
    parameters.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        width = model.connector.llm_dim
        sizes = {**SIZES, "llm": width, "num_queries": QUERIES // 2, "hidden_size": BASELINE_HIDDEN}
        self.visual = AudioVisualConnector.from_encoders(visual=model.visual_encoder, **sizes)
        self.audio = AudioVisualConnector.from_encoders(audio=dict(model.audio_encoders), **sizes)
        self.llm_dim = width
        for one in (self.visual, self.audio):
            match_scale(one, embedding_norm(model.language_model))

    def forward(self, visual: Frames | None = None, audio: TokenStream | None = None) -> LLMEmbeddings:
        found = [] if visual is None else [self.visual(visual=visual)]
        found += [] if audio is None else [self.audio(audio=audio)]
        embeddings, mask, spans = (torch.cat(parts, 1) for parts in zip(*(one[:3] for one in found), strict=True))
        states = [one.query_states.unflatten(0, (len(mask), -1)) for one in found]
        return LLMEmbeddings(embeddings, mask, spans, torch.cat(states, 1).flatten(0, 1))
