"""The projector of transformers' Granite Speech: windows of audio through a Q-Former, on to a language model."""

import torch
from torch import Tensor, nn

from avfusion import CausalQFormer, SlidingWindowProjector
from benchmarks.ours import encoder_of
from benchmarks.peers import weights
from benchmarks.peers.transformers_qformer import arguments, embedded, load
from benchmarks.sizes import Sizes

# As released: windows of 15 tokens, one query for 5 of them, 50 tokens a second.
AUDIO = Sizes(stream=512, hidden=1024, layers=2, heads=16, queries=3, window_frames=15, slots=1, llm_dim=4096)
SMOKE_AUDIO = AUDIO._replace(stream=8, hidden=16, heads=2, llm_dim=24)
RATE = 50.0


class GraniteSpeech(nn.Module):
    """The projector with the weights of one of avfusion's, whose Q-Former has no causal attention."""

    def __init__(self, ours: SlidingWindowProjector, *, attn_implementation: str, sizes: Sizes) -> None:
        super().__init__()
        from transformers import Blip2QFormerConfig, GraniteSpeechConfig
        from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechEncoderProjector

        encoder = encoder_of(ours)
        config = GraniteSpeechConfig(
            projector_config=Blip2QFormerConfig(**arguments(sizes), attn_implementation=attn_implementation),
            text_config={"model_type": "granite", "hidden_size": sizes.llm_dim},
            window_size=sizes.window_frames,
            downsample_rate=sizes.window_frames // sizes.queries,
        )
        self.projector = GraniteSpeechEncoderProjector(config)
        self.projector.linear.load_state_dict(ours.proj.state_dict())
        load(self.projector.qformer, weights.for_transformers(encoder, norm="layernorm"))
        with torch.no_grad():
            self.projector.query.copy_(encoder.query_tokens[None])

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens`` is ``(clip, token, width)``, embedded."""
        return self.projector(tokens)


def embedded_clip(ours: CausalQFormer, tokens: Tensor) -> Tensor:
    """``(clip, token, 1, width)`` tokens of whole windows as the layers see them: ``(clip, token, width)``."""
    windows = tokens.unflatten(1, (-1, ours.window_frames)).flatten(0, 1)
    return embedded(ours, windows).unflatten(0, (len(tokens), -1)).flatten(1, 2)
