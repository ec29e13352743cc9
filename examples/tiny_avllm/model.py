"""A tiny audio-visual language model, and its twin that does not synchronise."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    DiversityLoss,
    Frames,
    FrameSynchroniser,
    LLMEmbeddings,
    SlidingWindowProjector,
    TokenStream,
)
from avfusion.encoders import TimmVisualEncoder, WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel
from avfusion.modules import Component
from examples.tiny_avllm.data import MOST_SCENES, PIXELS, SCENE
from examples.tiny_avllm.questions import PLACEHOLDER

ENCODER_DIM = 64
HIDDEN = 128  # of the Q-Former and of the language model
TWIN_HIDDEN = 100  # of each of the two Q-Formers of the twin: as many parameters in all
WINDOW_FRAMES = 4
QUERIES = 4  # of a window
SLOTS = 25  # Whisper's tokens of half a second


class Towers(nn.Module):
    """The two networks under the encoders."""

    def __init__(self) -> None:
        super().__init__()
        self.whisper = WhisperEncoder(
            WhisperConfig(
                d_model=ENCODER_DIM,
                encoder_layers=2,
                encoder_attention_heads=4,
                encoder_ffn_dim=2 * ENCODER_DIM,
                max_source_positions=round(MOST_SCENES * SCENE * 50),
            )
        )
        self.vit = VisionTransformer(
            img_size=PIXELS // 2,
            patch_size=8,
            embed_dim=ENCODER_DIM,
            depth=2,
            num_heads=4,
            mlp_ratio=2,
            num_classes=0,
        )

    def encoders(self, *, frozen: bool) -> tuple[WhisperAudioEncoder, TimmVisualEncoder]:
        return (
            WhisperAudioEncoder(model=self.whisper, feature_extractor=WhisperFeatureExtractor(), frozen=frozen),
            TimmVisualEncoder(model=self.vit, frame_batch_size=256, frozen=frozen),
        )


def build_connector() -> AudioVisualConnector:
    """Synchronised, as FAVOR's: each slot of a frame holds what is seen beside what is heard."""
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=ENCODER_DIM, stream_dims={"audio": ENCODER_DIM}, frame_rate=1 / SCENE, slots=SLOTS
        ),
        projector=_projector(2 * ENCODER_DIM, QUERIES, HIDDEN),
    )


class SeparateConnector(Component):
    """The twin: a Q-Former for what is seen, another for what is heard, and their embeddings one after the other.

    Each has half the queries, so that a window gives as many embeddings, and is narrower, so that there are as many
    parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.visual = self._build(visual=True)
        self.audio = self._build(visual=False)
        self.llm_dim = self.visual.llm_dim

    @classmethod
    def _build(cls, *, visual: bool) -> AudioVisualConnector:
        synchroniser = FrameSynchroniser(
            visual_dim=ENCODER_DIM if visual else None,
            stream_dims={} if visual else {"audio": ENCODER_DIM},
            frame_rate=1 / SCENE,
            slots=SLOTS,
        )
        return AudioVisualConnector(
            synchroniser=synchroniser, projector=_projector(ENCODER_DIM, QUERIES // 2, TWIN_HIDDEN)
        )

    def forward(self, visual: Frames, audio: TokenStream) -> LLMEmbeddings:
        seen, heard = self.visual(visual=visual), self.audio(audio=audio)
        embeddings, mask, spans = (torch.cat(pair, 1) for pair in zip(seen[:3], heard[:3], strict=True))
        batch = len(embeddings)
        states = torch.cat([part.query_states.unflatten(0, (batch, -1)) for part in (seen, heard)], 1).flatten(0, 1)
        return LLMEmbeddings(embeddings, mask, spans, states)


def _projector(input_dim: int, queries: int, hidden_size: int) -> SlidingWindowProjector:
    qformer = CausalQFormer(
        input_dim=input_dim,
        hidden_size=hidden_size,
        num_heads=4,
        num_queries=queries,
        intermediate_size=2 * hidden_size,
        window_frames=WINDOW_FRAMES,
        tokens_per_frame=SLOTS,
        dropout=0.0,
    )
    # Steps are few and large here; queries as small as they are drawn would be thrown about by each.
    nn.init.normal_(qformer.query_tokens)
    return SlidingWindowProjector(window_encoder=qformer, window_frames=WINDOW_FRAMES, llm_dim=HIDDEN)


def build_model(towers: Towers, connector: nn.Module, tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    """Frozen encoders, the connector, and a new two-layer Llama."""
    audio, visual = towers.encoders(frozen=True)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=1024,
            initializer_range=HIDDEN**-0.5,  # the usual 0.02 is for widths of thousands
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    return AudioVisualLanguageModel(
        language_model=llama,
        connector=connector,
        audio_encoders={"audio": audio},
        visual_encoder=visual,
        placeholder_token_id=tokenizer.convert_tokens_to_ids(PLACEHOLDER),
        diversity_loss=DiversityLoss(weight=0.01),
    )
