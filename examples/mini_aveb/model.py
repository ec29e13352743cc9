"""The tiny reference model, and what an ablation may change in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    DiversityLoss,
    Frames,
    FrameSynchroniser,
    LLMEmbeddings,
    MultiResolutionProjector,
    SlidingWindowProjector,
    TokenStream,
)
from avfusion.models import AudioVisualLanguageModel
from avfusion.modules import Component
from examples.mini_aveb.text import PLACEHOLDER
from examples.mini_aveb.towers import AUDIO_RATE, DIM, TOKENS, Towers

HIDDEN = 128  # of the Q-Former and of the language model
SEPARATE_HIDDEN = 100  # of each of two Q-Formers, which have about as many parameters in all


@dataclass(frozen=True)
class Variant:
    """One way to build the connector.

    Attributes:
        name: what it is called.
        frame_rate: pictures a second.
        window_frames: frames of a window.
        queries: of a window.
        causal: attention from frame to frame before the queries look.
        synchronised: sound and pictures of a moment in one slot; else a Q-Former for each, of half the queries.
        diversity: weight of the diversity loss.
        fine: also look at each query's share of the frames by itself, with a query of its own.
    """

    name: str
    frame_rate: float = 4.0
    window_frames: int = 8
    queries: int = 4
    causal: bool = True
    synchronised: bool = True
    diversity: float = 0.01
    fine: bool = False


def build_connector(variant: Variant) -> nn.Module:
    """The connector of a variant."""
    if variant.synchronised:
        return _connector(variant, ("visual", "audio"), variant.queries, HIDDEN)
    return SeparateConnector(variant)


def _connector(variant: Variant, streams: tuple[str, ...], queries: int, hidden_size: int) -> AudioVisualConnector:
    slots = max(TOKENS, int(AUDIO_RATE / variant.frame_rate) + 1)
    qformer = CausalQFormer(
        input_dim=DIM * len(streams),
        hidden_size=hidden_size,
        num_heads=4,
        num_queries=queries,
        intermediate_size=2 * hidden_size,
        window_frames=variant.window_frames,
        tokens_per_frame=slots,
        causal_direction="causal" if variant.causal else None,
        dropout=0.0,
    )
    # Steps are few and large here; queries as small as they are drawn would be thrown about by each.
    nn.init.normal_(qformer.query_tokens)
    # Nor would they learn in time which place of a picture a slot is, if places of a frame began alike.
    with torch.no_grad():
        places = qformer.position_embedding.view(variant.window_frames, slots, -1)
        places += 0.5 * torch.randn_like(places[:1])
    projector: SlidingWindowProjector
    if variant.fine:
        projector = multi = MultiResolutionProjector(
            window_encoder=qformer,
            window_frames=variant.window_frames,
            fine_window_frames=variant.window_frames // queries,
            fine_num_queries=1,
            llm_dim=HIDDEN,
        )
        nn.init.normal_(multi.fine_query_tokens)
    else:
        projector = SlidingWindowProjector(window_encoder=qformer, window_frames=variant.window_frames, llm_dim=HIDDEN)
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=DIM if "visual" in streams else None,
            stream_dims={"audio": DIM} if "audio" in streams else {},
            frame_rate=variant.frame_rate,
            slots=slots,
        ),
        projector=projector,
    )


class SeparateConnector(Component):
    """Nothing is synchronised: a Q-Former for what is seen, another for what is heard, their embeddings one after the
    other.

    Args:
        variant: its windows have half the queries for each.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        queries = variant.queries // 2
        self.visual = _connector(variant, ("visual",), queries, SEPARATE_HIDDEN)
        self.audio = _connector(variant, ("audio",), queries, SEPARATE_HIDDEN)
        self.llm_dim = self.visual.llm_dim

    def forward(self, visual: Frames | None = None, audio: TokenStream | None = None) -> LLMEmbeddings:
        """Embeddings of what is there."""
        found = [self.visual(visual=visual)] if visual is not None else []
        found += [self.audio(audio=audio)] if audio is not None else []
        batch = len(found[0].mask)
        embeddings, mask, spans = (torch.cat(parts, 1) for parts in zip(*(out[:3] for out in found), strict=True))
        states = torch.cat([out.query_states.unflatten(0, (batch, -1)) for out in found], 1)
        return LLMEmbeddings(embeddings, mask, spans, states.flatten(0, 1))


def build_model(variant: Variant, towers: Towers, tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    """Frozen towers, the variant's connector, and a new Llama of two layers."""
    audio, visual = towers.encoders(frozen=True)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            initializer_range=HIDDEN**-0.5,  # the usual 0.02 is for widths of thousands
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    return AudioVisualLanguageModel(
        language_model=llama,
        connector=build_connector(variant),
        audio_encoders={"audio": audio},
        visual_encoder=visual,
        placeholder_token_id=tokenizer.convert_tokens_to_ids(PLACEHOLDER),
        diversity_loss=DiversityLoss(weight=variant.diversity),
    )


@torch.no_grad()
def begin_words(
    model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, directions: Mapping[str, Tensor]
) -> None:
    """Lets words begin as the connector says them, as they would be alike in a language model that had been trained."""
    table = model.language_model.get_input_embeddings().weight
    for word, direction in directions.items():
        [index] = tokenizer(word)["input_ids"]
        if index != tokenizer.unk_token_id:
            table[index] = direction * table.norm(dim=1).mean()
